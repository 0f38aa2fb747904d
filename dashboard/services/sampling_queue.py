"""The sampling queue of a device: its jobs take turns, in slices of about a second.

A job runs in a thread of its own, which goes on only while it is its turn: it is left between two
steps and taken up again. So nobody waits long for a few images, whatever others have asked for.
Who is next: fair between visitors, not between jobs; a visitor's second job comes after all first
ones; the shorter before the longer; jobs in the background after all others (see `_place`).

A job outlives the reruns of the page that submitted it; the page sees it through snapshots. A job
that no page polls any more is cancelled, so that a visitor who leaves keeps no device busy.
Everything that samples with a shared model goes through here.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from types import GeneratorType
from typing import Any

import numpy as np
import torch

from dashboard.services import budgets, errors
from dashboard.services.budgets import Budget, OverBudget
from dashboard.services.model_cache import shared_model
from dashboard.services.roles import NotAllowed
from dashboard.services.server_log import who
from dashboard.services.settings import get_settings
from dashboard.services.visitors import visitor
from diffusion_core.cores import computing, go_behind
from diffusion_core.device import is_out_of_memory
from diffusion_core.errors import explains_itself
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.sample import Cancelled, StepView
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.sampling.trajectory import Recorder, Trajectory

_log = logging.getLogger(__name__)

MAX_WAITING = 16
# Seconds without a snapshot until a job is cancelled, and while other jobs wait. Browsers wake a
# hidden tab only once a minute; the long patience lets the visitor use another tab meanwhile.
PATIENCE = 90.0
PATIENCE_IN_DEMAND = 15.0
UNSEEN = "Cancelled, because no page showed it any more."
CLOSED = "Cancelled, because the server is shutting down."

# Seconds after which a thread that rests gives the memory that a GPU keeps for it to others.
REST = 10.0

SLICE = 1.0  # seconds, after which another job may go on
# Seconds of work: jobs are taken to be no longer, so that a long one falls behind by no more.
LONG = 5.0
# Seconds per evaluation of the network, until a job has shown its own.
FIRST_GUESS = 0.01

# A checkpoint, which of its averaged weights, and whether in plain float32.
Load = Callable[[Checkpoint, str, bool], LoadedModel]
OnStep = Callable[[StepView], None]


class QueueFull(RuntimeError):
    """Too many jobs wait already."""


@dataclass(frozen=True)
class Task:
    """What a job does.

    `work(load, on_step)` loads its models with `load`, passes every step to `on_step` and returns
    the result. It may be a generator that yields how much is done after each batch. Other jobs may
    go on in both, after a step and after a yield.
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
    before: int  # jobs that come first, while it is not its turn
    wait: float  # seconds that those take, about
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

    def __init__(self, task: Task, queue: SamplingQueue, visitor: str, number: int) -> None:
        self.task = task
        self.spec = task.spec
        self.visitor = visitor
        self.who = who()  # for the log
        self.number = number  # in the order in which they came
        self.result: Any = None  # what the work returned, once it is done
        self.begun = False
        self._queue = queue
        self._lock = queue.lock
        self._state = "waiting"
        self._sentence = ""
        self._stop = ""  # why it should stop
        self._step = 0  # steps taken
        self._counts = True  # its steps are those of `on_step`
        self._view: StepView | None = None  # after the newest step
        self._now: Preview | None = None
        self._started: float | None = None  # of this turn
        self._seconds = 0.0  # of the turns before
        self._seen = self._submitted = queue.clock()
        self._over = threading.Event()
        self._cores = ExitStack()

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
            before, wait = self._queue.before(self)
            if self._state == "sampling" and self._step:
                left = self._queue.shared(self, self.left())
            return Snapshot(
                self._state, before, wait, self._step, now, seconds, left, self._sentence
            )

    def cancel(self, why: str = "Cancelled.") -> None:
        """End a job that has not begun at once, and another after its step."""
        with self._lock:
            if not self.active:
                return
            if not self.begun:
                self._end("cancelled", why)
                self._queue.leave(self)
                return
            self._stop = why
            self._sentence = "Stops after this step."
            self._queue.turn.notify_all()

    def unseen(self, patience: float) -> bool:
        return not self.task.background and self._queue.clock() - self._seen > patience

    def left(self) -> float:
        """Seconds of the device that it still needs, about."""
        share = 1 - self._step / self.task.steps
        if self._step and (spent := self._spent()):
            return spent / self._step * (self.task.steps - self._step)
        pace = self._queue.pace.get(self.task.pace_key, FIRST_GUESS)
        return pace * self.task.evaluations * share

    def begin(self) -> None:
        """Its first turn. Called by the queue."""
        self.begun = True
        self._queue.run(self._run)

    def _run(self) -> None:
        """Never raises: an error becomes the sentence."""
        if sys.platform == "linux":  # where each thread has a priority of its own
            go_behind(threading.get_native_id())
        self._go_on()
        try:
            work = self.task.work
            assert work is not None
            found = work(self._load, self._on_step)
            self.result = self._all_of(found) if isinstance(found, GeneratorType) else found
            state, sentence = "done", ""
        except Cancelled as reason:
            state, sentence = "cancelled", str(reason)
        except Exception as error:
            state, sentence = "failed", explain(error)
        del work
        found = None
        self._pause()
        with self._lock:
            self._end(state, sentence)
            if state == "done":
                self._queue.pace[self.task.pace_key] = self._seconds / self.task.evaluations
            self._queue.leave(self)

    def _all_of(self, turns: Generator[int, None, Any]) -> Any:
        with closing(turns):
            self._counts = False
            while True:
                try:
                    done = next(turns)
                except StopIteration as end:
                    return end.value
                with self._lock:
                    self._step = done
                self._let_others(over=True)

    def _go_on(self) -> None:
        """It is its turn, from here on."""
        self._cores.enter_context(self._queue.computing())
        with self._lock:
            if self._state == "waiting":
                self._state = "sampling"
            self._started = self._queue.clock()

    def _pause(self) -> None:
        with self._lock:
            self._seconds, self._started = self._spent(), None
        self._cores.close()

    def _let_others(self, over: bool = False) -> None:
        """Let others go on where they are next, and wait until it is this job's turn again.

        `over`: a turn ends here, however short it was. Raises Cancelled.
        """
        with self._lock:
            if self._stop:
                raise Cancelled(self._stop)
            if not self._queue.passes_on(self, over):
                return
        self._pause()
        with self._lock:
            self._queue.turn.wait_for(lambda: self._stop or self._queue.holder is self)
            if self._stop:
                raise Cancelled(self._stop)
        self._go_on()

    def _spent(self) -> float:
        now = 0.0 if self._started is None else self._queue.clock() - self._started
        return self._seconds + now

    def _waited(self) -> float:
        """Seconds since it was submitted in which it was not its turn, or it loaded."""
        return self._queue.clock() - self._submitted - self._spent()

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
            self._step += self._counts
            self._view, self._now = view, None
        self._let_others()

    def fields(self) -> dict[str, Any]:
        """What the log says of it."""
        spec = self.spec
        return {
            "order": self.number,
            "run": spec.run,
            "what": self.task.text,
            "images": spec.n,
            "evaluations": self.task.evaluations,
            **self.who,
        }

    def _end(self, state: str, sentence: str) -> None:
        self._state, self._sentence = state, sentence
        times = {"seconds": round(self._spent(), 3), "waited": round(self._waited(), 3)}
        told = {"reason": sentence} if sentence else {}
        _log.info(f"sampling {state}", extra=self.fields() | times | told)
        if self._view is not None and self._now is None and state != "failed":
            self._now = preview(self._view)
        # The work holds the model, and a session holds the job.
        self.task = replace(self.task, work=None)
        self._view = None
        self._over.set()


class SamplingQueue:
    """The jobs of one device, which go on one at a time.

    `load` gives the models, `clock` seconds; a turn is taken in `computing`. `keeps_thread`: one
    waits for the next job, since cuDNN plans its convolutions anew in each thread.
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
        self.pace: dict[str, float] = {}  # seconds per evaluation of the network, by `pace_key`
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
            _log.info("sampling submitted", extra=job.fields())
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

    def expected_seconds(self, key: str, evaluations: int) -> float | None:
        """Estimated from the last job with the same `pace_key`; None before the first."""
        pace = self.pace.get(key)
        return None if pace is None else pace * evaluations

    def passes_on(self, job: SamplingJob, over: bool) -> bool:
        """Whether another is next now. Called by the job whose turn it is, with the lock."""
        waiting = self.waiting
        urgent = job.task.background and not all(other.task.background for other in waiting)
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
            if job.unseen(PATIENCE):
                job.cancel(UNSEEN)


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
    if explains_itself(error) or isinstance(error, (QueueFull, OverBudget, NotAllowed)):
        return str(error)
    return errors.report(error)


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


def submit(task: Task, device: torch.device, evaluations: int | None = None) -> SamplingJob:
    """Submit a task for whoever asks, and count it in their budget.

    `evaluations`: how many are left to do, by default all of the task. Raises OverBudget and
    QueueFull.
    """
    who, amount = visitor(), task.evaluations if evaluations is None else evaluations
    budgets.charge(Budget.EVALUATIONS, who, amount, get_settings())
    try:
        return queue_of(device).submit(task, who)
    except QueueFull:
        budgets.give_back(Budget.EVALUATIONS, who, amount)
        raise
