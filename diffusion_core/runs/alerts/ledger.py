"""`alerts.jsonl` in a run folder, `.alerts.jsonl` beside the runs: which messages were sent.

Whoever is about to send a message first adds a line that it tries to, under a lock. So of several
processes one sends it, and one that is killed meanwhile has sent it once or not at all: nobody
repeats what may have arrived. Only where the service refused it for now, or did not answer, is it
tried again, by whichever process looks next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import filelock
from pydantic import Field

from diffusion_core.records import Count, Record
from diffusion_core.runs.alerts.message import Event
from diffusion_core.runs.alerts.send import Outcome
from diffusion_core.runs.lines import add_line, read_lines
from diffusion_core.runs.status import Moment

RUN_FILE, QUEUE_FILE = "alerts.jsonl", ".alerts.jsonl"
MOST_BYTES = 256 * 1024  # of the end of a file that is read
PATIENCE_SECONDS = 2.0  # the lock is held for milliseconds
# Seconds before the second, third, ... attempt.
WAITS = (2.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)


class Deed(StrEnum):
    """What a line says."""

    WATCHED = "watched"  # the run, or the queue, was seen at work: what becomes of it is news
    TRIED = "tried"
    SENT = "sent"
    LATER = "later"  # not sent, to be tried again at `again`
    NOT_SENT = "not_sent"
    NOTHING = "nothing"  # of a queue: nothing to say


class Subject(NamedTuple):
    """What a message is about: no two states have the same."""

    event: Event
    since: float  # of a run: `since_of`; of the queue: when it was seen at work first
    step: int = 0  # at which a run is stalled


class Entry(Record):
    """A line of the file."""

    time: Moment
    deed: Annotated[Deed, Field(strict=False)]
    event: Annotated[Event | None, Field(strict=False)] = None
    since: Moment = 0.0
    step: Count = 0
    target: Annotated[str, Field(max_length=80)] = ""
    again: Moment = 0.0
    why: Annotated[str, Field(max_length=400)] = ""

    @property
    def subject(self) -> tuple[Event | None, float, int]:
        return self.event, self.since, self.step


def read(file: Path) -> tuple[Entry, ...]:
    """Never raises."""
    return read_lines(file, Entry, MOST_BYTES).entries


def write(file: Path, deed: Deed, subject: Subject | None = None, **fields: object) -> None:
    """Raises OSError."""
    about = {} if subject is None else subject._asdict()
    add_line(file, Entry.model_validate({"time": time.time(), "deed": deed, **about, **fields}))


@contextmanager
def holding(file: Path) -> Iterator[None]:
    """Nobody else adds to a file meanwhile. Raises OSError, TimeoutError where another holds it."""
    runs_dir = file.parent if file.name == QUEUE_FILE else file.parent.parent
    with filelock.FileLock(runs_dir / ".alerts.lock", timeout=PATIENCE_SECONDS):
        yield


class Due(NamedTuple):
    """The attempts that a process has taken on, and when the next ones are due (seconds)."""

    targets: list[str]
    next: float | None


def take(file: Path, subject: Subject, targets: Sequence[str]) -> Due:
    """Take on the attempts that are due now, for this process alone. Raises OSError.

    Who was no target at the first attempt gets nothing later: it would be of what is long past.
    """
    with holding(file):
        entries, now = read(file), time.time()
        is_new = not any(entry.subject == subject for entry in entries)
        due: list[str] = []
        waiting: list[float] = []
        for target in targets:
            mine = [e for e in entries if e.target == target and e.subject == subject]
            again = mine[-1].again if mine and mine[-1].deed == Deed.LATER else None
            if is_new or (again is not None and again <= now):
                write(file, Deed.TRIED, subject, target=target)
                due.append(target)
            elif again is not None:
                waiting.append(again - now)
        return Due(due, min(waiting, default=None))


def settle(file: Path, subject: Subject, outcomes: dict[str, Outcome]) -> float | None:
    """Write what became of the attempts that were taken; returns when the next is due (seconds).

    Raises OSError.
    """
    with holding(file):
        entries, waits = read(file), list[float]()
        for target, outcome in outcomes.items():
            why = {"why": outcome.why} if outcome.why else {}
            tried = sum(
                e.deed == Deed.TRIED and e.target == target and e.subject == subject
                for e in entries
            )
            if outcome.sent:
                write(file, Deed.SENT, subject, target=target, **why)
            elif outcome.again and tried <= len(WAITS):
                wait = max(WAITS[max(0, tried - 1)], outcome.after)
                write(file, Deed.LATER, subject, target=target, again=time.time() + wait, **why)
                waits.append(wait)
            else:
                write(file, Deed.NOT_SENT, subject, target=target, **why)
    return min(waits, default=None)
