"""The sampling queue of a device: its jobs take turns, in slices of about a second.

So nobody waits long for a few images, whatever others have asked for. Who is next: fair between
visitors, not between jobs; a visitor's second job comes after all first ones; the shorter before
the longer; jobs in the background after all others (see `_place`).

Everything that samples with a shared model goes through here.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from queue import Empty, SimpleQueue

import numpy as np
import torch

from dashboard.services import budgets
from dashboard.services.budgets import Budget
from dashboard.services.model_cache import shared_model
from dashboard.services.sampling_job import UNSEEN, SamplingJob
from dashboard.services.sampling_tasks import Load, PaceKey, Task
from dashboard.services.settings import get_settings
from dashboard.services.visitors import visitor
from diffusion_core.cores import computing

_log = logging.getLogger(__name__)

MAX_WAITING = 16
# Seconds after which a thread that rests gives the memory that a GPU keeps for it to others.
REST = 10.0
SLICE = 1.0  # seconds, after which another job may go on
# Seconds of work: jobs are taken to be no longer, so that a long one falls behind by no more.
LONG = 5.0
CLOSED = "Cancelled, because the server is shutting down."


class QueueFull(RuntimeError):
    """Too many jobs wait already."""


class SamplingQueue:
    """The jobs of one device, which go on one at a time.

    `load` gives the models, `clock` seconds; a turn is taken in `computing`. `keeps_thread`: one
    waits for the next job, since cuDNN plans its convolutions again in each thread.
    """

    def __init__(
        self,
        load: Load,
        clock: Callable[[], float] = time.monotonic,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
        keeps_thread: bool = False,
    ) -> None:
        self.load = load
        self.keeps_thread = keeps_thread
        self._resting: list[SimpleQueue[Callable[[], None]]] = []  # at most one thread's
        self.clock = clock
        self.computing = computing
        self.lock = threading.RLock()
        self.turn = threading.Condition(self.lock)  # somebody else is next, or is to stop
        self.jobs: list[SamplingJob] = []  # the active ones, as they came
        self.holder: SamplingJob | None = None  # whose turn it is
        # Seconds per evaluation of the network, by the two parts of a `pace_key`.
        self._paces: dict[str, dict[int, float]] = {}
        self.closed = False
        self._numbers = itertools.count()
        self._since = 0.0  # when this turn began
        # Seconds that visitors have had, as if all had come with the first; and those of the one
        # whose turn it is, at its begin: newcomers have had as much.
        self._had: dict[str, float] = {}
        self._now = 0.0

    @property
    def waiting(self) -> list[SamplingJob]:
        """The active jobs whose turn it is not."""
        return [job for job in self.jobs if job is not self.holder]

    def submit(self, task: Task, visitor: str = "") -> SamplingJob:
        """`visitor`: who asks, by any name. Raises QueueFull."""
        with self.lock:
            if self.closed:
                raise QueueFull(CLOSED)
            self._cancel_unseen()
            if len(self.waiting) >= MAX_WAITING:
                raise QueueFull(
                    f"{MAX_WAITING} jobs are already waiting for this device. Try again later."
                )
            active = {job.visitor for job in self.jobs}
            self._had = {
                name: had for name, had in self._had.items() if name in active or had > self._now
            }
            self._had[visitor] = max(self._now, self._had.get(visitor, 0.0))
            job = SamplingJob(task, self, visitor, next(self._numbers))
            self.jobs.append(job)
            _log.log(job.level, "sampling submitted", extra=job.fields())
            if self.holder is None:
                self._choose()
            return job

    def run(self, work: Callable[[], None]) -> None:
        """Do it in the thread that rests, else in a new one."""
        with self.lock:
            if self._resting:
                self._resting.pop().put(work)
            else:
                threading.Thread(
                    target=self._work, args=(work,), name="sampling", daemon=True
                ).start()

    def _work(self, first: Callable[[], None]) -> None:
        """The thread."""
        following: SimpleQueue[Callable[[], None]] = SimpleQueue()
        work: Callable[[], None] | None = first
        del first
        while work is not None:
            work()
            work = None  # which holds its job
            with self.lock:
                if not self.keeps_thread or self._resting:
                    return
                self._resting.append(following)
            try:
                work = following.get(timeout=REST)
            except Empty:
                torch.cuda.empty_cache()  # for training on the same GPU
                work = following.get()

    def close(self) -> None:
        """Cancel every job; no other is accepted."""
        with self.lock:
            self.closed = True
            for job in list(self.jobs):
                job.cancel(CLOSED)

    def before(self, job: SamplingJob) -> tuple[int, float]:
        """How many jobs come before it, and their seconds, about; (0, 0) where it is its turn."""
        with self.lock:
            self._cancel_unseen()
            if job is self.holder or job not in self.jobs:
                return 0, 0.0
            mine = self._place(job)
            first = [k for k in self.waiting if self._place(k) < mine]
            first += [self.holder] if self.holder else []
            return len(first), sum(other.left() for other in first)

    def shared(self, job: SamplingJob, left: float) -> float:
        """Seconds until it is done, about, if it needs the device for `left` seconds."""
        others = [k for k in self.jobs if k is not job and k.task.background <= job.task.background]
        visitors = len({k.visitor for k in others} | {job.visitor})
        return min(left * visitors, left + sum(other.left() for other in others))

    def learn(self, key: PaceKey, evaluations: int, seconds: float) -> None:
        """What a job with this `pace_key` took."""
        network, at_once = key
        self._paces.setdefault(network, {})[at_once] = seconds / evaluations

    def expected_seconds(self, key: PaceKey, evaluations: int) -> float | None:
        """Estimated from the last job with the same `pace_key`, else from those of the same network
        with more and with fewer images at once; None before the first."""
        network, at_once = key
        if not (known := self._paces.get(network)):
            return None
        # A call of the network takes a time of its own, and one for each image.
        numbers = sorted(known, reverse=True)
        shares, paces = [1 / number for number in numbers], [known[number] for number in numbers]
        return evaluations * float(np.interp(1 / at_once, shares, paces))

    def passes_on(self, job: SamplingJob, over: bool) -> bool:
        """Whether another is next now. Called by the job whose turn it is, with the lock.

        An immediate one is asked after each step, not after each slice; whether it comes first is
        decided as for all.
        """
        waiting = self.waiting
        urgent = job.task.background and not all(other.task.background for other in waiting)
        urgent = urgent or any(other.task.immediate for other in waiting)
        if not waiting or not (over or urgent or self.clock() - self._since >= SLICE):
            return False
        self._choose()
        return self.holder is not job

    def leave(self, job: SamplingJob) -> None:
        """A job has ended. Called with the lock."""
        self.jobs.remove(job)
        if job is self.holder:
            self._choose()

    def _choose(self) -> None:
        """End the turn of the holder and begin the next one."""
        now = self.clock()
        if self.holder is not None:
            self._had[self.holder.visitor] += now - self._since
        self.holder, self._since = None, now
        self._cancel_unseen()
        if not self.jobs:
            return
        self.holder = min(self.jobs, key=self._place)
        self._now = self._had[self.holder.visitor]
        if self.holder.begun:
            self.turn.notify_all()
        else:
            self.holder.begin()

    def _place(self, job: SamplingJob) -> tuple[bool, int, float, int]:
        """Jobs go on in the order of these."""
        own = sum(
            other.visitor == job.visitor and other.number < job.number
            for other in self.jobs
            if other.task.background == job.task.background
        )
        end = self._had[job.visitor] + min(job.left(), LONG)
        return job.task.background, own, end, job.number

    def _cancel_unseen(self) -> None:
        """Cancel the jobs that wait and that no page looks at any more."""
        for job in self.waiting:
            if job.unseen():
                job.cancel(UNSEEN)


_queues: dict[str, SamplingQueue] = {}
_queues_lock = threading.Lock()


def end_all(seconds: float) -> None:
    """Cancel every job, each after its step, and wait for them so long."""
    with _queues_lock:
        queues = list(_queues.values())
    for queue in queues:
        queue.close()
    deadline = time.monotonic() + seconds
    for queue in queues:
        for job in list(queue.jobs):
            job.wait(max(0.0, deadline - time.monotonic()))


def queue_of(device: torch.device) -> SamplingQueue:
    """The one queue that all sessions of this server share for a device."""
    with _queues_lock:
        return _queues.setdefault(
            str(device),
            SamplingQueue(
                lambda *which: shared_model(*which, device=device),
                computing=lambda: computing(get_settings().runs_dir, device),
                keeps_thread=device.type == "cuda",
            ),
        )


def submit(task: Task, device: torch.device) -> SamplingJob:
    """Submit a task for whoever asks, and count it in their budget. Raises OverBudget and
    QueueFull."""
    who = visitor()
    with budgets.charged({Budget.EVALUATIONS: task.evaluations}, who, get_settings(), QueueFull):
        return queue_of(device).submit(task, who)
