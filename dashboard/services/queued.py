"""Short computations with a network: once on the sampling queue for all who ask the same.

Results are kept in memory, the newest ones, and must not be changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from dashboard.services import cached, sampling_queue
from dashboard.services.sampling_job import UNSEEN, SamplingJob
from dashboard.services.sampling_tasks import Task

MOST_KEPT = 32  # some 10 kB to 3 MB each
PATIENCE_SECONDS = 2.0  # for which a page waits before it shows how far the job is
LOOK_SECONDS = 0.1

_jobs: dict[Hashable, SamplingJob] = {}  # least recently asked first
_lock = threading.Lock()


def ask(key: Hashable, make_task: Callable[[], Task]) -> SamplingJob:
    """The job of a key: the one that somebody has submitted, or a new one in the name of whoever
    asks, for whose end this waits a moment. Raises OverBudget and QueueFull."""
    with _lock:
        job = _jobs.pop(key, None)
        if job is None or (not job.active and job.snapshot().sentence == UNSEEN):
            job = sampling_queue.submit(make_task(), cached.device())
        _jobs[key] = job
        while len(_jobs) > MOST_KEPT:
            del _jobs[next(iter(_jobs))]
    for _ in range(round(PATIENCE_SECONDS / LOOK_SECONDS)):
        job.snapshot()  # it is looked at
        if job.wait(LOOK_SECONDS):
            break
    return job


def forget(key: Hashable) -> None:
    """So that the next who asks has it computed again."""
    with _lock:
        _jobs.pop(key, None)
