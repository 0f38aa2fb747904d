"""The numbers of the training steps on their way from the device to `metrics.sqlite`.

They stay on the device, are sent to the host in groups about once a second, and are written when
they have arrived, so that no step waits for a number.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_core.device import Utilisation, memory_in_use, peak_memory
from diffusion_core.energy import EnergyMeter
from diffusion_core.runs.cost import ENERGY
from diffusion_core.runs.metrics import BIN_NAMES, TIMESTEP_BINS, MetricsWriter, read_curve
from diffusion_core.runs.status_writer import StatusWriter
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.event_files import EventWriter
from diffusion_core.training.step import StepOutput

FLUSH_SECONDS = 1.0


class NotFinite(RuntimeError):
    """The loss or gradient of `step` became NaN or infinite."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"The {what} of step {step} is not a number.")
        self.step = step


class Group(NamedTuple):
    """Steps on their way to the host."""

    steps: list[int]
    times: list[float]  # seconds since 1970
    rates: list[float]  # learning rates
    speed: float  # images per second
    host: dict[str, Tensor]  # the numbers, on the CPU once `arrived`
    arrived: torch.cuda.Event | None
    ratios: list[int]  # the steps whose update-to-weight ratio is in `host`
    values: list[tuple[int, str]]  # the step and name of what else is in it


class StepLog:
    """Collects what the steps return and writes it in groups, about once a second."""

    def __init__(
        self,
        context: TrainingContext,
        metrics: MetricsWriter | None,
        events: EventWriter | None,
        status: StatusWriter,
    ) -> None:
        """`metrics` and `events` are None in all processes but the first."""
        self.context = context
        self.accelerator = context.accelerator
        self.metrics = metrics
        self.events = events
        self.status = status
        self.pending: list[tuple[int, float, StepOutput]] = []
        self.values: list[tuple[int, str, Tensor]] = []
        self.groups: list[Group] = []  # on their way
        self.written = 0  # all steps up to this one are in metrics.sqlite
        self.sent = time.monotonic()
        self.speed: float | None = None
        self.utilisation = Utilisation(context.device)
        self.energy = EnergyMeter(context.device, status.status.cards)
        self.joules = self._joules_before()  # since the first step; None: not known

    def _joules_before(self) -> float | None:
        """What the steps before the first one of this process have taken."""
        status = self.status.status
        if self.metrics is None or status.processes < self.accelerator.num_processes:
            return None  # other machines take energy too
        if not status.step:
            return 0.0
        curve = read_curve(self.metrics.path, ENERGY, max_points=2)
        known = len(curve["step"]) and curve["step"][-1] == status.step
        return float(curve["value"][-1]) if known else None

    def add(self, step: int, step_output: StepOutput) -> None:
        self.pending.append((step, time.time(), step_output))

    def add_value(self, step: int, name: str, value: Tensor) -> None:
        """A number () on the device of the first process, such as the validation loss."""
        self.values.append((step, name, value))

    def due(self) -> bool:
        return time.monotonic() - self.sent >= FLUSH_SECONDS

    def send(self) -> None:
        """Let what has come together go to the host. With several processes all must call it at
        the same step."""
        if not self.pending:
            return
        steps, times, step_output = (list(column) for column in zip(*self.pending, strict=True))
        now = time.monotonic()
        speed = self.context.config.batch_size * len(steps) / max(now - self.sent, 1e-9)
        self.sent = now
        found = [
            (step, out.update_ratio)
            for step, _, out in self.pending
            if out.update_ratio is not None
        ]
        on_device = {
            "loss": self.accelerator.reduce(torch.stack([s.loss for s in step_output]), "mean"),
            "norm": torch.stack([s.norm for s in step_output]).float(),
            "error": self.accelerator.gather(torch.cat([s.errors for s in step_output])).float(),
            "t": self.accelerator.gather(torch.cat([s.t for s in step_output])),
        }
        if found:
            on_device["ratio"] = torch.stack([ratio for _, ratio in found])
        if self.values:
            on_device["value"] = torch.stack([value for _, _, value in self.values])
        host, arrived = _start_copy(on_device)
        rates = [s.learning_rate for s in step_output]
        values = [(step, name) for step, name, _ in self.values]
        ratios = [step for step, _ in found]
        self.groups.append(Group(steps, times, rates, speed, host, arrived, ratios, values))
        self.pending, self.values = [], []

    def receive(self, wait: bool = False) -> float | None:
        """Write what has arrived, with `wait` all that was sent; returns the newest loss.

        Raises NotFinite in the first process, with nothing of the bad steps written.
        """
        newest = None
        while self.groups and (wait or _is_there(self.groups[0])):
            group = self.groups.pop(0)
            if group.arrived is not None:
                group.arrived.synchronize()
            newest = self._write(group)
        return newest

    def _write(self, group: Group) -> float:
        numbers = {name: tensor.numpy() for name, tensor in group.host.items()}
        loss, norm = numbers["loss"], numbers["norm"]
        good = np.isfinite(loss) & np.isfinite(norm)
        # The first process tells the others.
        if not good.all() and self.accelerator.is_main_process:
            k = int(np.argmin(good))
            raise NotFinite(group.steps[k], "gradient" if np.isfinite(loss[k]) else "loss")
        step, wall = group.steps[-1], group.times[-1]
        device = self.context.device
        memory, busy = memory_in_use(device), self.utilisation()
        measured = {
            "images_per_second": group.speed,
            "memory_bytes": float(memory),
            "peak_memory_bytes": float(peak_memory(device)),
        }
        if busy is not None:
            measured["utilisation"] = busy
        used = self.energy()
        self.joules = None if used is None or self.joules is None else self.joules + used
        if self.joules is not None:
            measured[ENERGY] = self.joules
        self.write(step, measured, wall)
        bins = numbers["t"] * TIMESTEP_BINS // self.context.schedule.timesteps
        error = numbers["error"]
        means = {n: error[bins == k].mean() for k, n in enumerate(BIN_NAMES) if (bins == k).any()}
        self.write(step, means, wall)
        for k, each in enumerate(group.steps):
            values = {"loss": loss[k], "gradient_norm": norm[k], "learning_rate": group.rates[k]}
            self.write(each, values, group.times[k])
        when = dict(zip(group.steps, group.times, strict=True))
        for each, ratio in zip(group.ratios, numbers.get("ratio", ()), strict=True):
            self.write(each, {"update_ratio": ratio}, when[each])
        for (each, name), value in zip(group.values, numbers.get("value", ()), strict=True):
            self.write(each, {name: value}, when.get(each, wall))
        if self.metrics is not None:
            self.metrics.commit()
        self.written = step
        # The time left follows a smoothed speed, so that it does not jump about.
        self.speed = group.speed if self.speed is None else 0.9 * self.speed + 0.1 * group.speed
        left = (self.context.config.steps - step) * self.context.config.batch_size / self.speed
        self.status.update(
            step=step,
            loss=float(loss[-1]),
            images_per_second=round(self.speed, 2),
            eta_seconds=round(max(0.0, left), 1),
            memory_bytes=memory,
        )
        return float(loss[-1])

    def write(self, step: int, values: dict[str, float], wall_time: float) -> None:
        rows = [(step, name, float(value), wall_time) for name, value in values.items()]
        for writer in (self.metrics, self.events):
            if writer is not None:
                writer.add(rows)


def _start_copy(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
    """The same on the CPU; from CUDA they have arrived once the event is done."""
    device = next(iter(tensors.values())).device
    if device.type != "cuda":
        return {name: tensor.cpu() for name, tensor in tensors.items()}, None
    # Only into pinned memory does the copy go on beside the loop.
    host = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        for name, tensor in tensors.items()
    }
    for name, tensor in tensors.items():
        host[name].copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(device))
    return host, arrived


def _is_there(group: Group) -> bool:
    return group.arrived is None or group.arrived.query()
