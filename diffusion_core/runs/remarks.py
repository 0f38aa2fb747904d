"""`remarks.jsonl`: what people say of a run: notes, tags, stars and decisions.

A remark is about the run, a step of it, or one image that was generated at a step. Editing and
deleting add lines too (see `lines.py`), so nothing that was said is lost. A name stands for one
person: whoever lets people write sees to that.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from diffusion_core.process.noise import MAX_SEED
from diffusion_core.records import Count, Record, sentences
from diffusion_core.runs.history import LONGEST_NAME, system_user
from diffusion_core.runs.lines import add_line, read_lines
from diffusion_core.runs.status import Moment
from diffusion_core.text import harmless_markdown, shown, visible

FILE = "remarks.jsonl"
LONGEST_NOTE = 4000  # characters
LONGEST_TAG = 40
MOST_REMARKS = 1000  # of a run, without the deleted ones
FULL = 4 * 2**20  # bytes of the file from which on nothing is added
MOST_BYTES = 2 * FULL  # that a reader takes: several may add a last line at once
DECISIONS = ("keep", "drop", "promote")
MARK = re.compile(" #([0-9a-f]{8})[0-9a-f]{8}$")  # of the name of somebody who is not signed in

Id = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]


class RemarkError(ValueError):
    """A remark that cannot be made, changed or deleted; the message says why."""


class Kind(StrEnum):
    """What a remark is."""

    NOTE = "note"
    TAG = "tag"
    STAR = "star"
    DECISION = "decision"


class Subject(Record):
    """What a remark is about: the run, a step of it, or one image generated at a step."""

    step: Count | None = None
    image: Annotated[int, Field(ge=0, le=10**6)] | None = None  # its number, which with the seed
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None  # gives its noise
    settings: Digest | None = None  # of how it was sampled, see `sampling.metadata.subject_of`

    @model_validator(mode="after")
    def _is_whole(self) -> Subject:
        parts = (self.image, self.seed, self.settings)
        if parts != (None, None, None) and None in (self.step, *parts):
            raise ValueError("an image needs step, image, seed and settings.")
        return self

    def __str__(self) -> str:
        if self.step is None:
            return "run"
        if self.image is None:
            return f"step {self.step:,}"
        how = f"seed {self.seed}, settings {self.settings}"
        return f"step {self.step:,}, image {self.image + 1:,}, {how}"


RUN = Subject()


def _tag(text: str) -> str:
    text = visible(" ".join(text.split()))
    if not text or "," in text or len(text) > LONGEST_TAG:
        raise ValueError(
            f"the tag is {shown(text)}; it must be 1 to {LONGEST_TAG} characters without commas."
        )
    return text


def _note(text: str) -> str:
    text = harmless_markdown(text)
    if not text:
        raise ValueError("the note is empty; it needs a text.")
    if len(text) > LONGEST_NOTE:
        raise ValueError(
            f"the note has {len(text):,} characters; it must have at most {LONGEST_NOTE:,}."
        )
    return text


def _star(text: str) -> str:
    if text:
        raise ValueError("a star has no text.")
    return text


def _decision(text: str) -> str:
    if text not in DECISIONS:
        raise ValueError(
            f"the decision is {shown(text)}; it must be one of {', '.join(DECISIONS)}."
        )
    return text


# What the text of each kind must be, and becomes.
TEXTS: dict[Kind, Callable[[str], str]] = {
    Kind.NOTE: _note,
    Kind.TAG: _tag,
    Kind.STAR: _star,
    Kind.DECISION: _decision,
}


class Deed(StrEnum):
    """What a line of the file does."""

    ADDED = "added"
    EDITED = "edited"
    DELETED = "deleted"


class Line(Record):
    """A line of the file. `kind` and `subject` are those of the remark in each line about it."""

    id: Id  # of the remark
    deed: Annotated[Deed, Field(strict=False)]
    kind: Annotated[Kind, Field(strict=False)]
    subject: Subject = RUN
    text: Annotated[str, Field(validate_default=True)] = ""  # Markdown in a note
    by: Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(visible)] = ""
    time: Moment

    @field_validator("text")
    @classmethod
    def _text_of_its_kind(cls, text: str, info: ValidationInfo) -> str:
        if info.data.get("deed") == Deed.DELETED or "kind" not in info.data:
            return ""
        return TEXTS[info.data["kind"]](text)


@dataclass(frozen=True)
class Remark:
    """A remark with its history."""

    lines: tuple[Line, ...]  # that are about it, the oldest first; the first has added it

    @property
    def id(self) -> str:
        return self.lines[0].id

    @property
    def kind(self) -> Kind:
        return self.lines[0].kind

    @property
    def subject(self) -> Subject:
        return self.lines[0].subject

    @property
    def by(self) -> str:
        """Its author; empty where that is not known."""
        return self.lines[0].by

    @property
    def time(self) -> float:
        return self.lines[0].time

    @property
    def text(self) -> str:
        """Markdown without images and HTML in a note; of a deleted remark, what it was."""
        return next(line.text for line in reversed(self.lines) if line.deed != Deed.DELETED)

    @property
    def edited(self) -> bool:
        return any(line.deed == Deed.EDITED for line in self.lines)

    @property
    def deleted(self) -> bool:
        return self.lines[-1].deed == Deed.DELETED


class Remarks(NamedTuple):
    """The remarks of a run, the oldest first."""

    every: tuple[Remark, ...] = ()  # also the deleted ones
    problem: str = ""  # why the file cannot be read in full, as a sentence

    @property
    def current(self) -> list[Remark]:
        return [remark for remark in self.every if not remark.deleted]

    def about(self, subject: Subject, kind: Kind | None = None) -> list[Remark]:
        """The current ones about a subject itself, of one kind or of all."""
        return [
            each for each in self.current if each.subject == subject and kind in (None, each.kind)
        ]

    def tags(self, subject: Subject = RUN) -> list[str]:
        return sorted({each.text for each in self.about(subject, Kind.TAG)})

    def stars(self, subject: Subject = RUN) -> int:
        """By how many people it has a star."""
        return len({each.by for each in self.about(subject, Kind.STAR)})

    def decision(self, subject: Subject = RUN) -> str:
        """The last one; empty where there is none."""
        found = self.about(subject, Kind.DECISION)
        return max(found, key=lambda each: each.lines[-1].time).text if found else ""


def read_remarks(run: Path) -> Remarks:
    """What has been said of the run in a folder. Never raises."""
    found = read_lines(run / FILE, Line, MOST_BYTES)
    about: dict[str, tuple[Line, ...]] = {}
    problem = found.problem
    for line in found.entries:
        before = about.get(line.id, ())
        if bool(before) == (line.deed == Deed.ADDED) or (before and before[-1].kind != line.kind):
            if not found.shortened:
                problem = problem or f"{FILE}: a line of remark {line.id} does not go with others."
        elif not before or before[-1].deed != Deed.DELETED:  # else two have ended it at once
            about[line.id] = (*before, line)
    return Remarks(tuple(map(Remark, about.values())), problem)


def may_change(remark: Remark, by: str, operates: bool) -> bool:
    """Whether a person may edit and delete a remark: its author or an operator, by no other rule.

    A remark whose author is not known is nobody's own.
    """
    return operates or (bool(by) and by == remark.by)


def add(
    run: Path, kind: Kind, text: str = "", subject: Subject = RUN, by: str | None = None
) -> Remark:
    """Say something of the run in a folder. `by`: None is the user of the operating system.

    A tag that the subject has already, or a star of the same person, is not added again. Raises
    RemarkError, OSError.
    """
    by = _name(by)
    line = _line(secrets.token_hex(8), Deed.ADDED, kind, subject, text, by)
    remarks = read_remarks(run)
    for each in remarks.about(subject, kind):
        if each.text == line.text and (kind == Kind.TAG or (kind == Kind.STAR and each.by == by)):
            return each
    if len(remarks.current) >= MOST_REMARKS:
        raise RemarkError(
            f"{run.name} has {MOST_REMARKS:,} remarks, as many as it can have; delete some first."
        )
    _write(run, line)
    return Remark((line,))


def edit(run: Path, id: str, text: str, by: str | None = None, operates: bool = False) -> Remark:
    """Give a note, tag or decision another text. Raises RemarkError, OSError."""
    return _change(run, id, Deed.EDITED, text, by, operates)


def delete(run: Path, id: str, by: str | None = None, operates: bool = False) -> Remark:
    """Take a remark back; what it was stays in the file. Raises RemarkError, OSError."""
    return _change(run, id, Deed.DELETED, "", by, operates)


def find(remarks: Iterable[Remark], start: str) -> Remark:
    """The remark whose id begins so. Raises RemarkError unless there is exactly one."""
    found = [each for each in remarks if each.id.startswith(start)]
    if not found:
        raise RemarkError(f"There is no remark {shown(start)}.")
    if len(found) > 1:
        raise RemarkError(f"Several remarks begin with {shown(start)}; give more of the id.")
    return found[0]


def _change(run: Path, id: str, deed: Deed, text: str, by: str | None, operates: bool) -> Remark:
    by = _name(by)
    remark = find(read_remarks(run).current, id)
    if not may_change(remark, by, operates):
        whose = shown(remark.by) if remark.by else "somebody who is not known"
        raise RemarkError(
            f"This {remark.kind} is by {whose}; only they or an operator can do that."
        )
    line = _line(remark.id, deed, remark.kind, remark.subject, text, by)
    _write(run, line)
    return Remark((*remark.lines, line))


def shown_name(name: str) -> str:
    """A name as others see it, with half of its mark: `Ann #8c1f0a2b`."""
    return MARK.sub(r" #\1", name)


def _name(by: str | None) -> str:
    """A person's name as the file has it."""
    return visible(system_user() if by is None else by)[:LONGEST_NAME]


def _line(id: str, deed: Deed, kind: Kind, subject: Subject, text: str, by: str) -> Line:
    """Raises RemarkError."""
    try:
        return Line(
            id=id, deed=deed, kind=kind, subject=subject, text=text, by=by, time=time.time()
        )
    except ValidationError as error:
        sentence = sentences(error, Line)[0]
        raise RemarkError(f"{sentence[0].upper()}{sentence[1:]}") from error


def _write(run: Path, line: Line) -> None:
    path = run / FILE
    if path.exists() and path.stat().st_size >= FULL:
        raise RemarkError(
            f"{FILE} of {run.name} has {FULL // 2**20} MB, with all that was edited and deleted; "
            "nothing can be added."
        )
    add_line(path, line)
