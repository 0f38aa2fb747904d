"""Deleted runs: kept for a week in `.trash` beside the others, so that deleting can be undone."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from diffusion_core.files import listing, make_folder, os_sentence
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.jobs import JobError, free_name
from diffusion_core.runs.run import Run, is_run, list_runs
from diffusion_core.runs.status import ACTIVE
from diffusion_core.runs.status_writer import Busy, only_trainer

_log = logging.getLogger(__name__)

KEEP_DAYS = 7
MOST_DIGITS = 14  # of a time in milliseconds


@dataclass(frozen=True)
class Deleted:
    """A run in the trash."""

    path: Path
    name: str
    time: float  # seconds since 1970, when it was deleted


def delete(run: Run, by: str | None = None) -> Deleted:
    """Move a run to the trash, and remove runs from it that are older than `KEEP_DAYS`.

    `by`: who does it, for `history.py`. Raises JobError for a run that is at work or queued, for a
    folder that is no run or holds others, or where the folder cannot be moved.
    """
    if not is_run(run.path):
        raise JobError(f"{run.path} is not a run folder; only runs can be deleted.")
    if inside := list_runs(run.path):
        raise JobError(
            f"{run.path} holds other runs, for example {inside[0].name}; deleting it would delete "
            "them too."
        )
    if (state := run.state) in ACTIVE:
        raise JobError(f"{run.name} {state.predicate}; stop it before you delete it.")
    trash = run.path.parent / ".trash"
    stamp = round(time.time() * 1000)
    while (place := trash / f"{stamp}-{run.name}").exists():  # deleted in the same millisecond
        stamp += 1
    gone = Deleted(place, run.name, stamp / 1000)
    try:
        with only_trainer(run.path):  # a run that is just starting has no status yet
            make_folder(trash)
            os.rename(run.path, gone.path)
    except Busy as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"{run.name} cannot be deleted: {os_sentence(error)}") from error
    record(gone.path, Event.DELETED, by)
    _log.info("run deleted", extra={"run": run.name})
    empty(run.path.parent)
    return gone


def deleted(runs_dir: Path) -> list[Deleted]:
    """The runs in the trash, the last deleted first."""
    found = []
    for path in listing(runs_dir / ".trash", "*-*"):
        stamp, _, name = path.name.partition("-")
        if stamp.isascii() and stamp.isdecimal() and len(stamp) <= MOST_DIGITS:
            found.append(Deleted(path, name, int(stamp) / 1000))
    return sorted(found, key=lambda gone: gone.time, reverse=True)


def restore(gone: Deleted, by: str | None = None) -> Run:
    """Put a run back, under its name or the next free one. `by`: see `delete`. Raises JobError."""
    runs_dir = gone.path.parent.parent
    path = runs_dir / free_name(runs_dir, gone.name)
    try:
        os.rename(gone.path, path)
    except OSError as error:
        raise JobError(f"{gone.name} cannot be put back: {error.strerror}.") from error
    record(path, Event.RESTORED, by)
    _log.info("run restored", extra={"run": path.name})
    return Run(path)


def empty(runs_dir: Path, days: float = KEEP_DAYS) -> None:
    """Remove the runs deleted longer ago; one that cannot be removed stays for the next time."""
    for gone in deleted(runs_dir):
        if time.time() - gone.time > days * 86_400:
            shutil.rmtree(gone.path, ignore_errors=True)
