"""Blind votes that people are asked for: the images, whose vote counts, and who may see results."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_core.records import RecordError
from diffusion_core.review import polls
from diffusion_core.review.polls import Entry, Kind, Poll, PollError
from tests.tiny_runs import write_run

ANN, BOB = "ann@lab.org", "bob@lab.org"


def image(value: int, side: int = 4, channels: int = 3) -> np.ndarray:
    return np.full((side, side, channels), value, np.uint8)


def make(runs_dir: Path, kind: Kind = Kind.ALL, count: int = 2, names: str = "abc") -> Poll:
    for name in names:
        if not (runs_dir / name).exists():
            write_run(runs_dir, name)
    entries = [Entry(name=f"run {name}", run=name, step=40) for name in names]
    images = {e.name: [image(10 * k) for _ in range(count)] for k, e in enumerate(entries)}
    texts = [f"image {k + 1}" for k in range(count)]
    return polls.make(runs_dir, "wheels", kind, entries, images, texts, ANN)


def turns(poll: Poll, by: str) -> list[polls.Turn]:
    return polls.turns(poll, by, polls.votes(poll).entries)


def test_images_tell_nothing_but_their_pixels(runs_dir: Path) -> None:
    entries = [Entry(name=name, run=name, step=1) for name in ("grey", "large")]
    for entry in entries:
        write_run(runs_dir, entry.run)
    images = {"grey": [image(9, 4, 1)], "large": [image(9, 8)]}
    poll = polls.make(runs_dir, "sizes", Kind.ALL, entries, images, ["image 1"], ANN)
    [question] = poll.record.questions
    files = [polls.image(poll, question, name) for name in ("grey", "large")]
    assert files[0] == files[1]
    found = Image.open(io.BytesIO(files[0]))
    assert (found.size, found.mode, found.info) == ((8, 8), "RGB", {})
    text = [path.name for path in (poll.path / polls.IMAGES).iterdir()]
    assert not any("grey" in name or "large" in name for name in text)


def test_pairs_ask_for_every_two_under_each_noise(runs_dir: Path) -> None:
    make(runs_dir, Kind.PAIRS)
    poll = polls.read(runs_dir, "wheels")
    asked = [(q.text, "".join(sorted(name[-1] for name in q.files))) for q in poll.record.questions]
    pairs = ["ab", "ac", "bc"]
    assert asked == [(f"image {k}", pair) for k in (1, 2) for pair in pairs]
    assert polls.names(runs_dir) == ["wheels"]


def test_a_vote_is_the_entry_at_the_place_and_can_be_changed(runs_dir: Path) -> None:
    poll = make(runs_dir)
    first = turns(poll, ANN)[0]
    polls.vote(poll, first, 2, ANN)
    assert turns(poll, ANN)[0] == first._replace(chosen=first.shown[2])
    polls.vote(poll, first, 0, ANN)
    assert turns(poll, ANN)[0].chosen == first.shown[0]
    assert len(polls.votes(poll).entries) == 1
    assert not any(turn.chosen for turn in turns(poll, BOB))
    with pytest.raises(PollError, match="no such image"):
        polls.vote(poll, first, 3, ANN)


def test_people_see_other_orders(runs_dir: Path) -> None:
    poll = make(runs_dir, count=8)
    seen = {
        str([(turn.question.text, turn.shown) for turn in turns(poll, f"p{k}")]) for k in "abcd"
    }
    assert len(seen) == 4


def test_who_has_seen_the_results_cannot_vote(runs_dir: Path) -> None:
    poll = make(runs_dir)
    polls.end(poll, ANN)
    polls.end(poll, ANN)
    with pytest.raises(PollError, match="You have seen the results"):
        polls.vote(poll, turns(poll, ANN)[0], 0, ANN)
    polls.vote(poll, turns(poll, BOB)[0], 0, BOB)
    assert polls.has_ended(poll, ANN) and not polls.has_ended(poll, BOB)
    assert len((poll.path / polls.ENDED).read_text().split()) == 1


def test_a_vote_of_a_run_that_is_deleted_is_in_the_others(runs_dir: Path) -> None:
    poll = make(runs_dir)
    (runs_dir / "a").rename(runs_dir / ".deleted")
    polls.vote(poll, turns(poll, ANN)[0], 0, ANN)
    assert len(polls.votes(poll).entries) == 1


def test_a_second_poll_of_a_name_is_refused_and_the_first_stays(runs_dir: Path) -> None:
    before = make(runs_dir)
    with pytest.raises(PollError, match="There is a vote wheels already"):
        make(runs_dir)
    assert polls.read(runs_dir, "wheels") == before


def test_a_poll_without_questions_or_with_too_many_is_refused(runs_dir: Path) -> None:
    with pytest.raises(PollError, match="The vote has 0 questions"):
        make(runs_dir, count=0)
    with pytest.raises(PollError, match="The vote has 603 questions"):
        make(runs_dir, Kind.PAIRS, count=201)


@pytest.mark.parametrize("name", ["../wheels", "", ".", "x/y", "other", "\0"])
def test_a_name_that_is_none_is_not_there(runs_dir: Path, name: str) -> None:
    make(runs_dir)
    with pytest.raises(PollError, match="There is no"):
        polls.read(runs_dir, name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["entries"][0].update(run="../a"), "a run is the name of a folder"),
        (lambda record: record["entries"][0].update(name="run b"), "two entries have the same"),
        (
            lambda record: record["questions"][0]["files"].update({"run a": "../../x.png"}),
            "poll.json",
        ),
        (lambda record: record["questions"].append(record["questions"][0]), "is there twice"),
        (lambda record: record["entries"].pop(), "shows what is no entry"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    runs_dir: Path, change: Callable[[Any], object], said: str
) -> None:
    file = make(runs_dir).path / polls.FILE
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    with pytest.raises(RecordError, match=said):
        polls.read(runs_dir, "wheels")


def test_results_of_a_poll_are_for_those_who_can_vote_in_it_no_more(runs_dir: Path) -> None:
    poll = make(runs_dir, count=1)
    for by in (ANN, BOB):
        polls.vote(poll, turns(poll, by)[0], 0, by)
    every = polls.votes(poll).entries
    assert polls.results_for(ANN, every, runs_dir) == []
    polls.end(poll, ANN)
    assert polls.results_for(ANN, every, runs_dir) == list(every)
    assert polls.results_for(BOB, every, runs_dir) == []
    assert polls.results_for("eve@lab.org", every, runs_dir) == []
    elsewhere = [vote.model_copy(update={"review": "by hand"}) for vote in every]
    assert polls.results_for(BOB, elsewhere, runs_dir) == elsewhere
