"""The table of the Review page: which runs it lists, how, and how some are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.review import choose
from diffusion_core.review.index import Row
from diffusion_core.runs.remarks import Kind, add
from tests.pages.app import open_page, words
from tests.tiny_runs import TINY, write_run


@pytest.fixture
def runs(runs_dir: Path) -> list[str]:
    """Five runs, the newest first."""
    for number in range(5):
        config = TINY.replace(batch_size=8 << number % 2, seed=number)
        write_run(runs_dir, f"run-{number}", config=config, created=1e9 + number, step=number)
    return [f"run-{number}" for number in reversed(range(5))]


def open_review(**settings: object) -> AppTest:
    return open_page("review.py", **settings)


def listed(app: AppTest) -> list[str]:
    return list(app.dataframe[-1].value["name"])


def test_without_runs_the_page_says_how_to_begin() -> None:
    app = open_review()
    assert "There are no runs yet." in words(app)
    assert not app.dataframe


def test_all_runs_are_listed_newest_first_and_a_link_filters_sorts_and_chooses(
    runs: list[str],
) -> None:
    assert listed(open_review()) == runs
    app = open_review(filter="batch_size > 8", sort="seed", runs=["run-1", "run-4"])
    assert listed(app) == ["run-1", "run-3"]
    assert "2 of 5 runs" in words(app)
    assert app.multiselect(key="runs").value == ["run-1", "run-4"]
    assert listed(open_review(search="RUN 3")) == ["run-3"]
    assert listed(open_review(sort="step", reverse="true")) == runs
    assert listed(open_review(reverse="true")) == runs[::-1]


def test_a_filter_that_cannot_be_used_is_explained_beside_all_runs(runs: list[str]) -> None:
    app = open_review(filter="batch_sise > 8")
    assert "did you mean batch_size?" in words(app)
    assert listed(app) == runs
    app.text_input(key="filter").set_value("seed > 99").run()
    assert "No run fits the search and the filter." in words(app)


def test_groups_say_how_many_runs_they_have_and_the_median_of_each_number(runs: list[str]) -> None:
    app = open_review(group="batch_size", columns=["state", "step"])
    groups, table = (each.value for each in app.dataframe)
    assert list(groups["batch_size"]) == ["8", "16"]
    assert list(groups["runs"]) == [3, 2]
    assert list(groups["median step"]) == [2, 2]
    assert list(table["name"]) == ["run-4", "run-2", "run-0", "run-3", "run-1"]
    assert list(table.columns[1:]) == ["batch_size", "state", "step"]


def test_what_people_said_of_runs_has_columns_where_there_is_any(
    runs: list[str], runs_dir: Path
) -> None:
    first = ["name", *choose.FIRST_COLUMNS]
    assert list(open_review().dataframe[0].value.columns) == first
    add(runs_dir / "run-2", Kind.TAG, "good", by="ann")
    table = open_review().dataframe[0].value
    assert list(table.columns) == [*first, "tags"]
    assert table["tags"].dropna().to_dict() == {2: "good"}


def test_a_chosen_run_that_is_gone_is_no_longer_chosen(runs: list[str], runs_dir: Path) -> None:
    app = open_review(runs=["run-1", "run-4"])
    (runs_dir / "run-4").rename(runs_dir / ".gone")
    app.run()
    assert not app.exception
    assert app.multiselect(key="runs").value == ["run-1"]


def test_a_damaged_run_is_listed_and_named(runs: list[str], runs_dir: Path) -> None:
    (runs_dir / "run-2" / "config.json").write_text("{")
    app = open_review(runs="run-2")
    assert listed(app) == runs
    assert "Not readable in full: run-2" in words(app)


@pytest.mark.parametrize(
    ("before", "rows", "after"),
    [
        (["a"], [0, 2], ["a", "c"]),
        (["c", "a"], [0, 2], ["c", "a"]),  # their order, and so their colours, stay
        (["hidden", "a"], [1], ["hidden", "b"]),  # a filter hides one of them
        ([], [0, 9], ["a"]),  # a row of the table as it was before
        (["a"], [], []),
    ],
)
def test_a_selection_of_rows_chooses_their_runs(
    before: list[str], rows: list[int], after: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"runs": before, "key": {"selection": {"rows": rows}}}
    monkeypatch.setattr(choose.st, "session_state", state)
    choose._take_selection("key", ["a", "b", "c"])
    assert state["runs"] == after


def test_no_more_than_eight_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"runs": list("abcdefgh"), "key": {"selection": {"rows": list(range(9))}}}
    monkeypatch.setattr(choose.st, "session_state", state)
    choose._take_selection("key", list("abcdefghi"))
    assert state["runs"] == list("abcdefgh")
    assert state["too_many"]
    assert "selected" not in state  # so that the table starts again without the ninth


def test_every_name_that_can_be_a_column_has_a_kind() -> None:
    row = Row(values=dict.fromkeys(choose.NAMES, "text"))
    for name in choose.NAMES:
        choose._cell(choose.kind_of(name), row.values[name])
