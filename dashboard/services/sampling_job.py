"""A job of the sampling queue: the thread that does a task in turns, and the snapshots of it.

A job is left between two steps and taken up again when it is its turn. It outlives the reruns of
the page that submitted it; the page sees it through snapshots. A job that no page polls any more
is cancelled, so that a visitor who leaves keeps no device busy.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard.services import errors
from dashboard.services.sampling_tasks import Task
from dashboard.services.server_log import who
from diffusion_core.cores import go_behind
from diffusion_core.device import is_out_of_memory
from diffusion_core.errors import explains_itself
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.sampling.sample import Cancelled, StepView

if TYPE_CHECKING:
    from dashboard.services.sampling_queue import SamplingQueue

_log = logging.getLogger(__name__)

# Seconds without a snapshot until a job is cancelled, and while it keeps others waiting. Browsers
# wake a hidden tab only once a minute; the long patience lets the visitor use another tab.
PATIENCE = 90.0
PATIENCE_IN_DEMAND = 15.0
UNSEEN = "Cancelled, because no page showed it any more."
# Seconds per evaluation of the network, until a job has shown its own.
FIRST_GUESS = 0.01


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
    seconds: float  # in its turns, without loading
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
        self._first: tuple[int, float] | None = None  # the number and the end of its first step
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

    def unseen(self) -> bool:
        """Whether no page has looked at it for so long that it is cancelled."""
        in_demand = self._queue.holder is self and self._queue.waiting
        patience = PATIENCE_IN_DEMAND if in_demand else PATIENCE
        return not self.task.background and self._queue.clock() - self._seen > patience

    def left(self) -> float:
        """Seconds of the device that it still needs, about."""
        task, spent = self.task, self._spent()
        rest = task.steps - self._step
        if self._first is not None and self._step > self._first[0]:
            # The first step takes longer, and that of a series may be far from its begin.
            step, seconds = self._first
            return (spent - seconds) / (self._step - step) * rest
        expected = self._queue.expected_seconds(task.pace_key, task.evaluations)
        if expected is None and self._step:
            return spent / self._step * rest
        return (expected or FIRST_GUESS * task.evaluations) * rest / task.steps

    def begin(self) -> None:
        """Its first turn. Called by the queue."""
        self.begun = True
        self._queue.run(self._run)

    def _run(self) -> None:
        """Never raises: an error becomes the sentence."""
        try:
            self.result = self._work()
            state, sentence = "done", ""
        except Cancelled as reason:
            state, sentence = "cancelled", str(reason)
        except Exception as error:
            state, sentence = "failed", explain(error)
        self._pause()
        with self._lock:
            self._end(state, sentence)
            if state == "done":
                self._queue.learn(self.task.pace_key, self.task.evaluations, self._seconds)
            self._queue.leave(self)

    def _work(self) -> Any:
        """What the task returns. In a method of its own, since its names hold the network."""
        if sys.platform == "linux":  # where each thread has a priority of its own
            go_behind(threading.get_native_id())
        self._go_on()
        assert self.task.work is not None
        found = self.task.work(self._load, self._on_step)
        return self._all_of(found) if isinstance(found, GeneratorType) else found

    def _all_of(self, turns: Generator[int, None, Any]) -> Any:
        with closing(turns):
            self._counts = False
            while True:
                try:
                    done = next(turns)
                except StopIteration as end:
                    return end.value
                with self._lock:
                    self._take(done)
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
            if self.unseen():
                self._stop = UNSEEN
            if self._counts:
                self._take(self._step + 1)
            self._view, self._now = view, None
        self._let_others()

    def _take(self, step: int) -> None:
        """So many steps are taken. Called with the lock."""
        self._step = step
        if self._first is None:
            self._first = step, self._spent()

    @property
    def level(self) -> int:
        """Of what the log says of it: a hand that moves makes several a second."""
        return logging.DEBUG if self.task.immediate else logging.INFO

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
        _log.log(self.level, f"sampling {state}", extra=self.fields() | times | told)
        if self._view is not None and self._now is None and state != "failed":
            self._now = preview(self._view)
        # The work holds the model, and a session holds the job.
        self.task = replace(self.task, work=None)
        self._view = None
        self._over.set()


def preview(view: StepView) -> Preview:
    return Preview(view.timestep, to_uint8(view.x_t), to_uint8(view.x_0))


def explain(error: Exception) -> str:
    """The error in one sentence; unexpected ones are logged."""
    if is_out_of_memory(error):
        return "The device does not have enough memory; generate fewer images at once."
    if explains_itself(error) or type(error).__module__.startswith("dashboard."):
        return str(error)
    return errors.report(error)
