"""Noise schedules: how much image and how much noise is left at each timestep.

Everything is computed once in float64 and kept as float32 tables of shape (timesteps,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

MOST_TIMESTEPS = 100_000  # of a run's schedule


@dataclass(frozen=True)
class ScheduleKind:
    """A kind of noise schedule; `name` is used in settings and links."""

    name: str
    title: str
    # (timesteps, beta_start, beta_end): the variances beta_t, float64 (timesteps,) in (0, 1).
    betas: Callable[[int, float, float], np.ndarray]
    diffusers: str | None = None  # its name, where all of diffusers' schedulers know it
    takes_betas: bool = True  # whether it uses `beta_start` and `beta_end`


def _linear(timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """From `beta_start` to `beta_end` (Ho et al. 2020, section 4)."""
    return np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)


def _scaled_linear(timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """Linear in sqrt(beta) (Rombach et al. 2022)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=np.float64) ** 2


def _cosine(timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """alphas_cumprod is a squared cosine, betas capped at 0.999 (Nichol & Dhariwal 2021,
    equation 17). `beta_start` and `beta_end` are not used."""
    s = 0.008
    time = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    alpha_bar = np.cos((time + s) / (1 + s) * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def _sigmoid(timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """A sigmoid over [-6, 6] scaled to `beta_start` ... `beta_end` (Xu et al. 2022)."""
    ramp = 1 / (1 + np.exp(-np.linspace(-6, 6, timesteps, dtype=np.float64)))
    return beta_start + ramp * (beta_end - beta_start)


# To add a schedule, write its function and a record here.
SCHEDULE_KINDS = {
    kind.name: kind
    for kind in (
        ScheduleKind("linear", "linear", _linear, "linear"),
        ScheduleKind("scaled_linear", "scaled linear", _scaled_linear, "scaled_linear"),
        ScheduleKind("cosine", "cosine", _cosine, "squaredcos_cap_v2", takes_betas=False),
        ScheduleKind("sigmoid", "sigmoid", _sigmoid),
    )
}


def make_betas(
    kind: str, timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02
) -> np.ndarray:
    """The variances beta_t, float64, shape (timesteps,), each in (0, 1). Raises ValueError for an
    unknown kind."""
    if kind not in SCHEDULE_KINDS:
        raise ValueError(f"Unknown schedule {kind!r}; choose one of {', '.join(SCHEDULE_KINDS)}.")
    return SCHEDULE_KINDS[kind].betas(timesteps, beta_start, beta_end)


def rescale_to_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Shift and scale sqrt(alphas_cumprod) so that the last timestep is pure noise.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    Takes and returns float64 of shape (timesteps,); the last beta becomes exactly 1.
    """
    sqrt_bar = np.sqrt(np.cumprod(1 - betas))
    first, last = sqrt_bar[0], sqrt_bar[-1]
    alpha_bar = ((sqrt_bar - last) * first / (first - last)) ** 2
    alphas = np.concatenate([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
    return 1 - alphas


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

    Further attributes, float32 tensors of shape (timesteps,): `betas`, `alphas`, `alphas_cumprod`,
    `alphas_cumprod_prev` (shifted right by one, first entry 1), `sqrt_recip_alphas`,
    `sqrt_alphas_cumprod` (the `signal`), `sqrt_one_minus_alphas_cumprod` (the `spread`),
    `posterior_variance`; further `log_snr`, the natural logarithm of `snr`. With
    `rescale_zero_terminal_snr` the last `sqrt_recip_alphas` is infinite and the last `log_snr`
    minus infinity, as the definitions say.

    Raises ValueError for an unknown kind, fewer than 2 timesteps, or betas outside (0, 1).
    """

    TABLES = (
        "betas",
        "alphas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_recip_alphas",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "posterior_variance",
    )
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
    ) -> None:
        super().__init__(timesteps)
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f"beta_start and beta_end must satisfy 0 < beta_start <= beta_end < 1, "
                f"not {beta_start} and {beta_end}."
            )
        self.kind = kind
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.rescale_zero_terminal_snr = rescale_zero_terminal_snr

        betas = make_betas(kind, timesteps, beta_start, beta_end)
        if rescale_zero_terminal_snr:
            betas = rescale_to_zero_terminal_snr(betas)
        alphas = 1 - betas
        bar = np.cumprod(alphas)
        bar_prev = np.concatenate([[1.0], bar[:-1]])
        with np.errstate(divide="ignore"):
            exact = {
                "betas": betas,
                "alphas": alphas,
                "alphas_cumprod": bar,
                "alphas_cumprod_prev": bar_prev,
                "sqrt_recip_alphas": np.sqrt(1 / alphas),
                "sqrt_alphas_cumprod": np.sqrt(bar),
                "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - bar),
                "posterior_variance": betas * (1 - bar_prev) / (1 - bar),
                "snr": bar / (1 - bar),
                "log_snr": np.log(bar) - np.log1p(-bar),
            }
        for name, table in exact.items():
            setattr(self, name, torch.from_numpy(table).float())
        self.signal, self.spread = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        self.exact_alphas_cumprod = bar
        self.exact_signal, self.exact_spread = np.sqrt(bar), np.sqrt(1 - bar)

    def settings(self) -> dict[str, str | int | float | bool]:
        """The arguments that make this schedule again: `NoiseSchedule(**schedule.settings())`."""
        return {
            "kind": self.kind,
            "timesteps": self.timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "rescale_zero_terminal_snr": self.rescale_zero_terminal_snr,
        }


def gather(table: Tensor, t: Tensor, ndim: int = 4) -> Tensor:
    """Pick `table[t]` for each image and shape it (B, 1, 1, 1) so that it broadcasts."""
    return table.to(t.device)[t].reshape(-1, *[1] * (ndim - 1))
