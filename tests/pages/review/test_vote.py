"""Vote: starting one, what the browser is told before and after, and when votes count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.review import vote
from dashboard.services import people
from dashboard.services.shared_look import look_anew
from dashboard.ui import keys
from diffusion_core.media.images import png
from diffusion_core.review import polls
from diffusion_core.review.polls import Poll, Turn
from tests.pages.app import button, buttons, component_data, generate, open_page, press, words
from tests.tiny_runs import write_checkpoint, write_run

NAMES = ["run-a", "run-b", "run-c"]


@pytest.fixture(autouse=True)
def runs(runs_dir: Path) -> None:
    for k, name in enumerate(NAMES):
        samples = write_run(runs_dir, name) / "samples"
        samples.mkdir()
        for step in (20, 40):
            strip = np.full((4, 12, 3), 10 * k + step, np.uint8)
            (samples / f"step-{step:08d}.png").write_bytes(png(strip))


def open_vote(name: str, **settings: object) -> AppTest:
    app = open_page("review.py", view="Vote", **settings)
    app.session_state[keys.GUEST] = (name, "0" * 32)
    app.run()
    assert not app.exception
    return app


def start(**settings: object) -> AppTest:
    app = open_vote("Ann", runs=NAMES[:2], **settings)
    app.text_input(key=keys.POLL).set_value("wheels")
    return press(app, "Start the vote")


def poll_of(runs_dir: Path) -> Poll:
    return polls.read(runs_dir, "wheels")


def vote_all(runs_dir: Path, by: str, place: int = 0) -> None:
    poll = poll_of(runs_dir)
    for turn in polls.turns(poll, by, ()):
        polls.vote(poll, turn, place, by)


def test_the_form_offers_the_newest_samples_and_says_what_is_missing() -> None:
    app = open_vote("Ann", runs="run-a")
    assert app.multiselect(key="vote_of").value == ["run-a, step 40", "run-a, step 20"]
    app = open_vote("Ann", runs=NAMES, vote_kind="all at once", vote_count="2")
    assert app.multiselect(key="vote_of").value == [f"{name}, step 40" for name in NAMES]
    assert "2 questions for each person." in words(app)
    assert "images from the same noise" in words(app)
    assert "Select the runs to compare in the table." in words(open_vote("Ann"))
    app = open_vote("Ann", runs="run-a", vote_source="new images")
    assert "fewer than two checkpoints" in words(app)


def test_new_images_are_made_from_one_noise_and_belong_to_the_settings(runs_dir: Path) -> None:
    for name in NAMES[:2]:
        write_checkpoint(runs_dir / name, 40)
    app = open_vote("Ann", runs=NAMES[:2], vote_source="new images", vote_count="2", vote_seed="5")
    assert "Start the vote" not in buttons(app)
    generate(app, key="vote")
    assert "2 questions for each person. Each question shows images from the same" in words(app)
    app.text_input(key=keys.POLL).set_value("wheels")
    press(app, "Start the vote")
    poll = poll_of(runs_dir)
    assert [question.text for question in poll.record.questions] == [
        "seed 5, image 1",
        "seed 5, image 2",
    ]
    same = [polls.image(poll, poll.record.questions[0], e.name) for e in poll.record.entries]
    assert same[0] == same[1]  # the same weights

    app.selectbox(key="vote").set_value("").run()
    app.number_input(key="vote_seed").set_value(6).run()
    assert "Generate the images with these settings" in words(app)
    assert "Start the vote" not in buttons(app)


def test_who_votes_is_told_nothing_but_images(runs_dir: Path) -> None:
    app = start()
    poll = poll_of(runs_dir)
    assert [entry.name for entry in poll.record.entries] == ["run-a, step 40", "run-b, step 40"]
    told = component_data(app, "ballot")
    assert (told["at"], told["chosen"], told["back"]) == ([1, 3], None, False)
    app = open_vote("Bob", vote="wheels")
    assert not app.dataframe  # it opens without the table
    said = words(app) + json.dumps(component_data(app, "ballot")) + str(app.query_params)
    assert not any(name in said for name in NAMES)


def test_results_are_seen_after_the_last_question_and_end_the_voting(runs_dir: Path) -> None:
    start()
    vote_all(runs_dir, "eve@lab.org")
    app = open_vote("Ann", vote="wheels")
    assert "eve" not in words(app) and "vote by" not in words(app)
    by = people.name_of_guest("Ann", "0" * 32)
    vote_all(runs_dir, by)
    look_anew()
    app.run()
    assert "You have answered 3 of 3 questions." in words(app)
    assert "run-a" not in words(app)
    press(app, "Show the results")
    assert "6 votes by 2 people." in words(app)
    assert list(app.dataframe[0].value["Votes"]) == [6, 6]
    poll = poll_of(runs_dir)
    with pytest.raises(polls.PollError):
        polls.vote(poll, polls.turns(poll, by, ())[0], 0, by)
    assert "6 votes by 2 people." in words(open_vote("Ann", vote="wheels"))


def turn(chosen: str = "") -> Turn:
    return Turn(polls.Question.model_construct(text="image 1", files={}), ("a", "b"), chosen)


def test_a_visitor_goes_on_skips_and_goes_back() -> None:
    turns = [turn(), turn(), turn("a")]
    session = vote.Session(turns)
    assert session.now(turns) == 0
    session.go_on(0, skip=True)
    assert session.now(turns) == 1
    turns[1] = turn("b")
    session.go_on(1, skip=False)
    assert session.now(turns) is None
    session.go_back()
    assert session.now(turns) == 1
    session.go_back()
    assert session.now(turns) == 0
    turns[0] = turn("a")
    session.go_on(0, skip=False)
    assert session.now(turns) is None and not session.skipped
    for _ in range(3):
        session.go_back()
    assert session.now(turns) == 2


def test_viewers_wait_for_results_and_odd_links_and_files_are_named(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    with monkeypatch.context() as patch:
        patch.setenv("DIFFUSION_LAB_ROLE", "viewer")
        app = open_vote("Ann", vote="wheels")
        assert "can vote." in words(app) and "shown to those who have voted" in words(app)
        assert "Start the vote" in buttons(open_vote("Ann", runs=NAMES))
        assert button(open_vote("Ann", runs=NAMES), "Start the vote").disabled
    assert "Vote is 'no'" in words(open_page("review.py", view="Vote", vote="no"))
    app = open_vote("Ann", runs=NAMES)
    app.text_input(key=keys.POLL).set_value("../x")
    press(app, "Start the vote")
    assert "cannot be the name of a vote" in words(app)
    shutil.rmtree(poll_of(runs_dir).path / polls.IMAGES)
    assert "The images of this vote cannot be read" in words(open_vote("Ann", vote="wheels"))
    (poll_of(runs_dir).path / polls.FILE).write_text("{")
    assert "poll.json is not readable JSON." in words(open_vote("Ann", vote="wheels"))
