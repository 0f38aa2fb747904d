"""The CPU cores of this machine, shared by all that computes for one folder of runs.

Two processes with as many threads as there are cores wait for each other at the end of every
parallel loop, and are many times slower than with a part of the cores each. So whatever computes
for long does it in `computing` and calls `take_share` between two steps: alone it has all cores,
with others an equal part.

A share is a lock file beside the runs, numbered from 0. The locks are the operating system's, so a
process that is killed holds nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import torch

LOOK_EVERY = 0.25  # seconds between two looks at what others do
MOST = 256  # shares that can be told apart
BEHIND = 5  # the priority ("nice") of what computes for long; pages and terminals have 0
LAST = 19  # that of what takes only the time that nothing else wants


class _Thread(threading.local):
    """PyTorch's number of threads is one of each thread, so a share is too."""

    share: Share | None = None


_this = _Thread()


class Share:
    """A thread's part of the cores."""

    def __init__(self, runs_dir: Path, cores: int) -> None:
        self.cores = cores
        self.place = f"{runs_dir}/.{socket.gethostname()}-cores-"
        self.most = torch.get_num_threads()  # no more than OMP_NUM_THREADS
        self.looked: float | None = None
        self.number, self.lock = 0, self._lock(0)
        while not _acquire(self.lock) and self.number < MOST:
            self.number += 1
            self.lock = self._lock(self.number)

    def part(self) -> int:
        """Its cores now: an equal part, at least one; what is over goes to the lowest numbers."""
        before, others = 0, 0
        for number in range(MOST):
            lock = self._lock(number)
            if not Path(lock.lock_file).exists():
                break
            if number == self.number:
                continue
            if _acquire(lock):
                lock.release()
            else:
                others += 1
                before += number < self.number
        part, over = divmod(self.cores, others + 1)
        return max(1, part + (before < over))

    def take(self, fixed: int) -> None:
        now = time.monotonic()
        if fixed:
            wanted = fixed
        elif self.looked is None or now - self.looked >= LOOK_EVERY:
            self.looked = now
            wanted = min(self.most, self.part())
        else:
            return
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)

    def release(self) -> None:
        self.lock.release()
        torch.set_num_threads(self.most)

    def _lock(self, number: int) -> filelock.BaseFileLock:
        return filelock.FileLock(f"{self.place}{number}.lock")


def _acquire(lock: filelock.BaseFileLock) -> bool:
    """True also where the folder cannot be written to: nobody else computes for it then."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    except OSError:
        return True
    return True


@contextmanager
def computing(
    runs_dir: Path, device: torch.device | str = "cpu", cores: int | None = None
) -> Iterator[None]:
    """This thread computes in the block, and shares the cores with all others that do.

    `runs_dir`: the folder whose users share. Nothing happens on another device than the CPU, and in
    a block within a block. `cores`: those of the machine, else what this process may use.
    """
    if torch.device(device).type != "cpu" or _this.share is not None:
        yield
        return
    _this.share = Share(runs_dir, cores or usable_cores())
    try:
        yield
    finally:
        share, _this.share = _this.share, None
        share.release()


def take_share(fixed: int = 0) -> int:
    """Compute with this thread's part of the cores from here on; returns how many threads it has.

    For the place between two steps: it looks at the others a few times a second at most. `fixed`:
    this many threads whatever others do; 0 for a share. Outside `computing` nothing changes.
    """
    if _this.share is not None:
        _this.share.take(fixed)
    return torch.get_num_threads()


def part_of_cores() -> int:
    """How many processes may work for this thread now: its part of the cores, else all."""
    return usable_cores() if _this.share is None else _this.share.part()


def go_behind(pid: int, priority: int = BEHIND) -> None:
    """Let a process, on Linux also a thread by its number, go behind those that answer people.

    Does nothing where the system has no such priorities. Raises OSError.
    """
    if hasattr(os, "setpriority"):
        now = os.getpriority(os.PRIO_PROCESS, pid)
        os.setpriority(os.PRIO_PROCESS, pid, max(now, priority))


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity and, in a container, its quota."""
    import joblib  # here, since its import takes a while

    return joblib.cpu_count()
