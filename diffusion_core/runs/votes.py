"""`votes.jsonl`: which of several images a person chose without knowing what made them.

A vote is written into the folder of each run that was compared, so each run keeps it. Votes are
only added (see `lines.py`); of several of a person on the same question the last one counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError, model_validator

from diffusion_core.files import os_sentence
from diffusion_core.records import Record, sentences
from diffusion_core.runs.history import LONGEST_NAME
from diffusion_core.runs.lines import add_line, read_lines
from diffusion_core.runs.remarks import Id
from diffusion_core.runs.status import Moment

_log = logging.getLogger(__name__)

FILE = "votes.jsonl"
MOST_SHOWN = 8  # images from which one is chosen
FULL = 16 * 2**20  # bytes of the file from which on nothing is added
MOST_BYTES = 2 * FULL  # that a reader takes: several may add a last line at once

Name = Annotated[str, Field(min_length=1, max_length=400)]


class VoteError(ValueError):
    """A vote that cannot be cast; the message says why."""


class Vote(Record):
    """A line of the file."""

    id: Id  # the same in the folder of each run
    review: Name  # the comparison that it belongs to
    # What was the same for all that was shown, for example the seed and the number of the image.
    question: Name
    # Names of what was compared, in the order in which their images stood before this person.
    shown: Annotated[tuple[Name, ...], Field(strict=False, min_length=2, max_length=MOST_SHOWN)]
    chosen: Name
    by: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    time: Moment

    @model_validator(mode="after")
    def _chose_one_of_them(self) -> Vote:
        if len(set(self.shown)) < len(self.shown):
            raise ValueError("shown names something twice.")
        if self.chosen not in self.shown:
            raise ValueError("chosen is not among what was shown.")
        return self

    @property
    def ballot(self) -> tuple[str, str, str, frozenset[str]]:
        """Whose vote on what it is: one of each counts."""
        return self.by, self.review, self.question, frozenset(self.shown)


class Votes(NamedTuple):
    """The votes that count, the oldest first."""

    entries: tuple[Vote, ...] = ()
    problem: str = ""  # why a file cannot be read in full, as a sentence


def cast(
    runs: Sequence[Path], review: str, question: str, shown: Sequence[str], chosen: str, by: str
) -> Vote:
    """Write a vote into the folders of the runs that were compared.

    It is cast where at least one folder has taken it; why others have not is logged. Raises
    VoteError, DiskFull, OSError.
    """
    if not runs:
        raise VoteError("The vote names no run.")
    try:
        vote = Vote(
            id=secrets.token_hex(8),
            review=review,
            question=question,
            shown=tuple(shown),
            chosen=chosen,
            by=by,
            time=time.time(),
        )
    except ValidationError as error:
        raise VoteError(sentences(error, Vote, "The vote")[0]) from error
    errors: list[OSError | VoteError] = []
    for run in runs:
        try:
            _write(run, vote)
        except (OSError, VoteError) as error:
            errors.append(error)
            why = os_sentence(error) if isinstance(error, OSError) else str(error)
            _log.warning("A vote cannot be written to %s: %s", run.name, why)
    if len(errors) == len(runs):
        raise errors[0]
    return vote


def read_votes(runs: Iterable[Path]) -> Votes:
    """The votes in the folders of some runs, each once. Never raises."""
    found: dict[str, Vote] = {}
    problem = ""
    for run in runs:
        lines = read_lines(run / FILE, Vote, MOST_BYTES)
        for vote in lines.entries:
            found.setdefault(vote.id, vote)
        problem = problem or (lines.problem and f"{run.name}: {lines.problem}")
    last = {vote.ballot: vote for vote in sorted(found.values(), key=lambda each: each.time)}
    return Votes(tuple(sorted(last.values(), key=lambda each: each.time)), problem)


def seen_by(person: str, votes: Iterable[Vote]) -> list[Vote]:
    """The votes that a person may see: on what the person has voted on, and no others."""
    votes = list(votes)
    answered = {vote.ballot[1:] for vote in votes if vote.by == person}
    return [vote for vote in votes if vote.ballot[1:] in answered]


def order_for(person: str, review: str, names: Iterable[str], question: str = "") -> list[str]:
    """Names in an order that is random, but always the same for a person and a question.

    It does not depend on the order in which they are given.
    """

    def place(name: str) -> bytes:
        seed = json.dumps([person, review, question, name])
        return hashlib.sha256(seed.encode()).digest()

    return sorted(names, key=place)


def _write(run: Path, vote: Vote) -> None:
    path = run / FILE
    if path.exists() and path.stat().st_size >= FULL:
        raise VoteError(f"{FILE} of {run.name} has {FULL // 2**20} MB; no more votes fit.")
    add_line(path, vote)
