"""Drawing images in the background: one drawing at a time on a device, the others in a line.

A drawing runs in a thread of the server and outlives the reruns of the page that ordered it; the
page sees it through snapshots. One that nobody looks at any more ends by itself, so that a visitor
who leaves keeps no device busy; one for the background works on, in turns, and lets the others go
first. Everything that samples with a shared model goes through here: sampling in training mode
changes the model for a while. Knows nothing of Streamlit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any

import numpy as np
import torch

from diffusion_core.device import is_out_of_memory
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.sample import Cancelled, StepView
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.sampling.trajectory import Recorder, Trajectory

MAX_WAITING = 16
# Seconds without a snapshot until a drawing ends by itself. Browsers wake a hidden tab only once a
# minute, so the long one lets people do something else meanwhile, unless somebody waits.
PATIENCE = 90.0
PATIENCE_IN_DEMAND = 15.0

OnStep = Callable[[StepView], None]


class QueueFull(RuntimeError):
    """Too many drawings wait already."""


@dataclass(frozen=True)
class Task:
    """What a drawing does.

    `work(on_step)` draws, shows every step to `on_step` and returns the result. One for the
    background may be a generator that yields how much is done after each batch: other drawings go
    first in between.
    """

    spec: SamplingSpec
    words: str  # for people: what is drawn
    steps: int  # calls of `on_step`, or what a generator yields at its end
    evaluations: int  # of the network, over all images
    pace_key: str  # of what takes as long an evaluation; see `pace_key`
    work: Callable[[OnStep], Any | Generator[int, None, Any]] | None  # None once it is done
    background: bool = False  # goes on when nobody looks


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """The result of the plain drawing."""

    images: np.ndarray  # uint8 (n, H, W, C)
    trajectory: Trajectory  # of as many of them as it keeps


def sample_task(spec: SamplingSpec, loaded: LoadedModel) -> Task:
    """The plain one: all images of an order at once, a `GeneratedImages`."""
    _, schedule, config = loaded

    def work(on_step: OnStep) -> GeneratedImages:
        recorder = Recorder(make_levels(schedule, spec.steps, spec.spacing))

        def on_both(view: StepView) -> None:
            recorder(view)
            on_step(view)

        images = spec.make(loaded, on_both)
        return GeneratedImages(to_uint8(images), recorder.finish())

    return Task(
        spec,
        spec.words(),
        spec.steps,
        spec.evaluations(schedule),
        pace_key(spec, config),
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
    """A drawing as it stands."""

    state: str  # waiting, drawing, done, cancelled or failed
    before: int  # drawings that come first, while it waits
    step: int  # steps taken of `Task.steps`
    now: Preview | None  # after the newest step; None before the first
    seconds: float  # since it started to draw
    seconds_left: float | None  # None while unknown
    sentence: str  # why it was cancelled or failed, or what else there is to say

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "drawing")


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
        self._stop = ""  # why it should end
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
        """What to show now. Whoever calls this keeps the drawing alive."""
        with self._lock:
            self._seen = self._queue.clock()
            view, now = self._view, self._now
        # Turned to bytes here and not in on_step: only what somebody looks at costs time.
        if view is not None and now is None:
            now = preview(view)
        with self._lock:
            if view is self._view:
                self._now = now
            else:  # it went on meanwhile
                now = self._now or now
            seconds, left = self._spent(), None
            if self._state == "drawing" and self._step:
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
        """A waiting one ends at once, also between two turns, a running one after its step."""
        with self._lock:
            if self._queue.leave(self) or self._state == "waiting":
                if self._turns is not None:
                    self._turns.close()
                self._end("cancelled", why)
            elif self._state == "drawing":
                self._stop = why
                self._sentence = "It stops after this step."

    def unseen(self, patience: float) -> bool:
        return not self.task.background and self._queue.clock() - self._seen > patience

    def take_turn(self) -> None:
        """Called by the queue's thread alone. Never raises: what goes wrong becomes a sentence."""
        with self._lock:
            work = self.task.work
            if work is None:
                return
            self._state, self._started = "drawing", self._queue.clock()
        try:
            if self._turns is None:
                found = work(self._on_step)
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
                self._turns.close()  # asked to stop in a turn that drew nothing
            state, sentence = "cancelled", self._stop
        with self._lock:
            self._end(state, sentence)
            if state == "done":
                self._queue.note_pace(self.task, self._seconds / self.task.evaluations)

    def _spent(self) -> float:
        now = 0.0 if self._started is None else self._queue.clock() - self._started
        return self._seconds + now

    def _on_step(self, view: StepView) -> None:
        with self._lock:
            patience = PATIENCE_IN_DEMAND if self._queue.waiting else PATIENCE
            if self.unseen(patience):
                self._stop = "Cancelled, because nobody was looking any more."
            if self._turns is None:  # else what it yields says how much is done
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
        # The work and its turns hold the model, which a session would keep from being let go of.
        self.task = replace(self.task, work=None)
        self._turns = self._view = None
        self._over.set()


def _no_turns(result: Any) -> Generator[int, None, Any]:
    """A generator that ends at once with a result."""
    yield from ()
    return result


class SamplingQueue:
    """The drawings of one device: first come, first served, one at a time.

    `clock` gives seconds. The thread lives as long as there is something to draw.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.waiting: deque[SamplingJob] = deque()
        self.running: SamplingJob | None = None
        self._thread: threading.Thread | None = None
        self._pace: dict[str, float] = {}  # seconds per network evaluation, by network

    def submit(self, task: Task) -> SamplingJob:
        """Raises LineFull."""
        with self.lock:
            self._send_home()
            if len(self.waiting) >= MAX_WAITING:
                raise QueueFull(
                    f"{MAX_WAITING} drawings wait for this device already; try again in a while."
                )
            job = SamplingJob(task, self)
            self._line_up(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
                self._thread.start()
            return job

    def before(self, job: SamplingJob) -> int:
        """How many drawings come before a waiting one; 0 for others."""
        with self.lock:
            self._send_home()
            if job not in self.waiting:
                return 0
            return self.waiting.index(job) + (self.running is not None)

    def leave(self, job: SamplingJob) -> bool:
        """Whether it was in the line and is not any more; else its turn has come, or is over."""
        with self.lock:
            if job not in self.waiting:
                return False
            self.waiting.remove(job)
            return True

    def expected_seconds(self, key: str, evaluations: int) -> float | None:
        """Going by how long an evaluation took the last time; None before the first time.

        `key`: see `pace_key`.
        """
        pace = self._pace.get(key)
        return None if pace is None else pace * evaluations

    def note_pace(self, task: Task, seconds: float) -> None:
        self._pace[task.pace_key] = seconds

    def _line_up(self, job: SamplingJob) -> None:
        """At the end, but before those for the background."""
        behind = [k for k, other in enumerate(self.waiting) if other.task.background]
        at_end = job.task.background or not behind
        self.waiting.insert(len(self.waiting) if at_end else behind[0], job)

    def _send_home(self) -> None:
        """Those in the line whom nobody looks at any more."""
        for job in list(self.waiting):
            if job.unseen(PATIENCE):
                job.cancel("Cancelled, because nobody was looking any more.")

    def _work(self) -> None:
        while True:
            with self.lock:
                last, self.running = self.running, None
                if last is not None and last.active:  # more turns to take, after the others
                    self._line_up(last)
                self._send_home()
                if not self.waiting:
                    self._thread = None
                    return
                self.running = self.waiting.popleft()
            self.running.take_turn()


def pace_key(spec: SamplingSpec, config: RunConfig) -> str:
    """What an evaluation's time depends on, apart from the number of images at once."""
    return f"{config.network} {config.network_args} {config.image_size} {spec.as_lecture}"


def preview(view: StepView) -> Preview:
    return Preview(view.timestep, to_uint8(view.x_t), to_uint8(view.x_0))


def explain(error: Exception) -> str:
    """What went wrong, in one sentence; the unexpected also goes to the server's log."""
    text = str(error)
    if is_out_of_memory(error):
        return "The device has not enough memory for that; draw fewer images at once."
    if isinstance(error, (ValueError, QueueFull)):
        return text
    logging.getLogger(__name__).error("A drawing failed", exc_info=error)
    return f"Drawing failed: {text or type(error).__name__}"


_queues: dict[str, SamplingQueue] = {}
_queues_lock = threading.Lock()


def queue_of(device: torch.device) -> SamplingQueue:
    """The one queue that all sessions of this server share for a device."""
    with _queues_lock:
        return _queues.setdefault(str(device), SamplingQueue())
