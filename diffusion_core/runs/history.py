"""`history.jsonl`: who did what to a run and when, one line of JSON a deed, the oldest first.

Whoever does it adds the line: a server, a command, the trainer that somebody starts in a terminal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import AfterValidator, Field

from diffusion_core.files import os_sentence
from diffusion_core.records import Record
from diffusion_core.runs.lines import Lines, add_line, read_lines
from diffusion_core.runs.status import Moment
from diffusion_core.text import cut, shown

_log = logging.getLogger(__name__)

FILE = "history.jsonl"
LONGEST_NAME = 320  # characters of a person's name: an e-mail address has at most as many
MOST_BYTES = 256 * 1024  # of the end of the file that a reader takes

LONGEST_REASON = 400
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
    SET_ASIDE = "set aside"  # left paused by its sweep
    IMPORTED = "imported"


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
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""  # of being set aside


def record(
    run: Path,
    event: Event,
    by: str | None,
    *,
    settings: Mapping[str, tuple[object, object]] | None = None,
    format: str = "",
    reason: str = "",
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
                "reason": reason[:LONGEST_REASON],
            }
        )
        add_line(run / FILE, entry)
    except (OSError, ValueError) as error:
        why = os_sentence(error) if isinstance(error, OSError) else str(error)
        _log.warning("The history of %s cannot be written: %s", run.name, why)


def read_history(run: Path) -> Lines[Entry]:
    """What was done to the run in a folder. Never raises."""
    return read_lines(run / FILE, Entry, MOST_BYTES)


def system_user() -> str:
    """The user of the operating system whose process this is."""
    try:
        return psutil.Process().username()
    except psutil.Error:
        return ""
