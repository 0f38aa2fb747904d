"""Blind votes that people are asked for: which images, of what, in which questions.

A poll is a folder `.polls/NAME` beside the runs: `poll.json`, the images under random names, and
`ended.jsonl` with those who have seen the results and cannot vote any more. The votes themselves
are in the runs, see `runs.votes`. The images of a poll are copies: they stay the same for everybody
and after their runs are deleted.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field, ValidationError, model_validator

from diffusion_core.files import building_folder, make_folder, write_json
from diffusion_core.media.images import png
from diffusion_core.records import Count, Record, RecordError, read_record_file, sentences
from diffusion_core.runs.history import LONGEST_NAME
from diffusion_core.runs.jobs import JobError, check_name
from diffusion_core.runs.lines import add_line, read_lines
from diffusion_core.runs.status import Moment
from diffusion_core.runs.votes import (
    MOST_SHOWN,
    Name,
    Vote,
    Votes,
    cast,
    order_for,
    read_votes,
    seen_by,
)
from diffusion_core.text import visible

FOLDER = ".polls"
FILE, IMAGES, ENDED = "poll.json", "images", "ended.jsonl"
MOST_POLLS = 100  # in a folder of runs
MOST_QUESTIONS = 200
MOST_SIDE = 1024  # pixels of an image
MOST_BYTES = 2**20  # of ENDED


class PollError(ValueError):
    """A poll that cannot be made or voted in; the message says why."""


class Kind(StrEnum):
    """What a question shows."""

    PAIRS = "pairs"
    ALL = "all"


def _folder_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError("a run is the name of a folder.")
    return name


class Entry(Record):
    """What is compared."""

    name: Name
    run: Annotated[str, Field(max_length=255), AfterValidator(_folder_name)]
    step: Count


File = Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.png$")]


class Question(Record):
    """Images of which one is chosen, by the names of their entries."""

    text: Name  # what is the same for all of them
    files: Annotated[dict[Name, File], Field(min_length=2, max_length=MOST_SHOWN)]


class PollRecord(Record):
    """The file."""

    kind: Annotated[Kind, Field(strict=False)]
    entries: Annotated[tuple[Entry, ...], Field(strict=False, min_length=2, max_length=MOST_SHOWN)]
    questions: Annotated[
        tuple[Question, ...], Field(strict=False, min_length=1, max_length=MOST_QUESTIONS)
    ]
    side: Annotated[int, Field(ge=1, le=MOST_SIDE)]  # pixels of each image
    by: Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(visible)] = ""
    created: Moment

    @model_validator(mode="after")
    def _fits_together(self) -> PollRecord:
        names = {entry.name for entry in self.entries}
        if len(names) < len(self.entries):
            raise ValueError("two entries have the same name.")
        if any(not names.issuperset(question.files) for question in self.questions):
            raise ValueError("a question shows what is no entry.")
        if len({question_id(question) for question in self.questions}) < len(self.questions):
            raise ValueError("a question is there twice.")
        return self


class Poll(NamedTuple):
    path: Path
    record: PollRecord

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def runs(self) -> list[Path]:
        """The folders of the runs that are still there."""
        names = dict.fromkeys(entry.run for entry in self.record.entries)
        folders = [self.path.parent.parent / name for name in names]
        return [folder for folder in folders if folder.is_dir()]


class Ended(Record):
    """A line of `ended.jsonl`."""

    by: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    time: Moment


def question_id(question: Question) -> tuple[str, frozenset[str]]:
    """What tells a question from the others of its poll, also in the votes."""
    return question.text, frozenset(question.files)


def names(runs_dir: Path) -> list[str]:
    """Of the polls, the newest first. Never raises."""
    try:
        found = [(path.stat().st_mtime, path.parent.name) for path in _files(runs_dir)]
    except OSError:
        return []
    return [name for _, name in sorted(found, reverse=True)]


def _files(runs_dir: Path) -> list[Path]:
    folder = runs_dir / FOLDER
    return [path for path in folder.glob(f"*/{FILE}") if not path.parent.name.startswith(".")]


def read(runs_dir: Path, name: str) -> Poll:
    """Raises PollError, RecordError."""
    try:
        path = runs_dir / FOLDER / check_name(name)
    except JobError as error:
        raise PollError("There is no such vote.") from error
    record = read_record_file(PollRecord, path / FILE)
    if record is None:
        raise PollError(f"There is no vote {name}.")
    return Poll(path, record)


def make(
    runs_dir: Path,
    name: str,
    kind: Kind,
    entries: Sequence[Entry],
    images: Mapping[str, Sequence[np.ndarray]],
    texts: Sequence[str],
    by: str,
) -> Poll:
    """Make a poll of images uint8 (H, W, 1 or 3): of each entry one for each of `texts`, which say
    what is the same for all entries. With PAIRS every two entries are compared under each text.

    All images get the size of the largest. Raises PollError, OSError.
    """
    try:
        path = runs_dir / FOLDER / check_name(name)
    except JobError as error:
        raise PollError(str(error).replace("a run's name", "the name of a vote")) from error
    if len(_files(runs_dir)) >= MOST_POLLS:
        raise PollError(
            f"There are {MOST_POLLS} votes, as many as there can be; delete folders of {FOLDER}."
        )
    if path.exists():
        raise PollError(f"There is a vote {name} already; choose another name.")
    groups = _groups(kind, [entry.name for entry in entries])
    if not 0 < len(groups) * len(texts) <= MOST_QUESTIONS:
        raise PollError(
            f"The vote has {len(groups) * len(texts):,} questions; it must have from 1 to "
            f"{MOST_QUESTIONS}."
        )
    side = max(image.shape[0] for found in images.values() for image in found)
    files = {name: [f"{secrets.token_hex(16)}.png" for _ in texts] for name in images}
    try:
        record = PollRecord(
            kind=kind,
            entries=tuple(entries),
            questions=tuple(
                Question(text=text, files={name: files[name][k] for name in group})
                for k, text in enumerate(texts)
                for group in groups
            ),
            side=side,
            by=by,
            created=time.time(),
        )
    except ValidationError as error:
        raise PollError(sentences(error, PollRecord, "The vote")[0]) from error
    make_folder(path.parent)
    with building_folder(path) as folder:
        (folder / IMAGES).mkdir()
        for name, of_entry in images.items():
            for file, image in zip(files[name], of_entry, strict=True):
                (folder / IMAGES / file).write_bytes(png(_of_size(image, side)))
        write_json(folder / FILE, record.model_dump(mode="json"))
    return Poll(path, record)


def _groups(kind: Kind, names: Sequence[str]) -> list[tuple[str, ...]]:
    return list(itertools.combinations(names, 2)) if kind == Kind.PAIRS else [tuple(names)]


def _of_size(image: np.ndarray, side: int) -> np.ndarray:
    """In colour and so many pixels wide and high: neither tells the runs apart."""
    found = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
    whole = side % found.width == 0
    way = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
    return np.asarray(found.resize((side, side), way))


def image(poll: Poll, question: Question, entry: str) -> bytes:
    """The PNG of an entry in a question. Raises OSError."""
    return (poll.path / IMAGES / question.files[entry]).read_bytes()


# ---------------------------------------------------------------- voting


class Turn(NamedTuple):
    """A question as one person sees it."""

    question: Question
    shown: tuple[str, ...]  # entries from left to right
    chosen: str  # empty: not yet


def turns(poll: Poll, by: str, cast_votes: Iterable[Vote]) -> list[Turn]:
    """All questions as a person sees them, in this person's own order."""
    own = {
        (each.question, frozenset(each.shown)): each.chosen for each in cast_votes if each.by == by
    }
    found = {str(k): question for k, question in enumerate(poll.record.questions)}
    return [
        Turn(
            found[k],
            tuple(order_for(by, poll.name, found[k].files, found[k].text)),
            own.get(question_id(found[k]), ""),
        )
        for k in order_for(by, poll.name, found)
    ]


def votes(poll: Poll) -> Votes:
    """All that were cast on its questions. Never raises."""
    asked = {question_id(question) for question in poll.record.questions}
    found = read_votes(poll.runs)
    entries = [
        vote
        for vote in found.entries
        if vote.review == poll.name
        and vote.time >= poll.record.created
        and (vote.question, frozenset(vote.shown)) in asked
    ]
    return Votes(tuple(entries), found.problem)


def vote(poll: Poll, turn: Turn, place: int, by: str) -> Vote:
    """Choose the image at a place of a turn, from 0. Raises PollError, VoteError, OSError."""
    if has_ended(poll, by):
        raise PollError("You have seen the results of this vote, so you cannot vote in it now.")
    if not 0 <= place < len(turn.shown):
        raise PollError("There is no such image.")
    chosen = turn.shown[place]
    shown = {entry.run for entry in poll.record.entries if entry.name in turn.shown}
    runs = [run for run in poll.runs if run.name in shown]
    return cast(runs, poll.name, turn.question.text, turn.shown, chosen, by)


def end(poll: Poll, by: str) -> None:
    """Let a person see the results, which ends the person's voting. Raises OSError."""
    if not has_ended(poll, by):
        add_line(poll.path / ENDED, Ended(by=by, time=time.time()))


def has_ended(poll: Poll, by: str) -> bool:
    found = read_lines(poll.path / ENDED, Ended, MOST_BYTES)
    return any(line.by == by for line in found.entries)


def results_for(by: str, votes: Iterable[Vote], runs_dir: Path) -> list[Vote]:
    """Those of some votes that a person may see: see `seen_by`, and none of a poll in which the
    person can still vote."""
    found = seen_by(by, votes)
    still_open = {name for name in {vote.review for vote in found} if _is_open(runs_dir, name, by)}
    return [vote for vote in found if vote.review not in still_open]


def _is_open(runs_dir: Path, name: str, by: str) -> bool:
    try:
        return not has_ended(read(runs_dir, name), by)
    except (PollError, RecordError):  # asked for elsewhere, or its folder has been removed
        return False
