"""Say: who may write, what two who write at once see, and what a damaged file does."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.services import people
from dashboard.ui import keys
from diffusion_core.runs.remarks import (
    FILE,
    LONGEST_NOTE,
    Kind,
    Subject,
    add,
    delete,
    edit,
    read_remarks,
)
from tests.pages.app import button, buttons, open_page, press, words
from tests.tiny_runs import write_run

ANN = people.name_of_guest("Ann", "0" * 32)


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "run", 40)


def open_say(name: str = "Ann", **settings: object) -> AppTest:
    app = open_page("review.py", view="Say", runs="run", **settings)
    if name:
        app.session_state[keys.GUEST] = (name, "0" * 32)
        app.run()
    assert not app.exception
    return app


def write_note(app: AppTest, text: str, press_on: str = "Add note") -> AppTest:
    [field] = app.text_area
    field.set_value(text)
    return press(app, press_on)


def press_key(app: AppTest, start: str) -> AppTest:
    [found] = [each for each in app.button if (each.key or "").startswith(start)]
    found.click().run()
    assert not app.exception
    return app


def test_without_a_run_or_a_name_the_page_says_what_to_do(run: Path) -> None:
    app = open_page("review.py", view="Say")
    assert "Select a run in the table" in words(app)
    app = open_say(name="")
    assert not app.text_area and button(app, "Promote").disabled
    app.text_input(key="name-run-run").set_value("ann@lab.org")
    press(app, "Use this name")
    assert "A name must be without @ and #." in words(app)
    app.text_input(key="name-run-run").set_value(" Ann ")
    press(app, "Use this name")
    assert app.text_area and "You are Ann #" in words(app)


def test_a_viewer_reads_and_cannot_write(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(run, Kind.NOTE, "Round.", by="eve@lab.org")
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_say()
    assert "people who are signed in can write notes, tags, stars and decisions." in words(app)
    assert "Round." in words(app) and "somebody ·" in words(app) and "eve@" not in words(app)
    assert not app.text_area and button(app, "Keep").disabled


def test_everything_is_said_of_its_subject_and_taken_back(run: Path) -> None:
    app = open_say()
    write_note(app, "Round.")
    app.text_input(key="tag-run-run").set_value("good")
    press(app, "Add tag")
    press(press(app, "Promote"), "Keep")
    press_key(app, "star-")
    found = read_remarks(run)
    assert (found.tags(), found.stars(), found.decision()) == (["good"], 1, "keep")
    assert all(each.by == ANN for each in found.current)
    assert [each.kind for each in found.current].count(Kind.DECISION) == 1
    assert app.text_area[0].value == ""

    for start in ("keep-", "star-", "delete-"):
        press_key(app, start)
    press_key(app, "tag-run-run-")
    assert not read_remarks(run).current
    app.selectbox(key="say_about").set_value("40").run()
    write_note(app, "Step.")
    assert [each.subject for each in read_remarks(run).current] == [Subject(step=40)]
    assert "step 40" in words(app)
    app.toggle(key="say_history").set_value(True).run()
    assert "Ann #" in words(app) and "deleted the decision of run" in words(app)
    assert "added a note of run: Round." in words(app)


def test_two_who_edit_a_note_at_once_lose_nothing(run: Path) -> None:
    note = add(run, Kind.NOTE, "one", by=ANN)
    app = press_key(open_say(), "edit-")
    assert app.text_area[0].value == "one"
    edit(run, note.id, "theirs", by="ann@lab.org", operates=True)
    write_note(app, "mine", "Save")
    assert "ann@lab.org has edited this note meanwhile." in words(app)
    assert app.code[-1].value == "theirs" and app.text_area[0].value == "mine"
    press(app, "Save")
    [remark] = read_remarks(run).current
    assert [line.text for line in remark.lines] == ["one", "theirs", "mine"]
    assert "edited" in words(app) and "Add note" in buttons(app)

    press_key(app, "edit-")
    delete(run, note.id, by=ANN)
    write_note(app, "again", "Save")
    assert "This note was deleted meanwhile." in words(app) and app.text_area[0].value == "again"
    press(app, "Cancel")
    assert "No notes yet." in words(app)


def test_what_another_has_just_deleted_or_given_is_no_error(run: Path) -> None:
    note = add(run, Kind.NOTE, "one", by=ANN)
    app = open_say()
    delete(run, note.id, by=ANN)
    press_key(app, "delete-")
    assert "No notes yet." in words(app) and not app.toast
    add(run, Kind.TAG, "good", by="bob@lab.org")
    app.text_input(key="tag-run-run").set_value("good")
    press(app, "Add tag")
    assert [each.by for each in read_remarks(run).current] == ["bob@lab.org"]


def test_what_is_refused_is_explained_and_stays_in_the_field(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_say()
    write_note(app, " ")
    assert "The note is empty; it needs a text." in words(app)
    monkeypatch.setenv("DIFFUSION_LAB_HOURLY_REMARKS", "1")
    write_note(app, "x" * LONGEST_NOTE)
    assert "of 1 per hour are left" in words(app)
    assert app.text_area[0].value == "x" * LONGEST_NOTE
    assert not read_remarks(run).current


def test_a_damaged_file_and_a_full_one_are_named(run: Path) -> None:
    add(run, Kind.NOTE, "whole", by=ANN)
    with (run / FILE).open("a") as file:
        file.write("{broken\n")
    app = open_say()
    assert "The remarks of run cannot be read in full." in words(app) and "whole" in words(app)
    with (run / FILE).open("a") as file:
        file.write("x" * 4 * 2**20)
    write_note(app, "more")
    assert "nothing can be added." in words(app)


def test_the_page_of_a_run_says_what_was_said_of_it(run: Path) -> None:
    for kind, text in ((Kind.TAG, "good"), (Kind.NOTE, "Round."), (Kind.DECISION, "keep")):
        add(run, kind, text, by=ANN)
    add(run, Kind.TAG, "wheels", Subject(step=40), by=ANN)
    app = open_page("training.py", run="run")
    assert "Decision: keep · Tags: good · 1 note" in words(app)
    assert "Round." not in words(app)
    app.session_state["say-run-run-"] = True  # as if the button was pressed
    app.run()
    assert "Round." in words(app)
