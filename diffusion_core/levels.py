"""The noise levels that a sampler walks down: how much picture and noise is in x_t at each step.

x_t = alpha x_0 + sigma epsilon. The timestep t is what the network is told; between the schedule's
own timesteps it is a fraction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_core.diffusion import Schedule
from diffusion_core.flow import FlowSchedule

TIMESTEP_SPACINGS = ("trailing", "leading", "linspace", "karras", "exponential")
OF_SIGMA = ("karras", "exponential")  # these space sigma / alpha and not t
KARRAS_RHO = 7.0  # Karras et al. 2022, equation 5


@dataclass(frozen=True)
class Level:
    t: float  # timestep, whole for the first three spacings
    alpha: float  # share of the picture
    sigma: float  # share of the noise

    @property
    def ratio(self) -> float:
        """Noise to picture, sigma / alpha: the sigma of Karras et al. 2022."""
        return self.sigma / self.alpha if self.alpha else float("inf")

    @property
    def log_snr_half(self) -> float:
        """log(alpha / sigma): the lambda of Lu et al. 2022."""
        return float(np.log(self.alpha) - np.log(self.sigma)) if self.sigma else float("inf")


PICTURE = Level(0.0, 1.0, 0.0)  # where every walk ends


def spaced_timesteps(timesteps: int, steps: int, spacing: str = "trailing") -> list[int]:
    """`steps` of the `timesteps` in falling order (Lin et al. 2024, table 2).

    `trailing` starts at the last timestep, `leading` ends at 0, `linspace` does both. Raises
    ValueError where steps is not in [1, timesteps].
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must lie between 1 and {timesteps}, not {steps}.")
    if spacing == "trailing":
        found = np.round(np.arange(timesteps, 0, -timesteps / steps))[:steps] - 1
    elif spacing == "leading":
        found = np.arange(steps)[::-1] * (timesteps // steps)
    else:
        found = np.linspace(0, timesteps - 1, steps).round()[::-1]
    return [int(t) for t in found]


def make_levels(schedule: Schedule, steps: int, spacing: str = "trailing") -> list[Level]:
    """The `steps` levels at which the network is asked, the noisiest first, and `PICTURE`.

    `karras` and `exponential` space sigma / alpha between the schedule's ends by Karras et al.
    2022, equation 5, and evenly in its logarithm; the timestep between two of the schedule's is
    found by the logarithm of sigma / alpha. Raises ValueError for an unknown spacing or number of
    steps, and for these two where the schedule ends in pure noise.
    """
    if spacing not in TIMESTEP_SPACINGS:
        raise ValueError(
            f"Unknown timestep spacing {spacing!r}; choose one of {', '.join(TIMESTEP_SPACINGS)}."
        )
    alphas, sigmas = exact_tables(schedule)
    if spacing not in OF_SIGMA:
        walk = spaced_timesteps(schedule.timesteps, steps, spacing)
        return [*(Level(t, alphas[t], sigmas[t]) for t in walk), PICTURE]
    if not 1 <= steps <= schedule.timesteps:
        raise ValueError(f"steps must lie between 1 and {schedule.timesteps}, not {steps}.")
    if alphas[-1] <= 0:
        raise ValueError(f"{spacing} spacing needs a schedule that does not end in pure noise.")
    ratios = np.array(sigmas) / np.array(alphas)
    ramp = np.linspace(0, 1, steps)
    low, high = ratios[0], ratios[-1]
    if spacing == "karras":
        root = 1 / KARRAS_RHO
        wanted = (high**root + ramp * (low**root - high**root)) ** KARRAS_RHO
    else:
        wanted = np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    ts = np.interp(np.log(wanted), np.log(ratios), np.arange(schedule.timesteps))
    share = 1 / np.sqrt(1 + wanted**2)  # alpha^2 + sigma^2 = 1; a flow ends in pure noise
    found = zip(ts, share, wanted * share, strict=True)
    return [*(Level(float(t), float(a), float(s)) for t, a, s in found), PICTURE]


def exact_tables(schedule: Schedule) -> tuple[list[float], list[float]]:
    """alpha and sigma of each timestep in float64: differences of float32 would lose digits."""
    if isinstance(schedule, FlowSchedule):
        sigma = np.arange(1, schedule.timesteps + 1) / schedule.timesteps
        return (1 - sigma).tolist(), sigma.tolist()
    bar = schedule.exact_alphas_cumprod
    return np.sqrt(bar).tolist(), np.sqrt(1 - bar).tolist()
