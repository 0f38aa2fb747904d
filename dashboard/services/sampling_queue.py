"""The sampling queue: one job at a time on a device, the others wait.

A job runs in a thread of the server and outlives the reruns of the page that submitted it; the page
sees it through snapshots. A job that no page polls any more is cancelled, so that a visitor who
leaves keeps no device busy; a background job keeps running, in turns, and lets the others go first.
Everything that samples with a shared model goes through here: sampling in training mode changes
the model for a while.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any

import numpy as np
import torch

from dashboard.services import errors
from dashboard.services.model_cache import shared_model
from dashboard.services.settings import get_settings
from diffusion_core.cores import computing, go_behind
from diffusion_core.device import is_out_of_memory
from diffusion_core.files import DiskFull
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.sample import Cancelled, StepView
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.sampling.trajectory import Recorder, Trajectory

MAX_WAITING = 16
# Seconds without a snapshot until a job is cancelled, and while other jobs wait. Browsers wake a
# hidden tab only once a minute; the long patience lets the visitor use another tab meanwhile.
PATIENCE = 90.0
PATIENCE_IN_DEMAND = 15.0
UNSEEN = "Cancelled, because no page showed it any more."

# A checkpoint, which of its averaged weights, and whether in plain float32.
Load = Callable[[Checkpoint, str, bool], LoadedModel]
OnStep = Callable[[StepView], None]


class QueueFull(RuntimeError):
    """Too many jobs wait already."""


@dataclass(frozen=True)
class Task:
    """What a job does.

    `work(load, on_step)` loads its models with `load`, passes every step to `on_step` and returns
    the result. Work in the background may be a generator that yields how much is done after each
    batch: other jobs go first in between.
    """

    spec: SamplingSpec
    text: str  # the task as the pages describe it
    steps: int  # calls of `on_step`, or the last number that a generator yields
    evaluations: int  # of the network, over all images
    pace_key: str  # tasks with the same key need the same time per evaluation; see `pace_key`
    work: Callable[[Load, OnStep], Any | Generator[int, None, Any]] | None  # None once it is done
    background: bool = False  # keeps running when no page looks at it
    image: int | None = None  # the number, from 0, of the image of the spec that it treats


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """The result of `sample_task`."""

    images: np.ndarray  # uint8 (n, H, W, C)
    trajectory: Trajectory  # of as many of them as it keeps


def sample_task(spec: SamplingSpec, checkpoint: Checkpoint) -> Task:
    """All images of a spec at once; the result is a `GeneratedImages`. Raises ValueError."""
    schedule = build_schedule(checkpoint.config)

    def work(load: Load, on_step: OnStep) -> GeneratedImages:
        loaded = load(checkpoint, spec.average, spec.exact)
        recorder = Recorder(make_levels(schedule, spec.steps, spec.spacing))

        def on_both(view: StepView) -> None:
            recorder(view)
            on_step(view)

        images = spec.make(loaded, on_both)
        return GeneratedImages(to_uint8(images), recorder.finish())

    return Task(
        spec,
        spec.describe(),
        spec.steps,
        spec.evaluations(schedule),
        pace_key(spec, checkpoint.config),
        work,
    )


@dataclass(frozen=True)
class Preview:
    """The images after one step; uint8 (n, H, W, C)."""

    timestep: float  # where the step started; between two of the schedule's a fraction
    x_t: np.ndarray
    x_0: np.ndarray  # the clean images that the network predicted there


@dataclass(frozen=True)
class Snapshot:
    """The state of a job at one moment."""

    state: str  # waiting, loading, sampling, done, cancelled or failed
    before: int  # jobs that come first, while it waits
    step: int  # steps taken of `Task.steps`
    now: Preview | None  # after the newest step; None before the first
    seconds: float  # since it started
    seconds_left: float | None  # None while unknown
    sentence: str  # why it was cancelled or failed, or that it is about to stop

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "loading", "sampling")


class SamplingJob:
    """One task in a queue. Its methods may be called from any thread."""

    def __init__(self, task: Task, queue: SamplingQueue) -> None:
        self.task = task
        self.spec = task.spec
        self.result: Any = None  # what the work returned, once it is done
        self._queue = queue
        self._lock = queue.lock
        self._turns: Generator[int, None, Any] | None = None
        self._state = "waiting"
        self._sentence = ""
        self._stop = ""  # why it should stop
        self._step = 0  # steps taken
        self._view: StepView | None = None  # after the newest step
        self._now: Preview | None = None
        self._started: float | None = None  # of this turn
        self._seconds = 0.0  # of the turns before
        self._seen = queue.clock()
        self._over = threading.Event()

    @property
    def active(self) -> bool:
        return not self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it has ended; False where it has not after `timeout` seconds."""
        return self._over.wait(timeout)

    def snapshot(self) -> Snapshot:
        """What to show now. Calling this keeps the job alive."""
        with self._lock:
            self._seen = self._queue.clock()
            view, now = self._view, self._now
        # Converted here and not in on_step: only what a page shows costs time.
        if view is not None and now is None:
            now = preview(view)
        with self._lock:
            if view is self._view:
                self._now = now
            else:  # another step was taken meanwhile
                now = self._now or now
            seconds, left = self._spent(), None
            if self._state == "sampling" and self._step:
                left = seconds / self._step * (self.task.steps - self._step)
            return Snapshot(
                self._state,
                self._queue.before(self),
                self._step,
                now,
                seconds,
                left,
                self._sentence,
            )

    def cancel(self, why: str = "Cancelled.") -> None:
        """End a waiting job at once, also between two turns, and a running one after its step."""
        with self._lock:
            waits = self in self._queue.waiting
            if waits:
                self._queue.waiting.remove(self)
            if waits or self._state == "waiting":
                if self._turns is not None:
                    self._turns.close()
                self._end("cancelled", why)
            elif self.active:
                self._stop = why
                self._sentence = "Stops after this step."

    def unseen(self, patience: float) -> bool:
        return not self.task.background and self._queue.clock() - self._seen > patience

    def take_turn(self) -> None:
        """Called by the queue's thread only. Never raises: an error becomes the sentence."""
        with self._lock:
            work = self.task.work
            if work is None:
                return
            self._state, self._started = "sampling", self._queue.clock()
        try:
            if self._turns is None:
                found = work(self._load, self._on_step)
                self._turns = found if isinstance(found, GeneratorType) else _no_turns(found)
            done = next(self._turns)
        except StopIteration as end:
            self.result = end.value
            state, sentence = "done", ""
        except Cancelled as reason:
            state, sentence = "cancelled", str(reason)
        except Exception as error:
            state, sentence = "failed", explain(error)
        else:
            with self._lock:
                self._step, self._seconds, self._started = done, self._spent(), None
                if not self._stop:
                    return
                self._turns.close()  # cancelled in a turn that took no step
            state, sentence = "cancelled", self._stop
        with self._lock:
            self._end(state, sentence)
            if state == "done":
                self._queue.pace[self.task.pace_key] = self._seconds / self.task.evaluations

    def _spent(self) -> float:
        now = 0.0 if self._started is None else self._queue.clock() - self._started
        return self._seconds + now

    def _load(self, checkpoint: Checkpoint, average: str, exact: bool) -> LoadedModel:
        with self._lock:
            self._state, begun = "loading", self._queue.clock()
        loaded = self._queue.load(checkpoint, average, exact)
        with self._lock:
            self._state = "sampling"
            if self._started is not None:  # the time of a job is that of its sampling
                self._started += self._queue.clock() - begun
            if self._stop:
                raise Cancelled(self._stop)
        return loaded

    def _on_step(self, view: StepView) -> None:
        with self._lock:
            patience = PATIENCE_IN_DEMAND if self._queue.waiting else PATIENCE
            if self.unseen(patience):
                self._stop = UNSEEN
            if self._turns is None:  # a generator yields the number of steps itself
                self._step += 1
            stop = self._stop
            self._view, self._now = view, None
        if stop:
            raise Cancelled(stop)

    def _end(self, state: str, sentence: str) -> None:
        self._seconds, self._started = self._spent(), None
        self._state, self._sentence = state, sentence
        if self._view is not None and self._now is None and state != "failed":
            self._now = preview(self._view)
        # The work and its turns hold the model, and a session holds the job.
        self.task = replace(self.task, work=None)
        self._turns = self._view = None
        self._over.set()


def _no_turns(result: Any) -> Generator[int, None, Any]:
    """A generator that ends at once with a result."""
    yield from ()
    return result


class SamplingQueue:
    """The jobs of one device: first come, first served, one at a time.

    `load` gives the models, `clock` seconds; a turn is taken in `computing`. The thread lives as
    long as there are jobs.
    """

    def __init__(
        self,
        load: Load,
        clock: Callable[[], float] = time.monotonic,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.load = load
        self.clock = clock
        self.computing = computing
        self.lock = threading.RLock()
        self.waiting: deque[SamplingJob] = deque()
        self.running: SamplingJob | None = None
        self._thread: threading.Thread | None = None
        self.pace: dict[str, float] = {}  # seconds per evaluation of the network, by `pace_key`

    def submit(self, task: Task) -> SamplingJob:
        """Raises QueueFull."""
        with self.lock:
            self._cancel_unseen()
            if len(self.waiting) >= MAX_WAITING:
                raise QueueFull(
                    f"{MAX_WAITING} jobs are already waiting for this device. Try again later."
                )
            job = SamplingJob(task, self)
            self._enqueue(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sampling", daemon=True)
                self._thread.start()
            return job

    def before(self, job: SamplingJob) -> int:
        """How many jobs come before a waiting one; 0 for others."""
        with self.lock:
            self._cancel_unseen()
            if job not in self.waiting:
                return 0
            return self.waiting.index(job) + (self.running is not None)

    def expected_seconds(self, key: str, evaluations: int) -> float | None:
        """Estimated from the last job with the same `pace_key`; None before the first."""
        pace = self.pace.get(key)
        return None if pace is None else pace * evaluations

    def _enqueue(self, job: SamplingJob) -> None:
        """Put it at the end, but before the background jobs."""
        behind = [k for k, other in enumerate(self.waiting) if other.task.background]
        at_end = job.task.background or not behind
        self.waiting.insert(len(self.waiting) if at_end else behind[0], job)

    def _cancel_unseen(self) -> None:
        """Cancel the waiting jobs that no page looks at any more."""
        for job in list(self.waiting):
            if job.unseen(PATIENCE):
                job.cancel(UNSEEN)

    def _work(self) -> None:
        if sys.platform == "linux":  # where each thread has a priority of its own
            go_behind(threading.get_native_id())
        while True:
            with self.lock:
                last, self.running = self.running, None
                if last is not None and last.active:  # has more turns to take, after the others
                    self._enqueue(last)
                self._cancel_unseen()
                if not self.waiting:
                    self._thread = None
                    return
                self.running = self.waiting.popleft()
            with self.computing():
                self.running.take_turn()


def pace_key(spec: SamplingSpec, config: RunConfig) -> str:
    """What the time of an evaluation depends on, apart from the batch size."""
    return (
        f"{config.network} {config.network_args} {config.image_size} {spec.as_lecture} {spec.exact}"
    )


def preview(view: StepView) -> Preview:
    return Preview(view.timestep, to_uint8(view.x_t), to_uint8(view.x_0))


def explain(error: Exception) -> str:
    """The error in one sentence; unexpected ones are logged."""
    if is_out_of_memory(error):
        return "The device does not have enough memory; generate fewer images at once."
    if isinstance(error, (ValueError, QueueFull, DiskFull)):
        return str(error)
    return errors.report(error)


_queues: dict[str, SamplingQueue] = {}
_queues_lock = threading.Lock()


def queue_of(device: torch.device) -> SamplingQueue:
    """The one queue that all sessions of this server share for a device."""
    with _queues_lock:
        return _queues.setdefault(
            str(device),
            SamplingQueue(
                lambda *which: shared_model(*which, device=device),
                computing=lambda: computing(get_settings().runs_dir, device),
            ),
        )
