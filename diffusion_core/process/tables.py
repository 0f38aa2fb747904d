"""The tables of noise schedules in NumPy: how much image and how much noise each timestep has.

All float64, computed once. `schedule.py` makes of them what training and sampling use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

MOST_TIMESTEPS = 100_000  # of a run's schedule
DESIGNED = "designed"  # the kind that goes through given points
REFERENCE_SIZE = 64  # pixels: an image of this size needs no shift

# Time, from 0 at the first timestep to 1 at the last, and log-SNR there.
Points: TypeAlias = Sequence[Sequence[float]]
MOST_POINTS = 16
HIGHEST_LOG_SNR = 15.0  # beyond, float64 tells neighbouring timesteps no longer apart
LEAST_TIME, LEAST_DROP = 0.005, 0.01  # from a point to the next
USUAL_POINTS = ((0.0, 10.0), (0.25, 4.0), (0.5, 0.0), (0.75, -3.0), (1.0, -7.0))


@dataclass(frozen=True)
class ScheduleKind:
    """A kind of noise schedule; `name` is used in settings and links."""

    name: str
    title: str
    # (timesteps, beta_start, beta_end, points): the variances beta_t, float64 (timesteps,) in
    # (0, 1).
    betas: Callable[[int, float, float, Points], np.ndarray]
    diffusers: str | None = None  # its name, where all of diffusers' schedulers know it
    takes_betas: bool = True  # whether it uses `beta_start` and `beta_end`


def _linear(timesteps: int, beta_start: float, beta_end: float, points: Points) -> np.ndarray:
    """From `beta_start` to `beta_end` (Ho et al. 2020, section 4)."""
    return np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)


def _scaled_linear(
    timesteps: int, beta_start: float, beta_end: float, points: Points
) -> np.ndarray:
    """Linear in sqrt(beta) (Rombach et al. 2022)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=np.float64) ** 2


def _cosine(timesteps: int, beta_start: float, beta_end: float, points: Points) -> np.ndarray:
    """alphas_cumprod is a squared cosine, betas capped at 0.999 (Nichol & Dhariwal 2021,
    equation 17)."""
    s = 0.008
    time = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    alpha_bar = np.cos((time + s) / (1 + s) * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def _sigmoid(timesteps: int, beta_start: float, beta_end: float, points: Points) -> np.ndarray:
    """A sigmoid over [-6, 6] scaled to `beta_start` ... `beta_end` (Xu et al. 2022)."""
    ramp = 1 / (1 + np.exp(-np.linspace(-6, 6, timesteps, dtype=np.float64)))
    return beta_start + ramp * (beta_end - beta_start)


def _designed(timesteps: int, beta_start: float, beta_end: float, points: Points) -> np.ndarray:
    """The log-SNR goes through `points`; see `interpolate`. Raises ValueError."""
    check_points(points)
    log_snr = interpolate(points, np.linspace(0, 1, timesteps))
    betas = _betas_of(1 / (1 + np.exp(-log_snr)))
    if not betas.min() > 0:
        raise ValueError("Two timesteps are the same; use fewer timesteps or steeper points.")
    return betas


# To add a schedule, write its function and a record here.
SCHEDULE_KINDS = {
    kind.name: kind
    for kind in (
        ScheduleKind("linear", "linear", _linear, "linear"),
        ScheduleKind("scaled_linear", "scaled linear", _scaled_linear, "scaled_linear"),
        ScheduleKind("cosine", "cosine", _cosine, "squaredcos_cap_v2", takes_betas=False),
        ScheduleKind("sigmoid", "sigmoid", _sigmoid),
        ScheduleKind(DESIGNED, "designed", _designed, takes_betas=False),
    )
}


def make_betas(
    kind: str,
    timesteps: int,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    points: Points = USUAL_POINTS,
) -> np.ndarray:
    """The variances beta_t, float64, shape (timesteps,), each in (0, 1). Raises ValueError for an
    unknown kind, and for points that `check_points` refuses."""
    if kind not in SCHEDULE_KINDS:
        raise ValueError(f"Unknown schedule {kind!r}; choose one of {', '.join(SCHEDULE_KINDS)}.")
    return SCHEDULE_KINDS[kind].betas(timesteps, beta_start, beta_end, points)


def check_points(points: Points) -> None:
    """Raises ValueError where a schedule cannot go through the points."""
    if not 2 <= len(points) <= MOST_POINTS:
        raise ValueError(f"A schedule needs 2 to {MOST_POINTS} points, not {len(points)}.")
    if any(len(point) != 2 or not all(map(math.isfinite, point)) for point in points):
        raise ValueError("Each point is a time from 0 to 1 and a log-SNR.")
    times, values = np.array(points, dtype=np.float64).T
    if times[0] != 0 or times[-1] != 1:
        raise ValueError("The first point is at time 0 and the last at time 1.")
    if np.abs(values).max() > HIGHEST_LOG_SNR:
        high = f"{HIGHEST_LOG_SNR:g}"
        raise ValueError(f"The log-SNR of a point is from −{high} to {high}.")
    # A rounding may make a gap a little smaller than the one that was drawn.
    if np.diff(times).min() < LEAST_TIME * (1 - 1e-9):
        raise ValueError(f"Each point is at least {LEAST_TIME:g} later than the one before.")
    if -np.diff(values).max() < LEAST_DROP * (1 - 1e-9):
        raise ValueError(
            f"The log-SNR falls from point to point, by at least {LEAST_DROP:g} each time."
        )


def interpolate(points: Points, time: np.ndarray) -> np.ndarray:
    """Cubics through the points that are monotone where the points are (Fritsch & Carlson 1980,
    with the derivatives of Fritsch & Butland 1984, as SciPy's PchipInterpolator); float64."""
    x, y = np.array(points, dtype=np.float64).T
    h = np.diff(x)
    slope = np.diff(y) / h
    before, after = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    # Of a slope of 0 on either side the harmonic mean is 0.
    with np.errstate(divide="ignore"):
        inner = (before + after) / (before / slope[:-1] + after / slope[1:])
    inner = np.where(slope[:-1] * slope[1:] > 0, inner, 0.0)
    if len(slope) == 1:
        steepness = np.repeat(slope, 2)
    else:
        ends = [_end(h[0], h[1], slope[0], slope[1]), _end(h[-1], h[-2], slope[-1], slope[-2])]
        steepness = np.concatenate([ends[:1], inner, ends[1:]])
    at = np.clip(np.searchsorted(x, time, side="right") - 1, 0, len(h) - 1)
    u = (time - x[at]) / h[at]
    return (
        (1 + 2 * u) * (1 - u) ** 2 * y[at]
        + u * (1 - u) ** 2 * h[at] * steepness[at]
        + u**2 * (3 - 2 * u) * y[at + 1]
        + u**2 * (u - 1) * h[at] * steepness[at + 1]
    )


def _end(h: float, next_h: float, slope: float, next_slope: float) -> float:
    """The derivative at the first or last point: of the parabola through three points, as long as
    that is monotone."""
    found = ((2 * h + next_h) * slope - h * next_slope) / (h + next_h)
    if found * slope <= 0:
        return 0.0
    if slope * next_slope <= 0 and abs(found) > 3 * abs(slope):
        return 3 * slope
    return found


def rescale_to_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Shift and scale sqrt(alphas_cumprod) so that the last timestep is pure noise.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    Takes and returns float64 of shape (timesteps,); the last beta becomes exactly 1.
    """
    sqrt_bar = np.sqrt(np.cumprod(1 - betas))
    first, last = sqrt_bar[0], sqrt_bar[-1]
    return _betas_of(((sqrt_bar - last) * first / (first - last)) ** 2)


def shift_for_size(betas: np.ndarray, size: int) -> np.ndarray:
    """Add 2 log(64 / size) to the log-SNR, so that an image of `size` pixels a side loses its large
    forms at the same timesteps as one of 64.

    Hoogeboom et al. 2023, "simple diffusion", equation 6. Takes and returns float64 of shape
    (timesteps,).
    """
    bar = np.cumprod(1 - betas)
    signal = bar * (REFERENCE_SIZE / size) ** 2
    return _betas_of(signal / (signal + 1 - bar))


def _betas_of(alphas_cumprod: np.ndarray) -> np.ndarray:
    """The betas whose products of 1 - beta are given; float64 (timesteps,)."""
    alphas = np.concatenate([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
    return 1 - alphas


class ScheduleTables:
    """The lecture's eight constants for a schedule: float64 arrays of shape (timesteps,).

    `betas`, `alphas`, `alphas_cumprod`, `alphas_cumprod_prev` (shifted right by one, first entry
    1), `sqrt_recip_alphas`, `sqrt_alphas_cumprod`, `sqrt_one_minus_alphas_cumprod` and
    `posterior_variance`; further `snr` and its natural logarithm `log_snr`. With
    `rescale_zero_terminal_snr` the last `sqrt_recip_alphas` is infinite and the last `log_snr`
    minus infinity, as the definitions say. `points`: of the kind "designed". `shift_size`: see
    `shift_for_size`; 0 shifts nothing.

    Raises ValueError for an unknown kind, fewer than 2 timesteps, betas outside (0, 1), or points
    that no schedule goes through.
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

    betas: np.ndarray
    alphas: np.ndarray
    alphas_cumprod: np.ndarray
    alphas_cumprod_prev: np.ndarray
    sqrt_recip_alphas: np.ndarray
    sqrt_alphas_cumprod: np.ndarray
    sqrt_one_minus_alphas_cumprod: np.ndarray
    posterior_variance: np.ndarray
    snr: np.ndarray
    log_snr: np.ndarray

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
        if timesteps < 2:
            raise ValueError(f"A schedule needs at least 2 timesteps, not {timesteps}.")
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f"beta_start and beta_end must satisfy 0 < beta_start <= beta_end < 1, "
                f"not {beta_start} and {beta_end}."
            )
        self.kind = kind
        self.timesteps = timesteps
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.rescale_zero_terminal_snr = rescale_zero_terminal_snr
        self.points = tuple(tuple(map(float, point)) for point in points)
        self.shift_size = shift_size

        betas = make_betas(kind, timesteps, beta_start, beta_end, self.points or USUAL_POINTS)
        if rescale_zero_terminal_snr:
            betas = rescale_to_zero_terminal_snr(betas)
        if shift_size:
            betas = shift_for_size(betas, shift_size)
        alphas = 1 - betas
        bar = np.cumprod(alphas)
        bar_prev = np.concatenate([[1.0], bar[:-1]])
        self.betas, self.alphas = betas, alphas
        self.alphas_cumprod, self.alphas_cumprod_prev = bar, bar_prev
        self.sqrt_alphas_cumprod = np.sqrt(bar)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1 - bar)
        self.posterior_variance = betas * (1 - bar_prev) / (1 - bar)
        with np.errstate(divide="ignore"):
            self.sqrt_recip_alphas = np.sqrt(1 / alphas)
            self.snr = bar / (1 - bar)
            self.log_snr = np.log(bar) - np.log1p(-bar)

    def settings(self) -> dict[str, Any]:
        """The arguments that make this schedule again."""
        settings: dict[str, Any] = {
            "kind": self.kind,
            "timesteps": self.timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "rescale_zero_terminal_snr": self.rescale_zero_terminal_snr,
        }
        if self.points:
            settings["points"] = self.points
        if self.shift_size:
            settings["shift_size"] = self.shift_size
        return settings
