"""Drawing pictures in the background: one drawing at a time on a device, the others in a line.

A drawing runs in a thread of the server and outlives the reruns of the page that ordered it; the
page sees it through snapshots. One that nobody looks at any more ends by itself, so that a visitor
who leaves keeps no device busy. Everything that samples with a shared model goes through here:
sampling in training mode changes the model for a while. Knows nothing of Streamlit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_core.config import MAIN_AVERAGE, RunConfig
from diffusion_core.diffusion import Schedule
from diffusion_core.pictures import to_uint8
from diffusion_core.samplers import LECTURE_SAMPLING, Cancelled, StepView, evaluations, sample

LOOKS = 10  # pictures in the strip from noise to picture, as in the lecture
LONGEST_LINE = 16
# Seconds without a snapshot until a drawing ends by itself. Browsers wake a hidden tab only once a
# minute, so the long one lets people do something else meanwhile, unless somebody waits.
PATIENCE = 90.0
PATIENCE_IN_DEMAND = 15.0

EACH_IN_TURN = "each in turn"
ANY_CLASS = "any class"

Loaded = tuple[nn.Module, Schedule, RunConfig]


class LineFull(RuntimeError):
    """Too many drawings wait already."""


@dataclass(frozen=True)
class Order:
    """What to draw; together with the checkpoint's file it determines every pixel."""

    run: str
    step: int  # of the checkpoint
    n: int = 16
    sampler: str = "ddim"
    steps: int = 50
    seed: int = 0
    eta: float = 0.0  # ddim only
    classes: tuple[str, ...] = ()  # of the network; empty where it takes no labels
    label: str = ""  # one of the classes, EACH_IN_TURN or ANY_CLASS
    guidance_scale: float = 1.0
    as_lecture: bool = False  # LECTURE_SAMPLING, its two slips included
    average: str = MAIN_AVERAGE  # which of the checkpoint's averaged weights
    flow: bool = False  # whether the model predicts the direction of a flow
    spacing: str = "trailing"  # of the steps, one of `levels.TIMESTEP_SPACINGS`

    def labels(self) -> Tensor | None:
        """(n,) integers; None where the network takes none or any class will do."""
        if not self.classes or self.label == ANY_CLASS:
            return None
        if self.label == EACH_IN_TURN:
            return torch.arange(self.n) % len(self.classes)
        return torch.full((self.n,), self.classes.index(self.label))

    def class_of(self, k: int) -> str:
        """The class that picture k was asked to be; empty where it was not asked."""
        labels = self.labels()
        return "" if labels is None else self.classes[int(labels[k])]

    @property
    def columns(self) -> int | None:
        """Of the grid: one a class where that works out, else as leaves no place empty, up to 8.

        None where nothing does; then it is nearly square.
        """
        whole = [k for k in range(1, 9) if self.n % k == 0]
        if self.label == EACH_IN_TURN and len(self.classes) in whole:
            return len(self.classes)
        return next((k for k in whole if k * k >= self.n), None)

    @property
    def evaluations(self) -> int:
        """How often the network computes one picture; guidance needs it with and without class."""
        looks = evaluations("ddpm" if self.as_lecture else self.sampler, self.steps)
        return self.n * looks * (1 if self.guidance_scale == 1.0 else 2)

    def options(self) -> dict[str, Any]:
        """As arguments of `sample`, all but the shape."""
        how: dict[str, Any] = {"sampler": self.sampler, "eta": self.eta}
        how["timestep_spacing"] = self.spacing
        return (LECTURE_SAMPLING if self.as_lecture else how) | {
            "n": self.n,
            "steps": self.steps,
            "seed": self.seed,
            "labels": self.labels(),
            "guidance_scale": self.guidance_scale,
        }

    def words(self) -> str:
        """For people: "demo-cars at step 250: 16 pictures, ddim, 50 steps, seed 0, van"."""
        parts = [
            f"{self.n} picture{'s' if self.n > 1 else ''}",
            "as the lecture does" if self.as_lecture else self.sampler,
            f"{self.steps} step{'s' if self.steps > 1 else ''}",
            f"seed {self.seed}",
        ]
        if self.spacing != "trailing" and not self.as_lecture:
            parts.append(f"{self.spacing} spacing")
        if self.sampler == "ddim" and self.eta and not self.as_lecture:
            parts.append(f"η {self.eta:g}")
        if self.classes:
            parts.append("each class in turn" if self.label == EACH_IN_TURN else self.label)
        if self.guidance_scale != 1.0:
            parts.append(f"guidance {self.guidance_scale:g}")
        if self.average != MAIN_AVERAGE:
            parts.append(f"{self.average} average")
        return f"{self.run} at step {self.step:,}: {', '.join(parts)}"


@dataclass(frozen=True)
class Look:
    """The pictures after one step; uint8 (n, H, W, C)."""

    timestep: float  # where the step started; between two of the schedule's a fraction
    x_t: np.ndarray
    x_0: np.ndarray  # the clean pictures that the network predicted there


@dataclass(frozen=True)
class Snapshot:
    """A drawing as it stands."""

    state: str  # waiting, drawing, done, cancelled or failed
    before: int  # drawings that come first, while it waits
    step: int  # steps taken
    now: Look | None  # after the newest step; None before the first
    looks: tuple[Look, ...]  # evenly spaced over the steps, the noisiest first
    seconds: float  # since it started to draw
    seconds_left: float | None  # None while unknown
    sentence: str  # why it was cancelled or failed, or what else there is to say

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "drawing")


class Drawing:
    """One order in a queue. Its methods may be called from any thread."""

    def __init__(self, order: Order, loaded: Loaded, queue: Queue) -> None:
        self.order = order
        self._queue = queue
        self._lock = queue.lock
        self._loaded: Loaded | None = loaded  # let go of at the end
        self._state = "waiting"
        self._sentence = ""
        self._stop = ""  # why it should end
        self._step = 0  # steps taken
        self._view: StepView | None = None  # after the newest step
        self._now: Look | None = None
        self._looks: list[Look] = []
        self._look_at = set(np.linspace(0, order.steps - 1, LOOKS).round().astype(int).tolist())
        self._started = self._seconds = 0.0
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
            now = look(view)
        with self._lock:
            if view is self._view:
                self._now = now
            else:  # it went on meanwhile
                now = self._now or now
            left = None
            if self._state == "drawing":
                self._seconds = self._queue.clock() - self._started
                if self._step:
                    left = self._seconds / self._step * (self.order.steps - self._step)
            return Snapshot(
                self._state,
                self._queue.before(self),
                self._step,
                now,
                tuple(self._looks),
                self._seconds,
                left,
                self._sentence,
            )

    def cancel(self, why: str = "Cancelled.") -> None:
        """A waiting one ends at once, a running one after the step that it is in."""
        with self._lock:
            if self._state == "waiting":
                self._queue.leave(self)
                self._end("cancelled", why)
            elif self._state == "drawing":
                self._stop = why
                self._sentence = "It stops after this step."

    def unseen(self, patience: float) -> bool:
        return self._queue.clock() - self._seen > patience

    def draw(self) -> None:
        """Called by the queue's thread alone. Never raises: what goes wrong becomes a sentence."""
        with self._lock:
            if self._loaded is None or self._state != "waiting":
                return
            self._state, self._started = "drawing", self._queue.clock()
            model, schedule, config = self._loaded
        try:
            sample(
                model,
                schedule,
                prediction_type=config.prediction_type,
                shape=(config.channels, config.image_size, config.image_size),
                on_step=self._on_step,
                **self.order.options(),
            )
        except Cancelled as reason:
            state, sentence = "cancelled", str(reason)
        except Exception as error:
            state, sentence = "failed", explain(error)
        else:
            state, sentence = "done", ""
        with self._lock:
            self._end(state, sentence)
            if state == "done":
                pace = self._seconds / self.order.evaluations
                self._queue.note_pace(self.order, config, pace)

    def _on_step(self, view: StepView) -> None:
        with self._lock:
            patience = PATIENCE_IN_DEMAND if self._queue.waiting else PATIENCE
            if self.unseen(patience):
                self._stop = "Cancelled, because nobody was looking any more."
            self._step, self._view, self._now = view.index + 1, view, None
            stop = self._stop
        if stop or view.index in self._look_at:
            seen = look(view)
            with self._lock:
                self._now = seen
                self._looks.append(seen)
        if stop:
            raise Cancelled(stop)

    def _end(self, state: str, sentence: str) -> None:
        if self._state == "drawing":
            self._seconds = self._queue.clock() - self._started
        self._state, self._sentence = state, sentence
        self._loaded = self._view = None
        self._over.set()


class Queue:
    """The drawings of one device: first come, first served, one at a time.

    `clock` gives seconds. The thread lives as long as there is something to draw.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.waiting: deque[Drawing] = deque()
        self.running: Drawing | None = None
        self._thread: threading.Thread | None = None
        self._pace: dict[str, float] = {}  # seconds per network evaluation, by network

    def submit(self, order: Order, loaded: Loaded) -> Drawing:
        """Raises LineFull."""
        with self.lock:
            self._send_home()
            if len(self.waiting) >= LONGEST_LINE:
                raise LineFull(
                    f"{LONGEST_LINE} drawings wait for this device already; try again in a while."
                )
            drawing = Drawing(order, loaded, self)
            self.waiting.append(drawing)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
                self._thread.start()
            return drawing

    def before(self, drawing: Drawing) -> int:
        """How many drawings come before a waiting one; 0 for others."""
        with self.lock:
            self._send_home()
            if drawing not in self.waiting:
                return 0
            return self.waiting.index(drawing) + (self.running is not None)

    def leave(self, drawing: Drawing) -> None:
        with self.lock:
            if drawing in self.waiting:  # else its turn has just come
                self.waiting.remove(drawing)

    def expected_seconds(self, order: Order, config: RunConfig) -> float | None:
        """How long it took per evaluation the last time; None before the first time."""
        pace = self._pace.get(_pace_key(order, config))
        return None if pace is None else pace * order.evaluations

    def note_pace(self, order: Order, config: RunConfig, seconds: float) -> None:
        self._pace[_pace_key(order, config)] = seconds

    def _send_home(self) -> None:
        """Those in the line whom nobody looks at any more."""
        for drawing in list(self.waiting):
            if drawing.unseen(PATIENCE):
                drawing.cancel("Cancelled, because nobody was looking any more.")

    def _work(self) -> None:
        while True:
            with self.lock:
                self.running = None
                self._send_home()
                if not self.waiting:
                    self._thread = None
                    return
                self.running = self.waiting.popleft()
            self.running.draw()


def _pace_key(order: Order, config: RunConfig) -> str:
    return f"{config.network} {config.network_args} {config.image_size} {order.as_lecture}"


def look(view: StepView) -> Look:
    return Look(view.timestep, to_uint8(view.x_t), to_uint8(view.x_0))


def explain(error: Exception) -> str:
    """What went wrong, in one sentence; the unexpected also goes to the server's log."""
    text = str(error)
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if memory or "out of memory" in text or "can't allocate memory" in text:
        return "The device has not enough memory for that; draw fewer pictures at once."
    if isinstance(error, (ValueError, LineFull)):
        return text
    logging.getLogger(__name__).error("A drawing failed", exc_info=error)
    return f"Drawing failed: {text or type(error).__name__}"


_queues: dict[str, Queue] = {}
_queues_lock = threading.Lock()


def queue_of(device: torch.device) -> Queue:
    """The one queue that all sessions of this server share for a device."""
    with _queues_lock:
        return _queues.setdefault(str(device), Queue())
