"""`history.jsonl`: who did what to a run and when, one line of JSON a deed, the oldest first.

Whoever does it adds the line: a server, a command, the trainer that somebody starts in a terminal.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
from pydantic import AfterValidator, Field

from diffusion_core.files import check_regular, open_log, os_sentence
from diffusion_core.records import Record, RecordError, read_record
from diffusion_core.runs.status import Moment
from diffusion_core.text import cut, shown

_log = logging.getLogger(__name__)

FILE = "history.jsonl"
LONGEST_NAME = 320  # characters of a person's name: an e-mail address has at most as many
MOST_BYTES = 256 * 1024  # of the end of the file that a reader takes

LARGEST = 10**15  # of a setting's value


class Event(StrEnum):
    """What was done."""

    CREATED = "created"
    STARTED = "started"
    RESUMED = "resumed"
    PAUSE = "pause"
    STOP = "stop"
    SAMPLE = "sample"
    CHECKPOINT = "checkpoint"
    CHANGED = "changed"
    MOVED = "moved"
    UNQUEUED = "unqueued"
    DELETED = "deleted"
    RESTORED = "restored"
    EXPORTED = "exported"


def _are_plain(settings: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    for name, value in ((name, value) for name, pair in settings.items() for value in pair):
        number = isinstance(value, (bool, int, float)) and abs(value) <= LARGEST
        if not (number or value is None or isinstance(value, str)):
            raise ValueError(f"{cut(name)} is {shown(value)}; it must be text or a number.")
    return settings


Name = Annotated[str, Field(max_length=40)]


class Entry(Record):
    """A line of the file."""

    time: Moment
    event: Annotated[Event, Field(strict=False)]
    by: Annotated[str, Field(max_length=LONGEST_NAME)] = ""  # empty: not known
    # Of a change, each setting before and after it.
    settings: Annotated[
        dict[Name, tuple[Any, Any]], Field(max_length=40), AfterValidator(_are_plain)
    ] = Field(default_factory=dict)
    format: Name = ""  # of an export


class History(NamedTuple):
    """What is in the file, the oldest first."""

    entries: tuple[Entry, ...] = ()
    problem: str = ""  # why it cannot be read in full, as a sentence
    shortened: bool = False  # older entries were not read


def record(
    run: Path,
    event: Event,
    by: str | None,
    *,
    settings: Mapping[str, tuple[object, object]] | None = None,
    format: str = "",
) -> None:
    """Add what was just done to the history of the run in a folder.

    `by`: a person's name; None: the user of the operating system. What was done stays done where
    the file cannot be written; that is logged.
    """
    try:
        entry = Entry.model_validate(
            {
                "time": time.time(),
                "event": event,
                "by": (system_user() if by is None else by)[:LONGEST_NAME],
                "settings": settings or {},
                "format": format,
            }
        )
        with open_log(run / FILE) as file:
            # A line of its own also after one of which a full disk took only a part.
            file.write(f"\n{entry.model_dump_json(exclude_defaults=True)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        why = os_sentence(error) if isinstance(error, OSError) else str(error)
        _log.warning("The history of %s cannot be written: %s", run.name, why)


def read_history(run: Path) -> History:
    """What was done to the run in a folder. Never raises."""
    path = run / FILE
    try:
        check_regular(path)
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_BYTES))
            lines = file.read(MOST_BYTES).split(b"\n")
    except FileNotFoundError:
        return History()
    except OSError as error:
        return History(problem=f"{FILE} cannot be read: {error.strerror}.")
    shortened = size > MOST_BYTES
    entries, problem = [], ""
    for line in filter(None, lines[1:] if shortened else lines):
        try:
            entries.append(read_record(Entry, line, FILE))
        except RecordError as error:
            problem = problem or str(error)
    return History(tuple(entries), problem, shortened)


def system_user() -> str:
    """The user of the operating system whose process this is."""
    try:
        return psutil.Process().username()
    except psutil.Error:
        return ""
