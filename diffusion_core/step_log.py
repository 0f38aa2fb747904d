"""The numbers of the training steps on their way from the device to `metrics.sqlite`.

They stay on the device and are fetched in groups, so that no step waits for a number.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from diffusion_core.config import RunConfig
from diffusion_core.device import memory_in_use
from diffusion_core.metrics import BIN_NAMES, TIMESTEP_BINS, MetricsWriter
from diffusion_core.status import RunStatus

FLUSH_SECONDS = 1.0


class NotFinite(RuntimeError):
    """The loss became NaN or infinite; the message names the step and what to do."""


class StepLog:
    """Collects what the steps return and writes it in groups, about once a second."""

    def __init__(
        self,
        config: RunConfig,
        accelerator: Accelerator,
        timesteps: int,
        metrics: MetricsWriter | None,
        status: RunStatus,
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.timesteps = timesteps
        self.metrics = metrics  # None in all processes but the first
        self.status = status
        self.pending: list[tuple[int, Tensor, Tensor, Tensor, Tensor, float, float]] = []
        self.flushed = time.monotonic()
        self.speed: float | None = None

    def add(
        self, step: int, loss: Tensor, errors: Tensor, t: Tensor, norm: Tensor, rate: float
    ) -> None:
        """The objective (), the plain error of each picture (B,), their timesteps (B,), the
        gradient norm (), all on the device; the learning rate."""
        self.pending.append((step, loss, errors, t, norm, rate, time.time()))

    def due(self, step: int) -> bool:
        """Asked after each step. With several processes all must flush at the same step, so
        they count steps where a single one looks at the clock."""
        if self.accelerator.num_processes > 1:
            return step % 10 == 0
        return time.monotonic() - self.flushed >= FLUSH_SECONDS

    def flush(self) -> float | None:
        """Fetch and write what has come together; returns the newest loss.

        Raises NotFinite, with nothing of the bad steps written.
        """
        if not self.pending:
            return None
        steps, losses, errors, ts, norms, rates, times = zip(*self.pending, strict=True)
        self.pending = []
        loss = self.accelerator.reduce(torch.stack(losses), "mean").cpu().numpy()
        norm = torch.stack(norms).float().cpu().numpy()
        error = self.accelerator.gather(torch.cat(errors)).float().cpu().numpy()
        t = self.accelerator.gather(torch.cat(ts)).cpu().numpy()
        now = time.monotonic()
        speed = self.config.batch_size * len(steps) / max(now - self.flushed, 1e-9)
        self.flushed = now
        if not np.isfinite(loss).all():
            bad = steps[int(np.argmin(np.isfinite(loss)))]
            raise NotFinite(
                f"The loss of step {bad} is not a number. Start again with a lower learning rate "
                f"than {self.config.learning_rate:g} or with gradient clipping; the checkpoints "
                f"before it are intact."
            )
        step, wall = steps[-1], times[-1]
        memory = memory_in_use(self.accelerator.device)
        self.write(step, {"images_per_second": speed, "memory_bytes": float(memory)}, wall)
        bins = t * TIMESTEP_BINS // self.timesteps
        means = {n: error[bins == k].mean() for k, n in enumerate(BIN_NAMES) if (bins == k).any()}
        self.write(step, means, wall)
        for k, each in enumerate(steps):
            values = {"loss": loss[k], "gradient_norm": norm[k], "learning_rate": rates[k]}
            self.write(each, values, times[k])
        # The time left follows a smoothed speed, so that it does not jump about.
        self.speed = speed if self.speed is None else 0.9 * self.speed + 0.1 * speed
        left = (self.config.steps - step) * self.config.batch_size / self.speed
        self.status.update(
            step=step,
            loss=float(loss[-1]),
            images_per_second=round(self.speed, 2),
            eta_seconds=round(left, 1),
            memory_bytes=memory,
        )
        return float(loss[-1])

    def write(self, step: int, values: dict[str, float], wall_time: float | None = None) -> None:
        if self.metrics is not None:
            wall = wall_time or time.time()
            self.metrics.add((step, name, float(value), wall) for name, value in values.items())

    def restart_clock(self) -> None:
        """After work that is not training, so that it does not count into images per second."""
        self.flushed = time.monotonic()
