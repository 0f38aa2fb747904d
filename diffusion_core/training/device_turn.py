"""Waiting for the device: the runs of a folder take it one after the other."""

from __future__ import annotations

import gc
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock
import torch

from diffusion_core.runs.queue import at_work, queued_before
from diffusion_core.runs.run import Run, RunSnapshot, snapshots
from diffusion_core.runs.status import RunState, places_of
from diffusion_core.runs.status_writer import StatusWriter


@contextmanager
def device_turn(status: StatusWriter, runs_dir: Path) -> Iterator[None]:
    """Wait until no other run of this folder uses the device on this host, in the queue's order.

    A run of several processes on CUDA waits for all of their cards. The lock is the operating
    system's: it is free again when its process is gone. Raises StopRequested where the run is
    stopped or paused while it waits.
    """
    if not status.lead:
        yield
        return
    host = socket.gethostname()
    locks = [
        filelock.FileLock(runs_dir / f".{host}-{place.replace(':', '-')}.lock")
        for place in sorted(places_of(status.status))
    ]
    status.update(state=RunState.QUEUED, queued_at=status.status.queued_at or time.time())
    while True:
        # Another that is starting from the queue has its turn, though not the lock yet.
        runs, now = snapshots(runs_dir), status.status
        mine = RunSnapshot(Run(status.path), RunState.QUEUED, now)
        if not (queued_before(mine, runs) or at_work(mine, runs)) and _acquire(locks):
            break
        status.update(message="Waiting for the device: another run is on it.", quick=True)
        status.raise_if_requested()
        status.over.wait(0.5)
    try:
        yield
    finally:
        for lock in locks:
            lock.release()


@contextmanager
def memory_returned(device: torch.device) -> Iterator[None]:
    """Give a GPU's memory back at the end of the block: the next run plans with what is free then,
    while this process may still be at its end."""
    try:
        yield
    except BaseException as error:
        if device.type == "cuda":
            _forget_values(error)
        raise
    finally:
        if device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def _forget_values(error: BaseException | None) -> None:
    """Of the functions that an error and its causes came through; their lines stay known."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _acquire(locks: Sequence[filelock.BaseFileLock]) -> bool:
    """All of them at once, or none: where a run is on one whose status was not there to read."""
    for number, lock in enumerate(locks):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            for held in locks[:number]:
                held.release()
            return False
    return True
