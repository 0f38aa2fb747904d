"""Noise schedules: how much image and how much noise is left at each timestep.

The tables of `tables.py` as float32 tensors of shape (timesteps,), and the forward process.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diffusion_core.process.tables import Points, ScheduleTables


class Schedule:
    """A forward process x_t = signal[t] x_0 + spread[t] epsilon over `timesteps` timesteps.

    Float32 tensors of shape (timesteps,): `signal`, `spread` and `snr`, their ratio squared.
    `exact_signal` and `exact_spread` are the first two as float64 arrays: samplers form differences
    of them, for which float32 has too few digits near t = 0. Raises ValueError for fewer than 2
    timesteps.
    """

    is_flow = False  # whether x_t lies on a straight line between image and noise
    _tables: tuple[str, ...] = ("signal", "spread", "snr")
    signal: Tensor
    spread: Tensor
    snr: Tensor
    exact_signal: np.ndarray
    exact_spread: np.ndarray

    def __init__(self, timesteps: int) -> None:
        if timesteps < 2:
            raise ValueError(f"A schedule needs at least 2 timesteps, not {timesteps}.")
        self.timesteps = timesteps

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the image is left at the last timestep."""
        return bool(self.exact_signal[-1] <= 0)

    def to(self, device: torch.device | str) -> Self:
        """Move the tables to `device`, in place; returns self."""
        for name in self._tables:
            setattr(self, name, getattr(self, name).to(device))
        return self

    def add_noise(
        self, x_0: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The forward process in closed form (Ho et al. 2020, equation 4).

        `x_0` is (B, C, H, W) in [-1, 1], `t` is (B,) integers in [0, timesteps). Returns
        (x_t, noise), both (B, C, H, W); `noise` is drawn from N(0, I) where none is given.
        """
        if noise is None:
            noise = torch.randn_like(x_0)
        signal, spread = gather(self.signal, t, x_0.ndim), gather(self.spread, t, x_0.ndim)
        return signal * x_0 + spread * noise, noise


class NoiseSchedule(Schedule):
    """The lecture's eight constants for a schedule, and the closed-form forward process.

    Further attributes, float32 tensors of shape (timesteps,): those of `ScheduleTables`, whose
    arguments it takes and whose errors it raises. `sqrt_alphas_cumprod` is the `signal` and
    `sqrt_one_minus_alphas_cumprod` the `spread`.
    """

    TABLES = ScheduleTables.TABLES
    _tables = (*TABLES, "log_snr", *Schedule._tables)

    betas: Tensor
    alphas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_recip_alphas: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    posterior_variance: Tensor
    log_snr: Tensor

    def __init__(
        self,
        kind: str = "linear",
        timesteps: int = 300,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        rescale_zero_terminal_snr: bool = False,
        *,
        points: Points = (),
        shift_size: int = 0,
    ) -> None:
        super().__init__(timesteps)
        exact = ScheduleTables(
            kind,
            timesteps,
            beta_start,
            beta_end,
            rescale_zero_terminal_snr,
            points=points,
            shift_size=shift_size,
        )
        self.exact = exact
        self.kind = exact.kind
        self.beta_start, self.beta_end = exact.beta_start, exact.beta_end
        self.rescale_zero_terminal_snr = exact.rescale_zero_terminal_snr
        for name in (*self.TABLES, "snr", "log_snr"):
            setattr(self, name, torch.from_numpy(getattr(exact, name)).float())
        self.signal, self.spread = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        self.exact_alphas_cumprod = exact.alphas_cumprod
        self.exact_signal = exact.sqrt_alphas_cumprod
        self.exact_spread = exact.sqrt_one_minus_alphas_cumprod

    def settings(self) -> dict[str, Any]:
        """The arguments that make this schedule again: `NoiseSchedule(**schedule.settings())`."""
        return self.exact.settings()


def gather(table: Tensor, t: Tensor, ndim: int = 4) -> Tensor:
    """Pick `table[t]` for each image and shape it (B, 1, 1, 1) so that it broadcasts."""
    return table.to(t.device)[t].reshape(-1, *[1] * (ndim - 1))
