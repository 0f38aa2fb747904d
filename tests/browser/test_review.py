"""Review by several people at once: notes, votes and a presentation, each in a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from diffusion_core.review import polls
from diffusion_core.runs.remarks import read_remarks
from diffusion_core.runs.run import load_run
from tests.browser.conftest import DESKTOP, PHONE, OpenPage, assert_not_too_wide
from tests.browser.server import Server

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo-cars"
[(STEP, _)] = load_run(DEMO).weights()

OpenAs = Callable[..., Page]


# All windows are of one browser, which would take everybody for the same person.
OF_THE_WINDOW = "Object.defineProperty(window, 'localStorage', { value: window.sessionStorage })"


@pytest.fixture
def open_as(open_page: OpenPage, server: Server) -> OpenAs:
    """`open_as("Ann", "/review?view=Say")`: a person's window, as if in a browser of its own."""
    for name in ("one", "two"):
        shutil.copytree(DEMO, server.runs_dir / name)

    def open_(person: str, path: str, phone: bool = False) -> Page:
        page = open_page("/", viewport=PHONE if phone else DESKTOP)
        page.add_init_script(OF_THE_WINDOW)
        page.goto(f"{server.url}{path}")
        page.get_by_label("Your name").fill(person)
        press(page, "Use this name")
        expect(page.get_by_text(f"You are {person} #")).to_be_visible()
        return page

    return open_


def press(page: Page, name: str) -> None:
    """A button, in front: a window that is covered draws once a second."""
    page.bring_to_front()
    page.get_by_role("button", name=name, exact=True).click()


@pytest.mark.long
def test_what_one_says_the_other_sees_and_keeps_typing(open_as: OpenAs, server: Server) -> None:
    ann = open_as("Ann", "/review?view=Say&runs=one")
    bob = open_as("Bob", "/review?view=Say&runs=one", phone=True)
    bob.get_by_label("Note").fill("half a thou")
    ann.get_by_label("Note").fill("Wheels are **round**. ![x](https://example.org/x.png)")
    press(ann, "Add note")
    expect(bob.get_by_text("Wheels are round.")).to_be_visible()
    expect(bob.get_by_test_id("stMain").locator("img")).to_have_count(0)
    ann.get_by_label("Tag").fill("good")
    press(ann, "Add tag")
    expect(bob.get_by_role("button", name="good")).to_be_visible()
    press(ann, "Promote")
    expect(bob.get_by_text("Promote: Ann #")).to_be_visible()
    expect(bob.get_by_label("Note")).to_have_value("half a thou")
    assert_not_too_wide(bob)

    # Both at once: what both said is kept, and the one who comes second hears of the first.
    for page in (ann, bob):
        press(page, "0")
    for page in (ann, bob):
        expect(page.get_by_role("button", name="2", exact=True)).to_be_visible()
    for page, decision in ((ann, "Keep"), (bob, "Drop")):
        press(page, decision)
    expect(ann.get_by_text("Drop: Bob #")).to_be_visible()
    found = read_remarks(server.runs_dir / "one")
    assert (found.stars(), found.decision(), len(found.current)) == (2, "drop", 6)


@pytest.mark.long
def test_the_second_who_edits_a_note_is_told_and_nothing_is_lost(
    open_as: OpenAs, server: Server
) -> None:
    ann = open_as("Ann", "/review?view=Say&runs=one")
    bob = open_as("Bob", "/review?view=Say&runs=one")
    ann.get_by_label("Note").fill("one")
    press(ann, "Add note")
    for page, text in ((ann, "hers"), (bob, "his")):  # this machine's visitors are operators
        press(page, "Edit")
        page.get_by_label("Edit the note of the run").fill(text)
    press(ann, "Save")
    expect(bob.get_by_text("hers")).to_be_visible()
    expect(bob.get_by_label("Edit the note of the run")).to_have_value("his")
    press(bob, "Save")
    expect(bob.get_by_text("has edited this note meanwhile.")).to_be_visible()
    expect(bob.get_by_label("Edit the note of the run")).to_have_value("his")
    press(bob, "Save")
    expect(ann.get_by_text("his", exact=True)).to_be_visible()
    [note] = read_remarks(server.runs_dir / "one").current
    assert [line.text for line in note.lines] == ["one", "hers", "his"]
    press(ann, "Delete")
    for page in (ann, bob):
        expect(page.get_by_text("No notes yet.")).to_be_visible()
    assert [line.deed for line in note.lines] == ["added", "edited", "edited"]
    assert not read_remarks(server.runs_dir / "one").current


@pytest.mark.long
def test_people_vote_blind_by_keys_and_by_finger_and_then_see_the_results(
    open_as: OpenAs, server: Server
) -> None:
    ann = open_as("Ann", "/review?view=Vote&runs=one&runs=two&vote_count=2")
    ann.get_by_label("Name", exact=True).fill("wheels")
    press(ann, "Start the vote")
    where = ann.get_by_text("which image is better?")
    expect(where).to_contain_text("1 of 2")
    ann.bring_to_front()
    for key, shown in (("1", "2 of 2"), ("Backspace", "1 of 2"), ("ArrowRight", "2 of 2")):
        ann.keyboard.press(key)
        expect(where).to_contain_text(shown)
    ann.keyboard.press("s")
    expect(ann.get_by_text("You have answered 1 of 2 questions.")).to_be_visible()
    press(ann, "Answer the skipped ones")
    expect(where).to_contain_text("2 of 2")
    ann.bring_to_front()
    ann.keyboard.press("2")
    expect(ann.get_by_role("button", name="Show the results")).to_be_visible()

    bob = open_as("Bob", "/review?view=Vote&vote=wheels", phone=True)
    assert_not_too_wide(bob)
    for shown in ("1 of 2", "2 of 2"):
        expect(bob.get_by_text("which image is better?")).to_contain_text(shown)
        told = bob.content()
        assert not any(each in told for each in (f"step {STEP:,}", "Ann #", "votes by"))
        image = bob.get_by_role("button", name="Choose image 2")
        box = image.bounding_box()
        assert box is not None and min(box["width"], box["height"]) > 120
        bob.bring_to_front()
        image.click()
    for page in (ann, bob):
        press(page, "Show the results")
        expect(page.get_by_text("4 votes by 2 people.")).to_be_visible()
    assert_not_too_wide(bob)
    found = polls.votes(polls.read(server.runs_dir, "wheels")).entries
    assert sorted(vote.by.split()[0] for vote in found) == ["Ann", "Ann", "Bob", "Bob"]


@pytest.mark.long
def test_who_follows_sees_what_the_presenter_sees(open_as: OpenAs, open_page: OpenPage) -> None:
    ann = open_as("Ann", "/review?view=Say&runs=one")
    press(ann, "Follow me")
    press(ann, "Present")
    expect(ann.get_by_text("You are presenting.")).to_be_visible()
    bob = open_page("/review")
    press(bob, "Follow me")
    bob.get_by_role("button", name="Follow Ann").click()
    expect(bob.get_by_text("You are following Ann #")).to_be_visible()
    expect(bob.get_by_text("No notes yet.")).to_be_visible()
    ann.bring_to_front()
    ann.get_by_test_id("stMain").get_by_text("Vote", exact=True).first.click()
    expect(bob.get_by_role("button", name="Start the vote")).to_be_visible()
    ann.get_by_role("textbox", name="Filter").fill("step > 99999")
    ann.keyboard.press("Enter")
    expect(bob.get_by_text("No run fits the search and the filter.")).to_be_visible()
    assert "filter=step" in bob.url

    press(bob, "Stop following")
    expect(bob.get_by_role("button", name="Follow me")).to_be_visible()
    press(bob, "Follow me")
    bob.get_by_role("button", name="Follow Ann").click()
    expect(bob.get_by_text("You are following Ann #")).to_be_visible()
    press(ann, "Stop presenting")
    expect(bob.get_by_text("The presentation that you followed has ended.")).to_be_visible()
