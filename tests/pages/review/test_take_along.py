"""Taking runs along: what the view offers, and to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.services import budgets, reports
from dashboard.services.budgets import Budget, OverBudget
from dashboard.services.settings import ROLE, get_settings
from diffusion_core.review.report.content import Parts
from diffusion_core.runs.history import read_history
from diffusion_core.runs.remarks import Kind, add
from diffusion_core.runs.run import load_run
from diffusion_core.runs.votes import cast
from tests.pages.app import open_page
from tests.tiny_runs import write_run


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "run-1", 20)


def test_the_size_is_on_the_button_before_the_file_is_made(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "make_report", lambda *given: pytest.fail("made too early"))
    app = open_page("review.py", view="Take along", runs=["run-1"])
    [button] = app.get("download_button")
    assert button.proto.label == "Report as HTML, about 2.0 MB" and not button.proto.disabled
    app.button_group(key="report_format").set_value(".pdf").run()
    [button] = app.get("download_button")
    assert button.proto.label.startswith("Report as PDF, about 0.")


def test_viewers_get_no_names_and_so_many_an_hour(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(run, Kind.NOTE, "a note", by="ann@lab.org")
    cast([run], "sharper", "seed 1", ("two", "one"), "one", "ben")
    runs = [load_run(run)]
    for role, named in (("operator", True), ("viewer", False)):
        monkeypatch.setenv(ROLE, role)
        parts = reports.parts_for(reports.PARTS, "")
        assert parts == Parts(names=named, person="")
        page = reports.make(
            runs, ".html", parts, who="somebody", settings=get_settings(), by=reports.author()
        ).decode()
        assert ("ann@lab.org" in page) is named
        assert "a note" in page and "sharper" not in page  # who has not voted sees no votes
    assert [each.format for each in read_history(run).entries] == ["report.html"]  # the operator's
    budgets.charge(Budget.REPORTS, "somebody", budgets.VIEWERS.reports - 2, get_settings())
    assert "60 per hour" in reports.refusal("somebody", get_settings())
    with pytest.raises(OverBudget):
        reports.make(runs, ".html", Parts(), who="somebody", settings=get_settings(), by=None)
