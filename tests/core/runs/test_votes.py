"""Blind votes on disk: which one counts, who sees them, in which order images are shown."""

from __future__ import annotations

import json
import logging
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.runs import votes
from diffusion_core.runs.votes import (
    FILE,
    Vote,
    VoteError,
    Votes,
    cast,
    order_for,
    read_votes,
    seen_by,
)

ANN, BOB = "ann@lab.org", "bob@lab.org"


@pytest.fixture
def runs(runs_dir: Path) -> list[Path]:
    paths = [runs_dir / name for name in ("one", "two")]
    for path in paths:
        path.mkdir()
    return paths


def vote(runs: list[Path], chosen: str = "A", by: str = ANN, **changes: str) -> Vote:
    words = {"review": "wheels", "question": "seed 7, image 3", "shown": "AB"} | changes
    return cast(runs, words["review"], words["question"], list(words["shown"]), chosen, by)


def test_a_run_without_votes(runs: list[Path]) -> None:
    assert read_votes(runs) == Votes()


def test_each_run_keeps_the_vote_and_it_counts_once(runs: list[Path]) -> None:
    cast_vote = vote(runs, shown="BA")
    assert (cast_vote.shown, cast_vote.chosen, cast_vote.by) == (("B", "A"), "A", ANN)
    for folders in (runs, runs[:1], runs[1:]):
        assert read_votes(folders) == Votes((cast_vote,))


def test_the_last_vote_of_a_person_on_a_question_counts(runs: list[Path]) -> None:
    vote(runs, "A")
    others = [
        vote(runs, "A", BOB),
        vote(runs, "A", question="seed 8"),
        vote(runs, "A", review="doors"),
        vote(runs, "A", shown="AC"),
    ]
    last = vote(runs, "B", shown="BA")  # the same question in another order
    assert read_votes(runs).entries == (*others, last)
    assert len((runs[0] / FILE).read_text().splitlines()) == 2 * 6  # nothing is removed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"chosen": "C"}, "The vote: chosen is not among what was shown."),
        ({"shown": "AA"}, "The vote: shown names something twice."),
        ({"shown": "A"}, "The vote: shown is a list; it must be a list of at least 2."),
        ({"shown": "ABCDEFGHI"}, "The vote: shown is a list; it must be a list of at most 8."),
        ({"by": ""}, "The vote: by is empty; it needs a value."),
        ({"question": "x" * 401}, "The vote: question is 'xxx"),
    ],
)
def test_a_vote_that_cannot_be_is_refused(
    runs: list[Path], words: dict[str, str], sentence: str
) -> None:
    with pytest.raises(VoteError) as refused:
        vote(runs, **words)
    assert str(refused.value).startswith(sentence)
    assert read_votes(runs) == Votes()


def test_a_vote_on_nothing_is_refused() -> None:
    with pytest.raises(VoteError, match=r"^The vote names no run\.$"):
        vote([])


def test_one_run_that_takes_no_vote_does_not_lose_it(
    runs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (runs[0] / FILE).mkdir()
    with caplog.at_level(logging.WARNING):
        kept = vote(runs)
    assert caplog.messages == ["A vote cannot be written to one: votes.jsonl is not a file."]
    found = read_votes(runs)
    assert found.entries == (kept,)
    assert found.problem == "one: votes.jsonl cannot be read: Is a directory."
    (runs[1] / FILE).unlink()
    (runs[1] / FILE).mkdir()
    with pytest.raises(OSError, match="is not a file"):
        vote(runs)


def test_a_full_file_takes_no_more(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    vote(runs)
    monkeypatch.setattr(votes, "FULL", (runs[0] / FILE).stat().st_size)
    with pytest.raises(VoteError, match="no more votes fit"):
        vote(runs, "B")
    assert [each.chosen for each in read_votes(runs).entries] == ["A"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"chosen": "C"}, "chosen is not among what was shown."),
        ({"shown": ["A"]}, "shown is a list; it must be a list of at least 2."),
        ({"shown": "AB"}, "shown is 'AB'; it must be a list."),
        ({"time": -1}, "time is -1; it must be from 0 to"),
        ({"id": "x"}, "id is 'x'; it cannot be used."),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_count(
    runs: list[Path], change: dict[str, object], problem: str
) -> None:
    first = vote(runs)
    with open(runs[0] / FILE, "a") as file:
        file.write(json.dumps(first.model_dump(mode="json") | change))  # and no end of the line
    last = vote(runs, by=BOB)
    found = read_votes(runs)
    assert found.entries == (first, last)
    assert found.problem.startswith(f"one: {FILE}: {problem}")


def test_nobody_sees_the_votes_of_others_before_voting(runs: list[Path]) -> None:
    mine, theirs = vote(runs, by=ANN), vote(runs, "B", BOB, shown="BA")
    elsewhere = vote(runs, by=BOB, question="seed 8")
    every = read_votes(runs).entries
    assert seen_by(ANN, every) == [mine, theirs]
    assert seen_by(BOB, every) == [mine, theirs, elsewhere]
    assert seen_by("eve@lab.org", every) == []


# ---------------------------------------------------------------- the order


NAMES = st.sets(st.text(max_size=3), min_size=1, max_size=8)


@given(NAMES, st.text(max_size=5), st.randoms())
def test_the_order_is_the_same_whenever_a_person_comes_back(names, person, random) -> None:
    given_order = sorted(names)
    first = order_for(person, "wheels", given_order, "seed 7")
    random.shuffle(given_order)
    assert order_for(person, "wheels", given_order, "seed 7") == first
    assert sorted(first) == sorted(names)


def test_the_order_stays_what_it_was_in_earlier_versions() -> None:
    orders = ["".join(order_for(f"person {k}", "wheels", "ABC", "seed 7")) for k in range(6)]
    assert orders == ["CBA", "BAC", "CAB", "CBA", "ACB", "ABC"]


def test_every_order_is_as_likely_and_people_and_questions_have_their_own() -> None:
    for change in ("person", "question", "review"):
        seen = Counter(
            "".join(
                order_for(
                    f"ann {k}" if change == "person" else "ann",
                    f"wheels {k}" if change == "review" else "wheels",
                    "ABC",
                    f"seed {k}" if change == "question" else "seed",
                )
            )
            for k in range(6000)
        )
        assert seen.keys() == {"".join(order) for order in permutations("ABC")}
        # Five standard deviations of a binomial count of 6,000 with probability 1/6.
        assert all(abs(count - 1000) < 5 * (6000 * 1 / 6 * 5 / 6) ** 0.5 for count in seen.values())
