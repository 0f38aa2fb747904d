"""The noise levels that a sampler walks down: how much image and noise x_t holds at each step.

x_t = alpha x_0 + sigma epsilon. The timestep t is what the network is told; between the schedule's
own timesteps it is a fraction.

Which levels belong to a number of steps is a convention. Ours is the same for every sampler, so
samplers with as many steps evaluate the network at the same levels and can be compared:

- `steps` counts the levels at which the network is evaluated. After the last comes the image
  itself (sigma 0), and the step to it adds no noise.
- Every walk starts at x_T ~ N(0, I), whatever its first level.
- `trailing`, `leading` and `linspace` take whole timesteps (Lin et al. 2024, table 2), for those
  are what the network was trained on. `karras` and `exponential` space sigma / alpha between the
  ends of the schedule, and the network is told the fraction that belongs to it.
- A sampler's record names its usual spacing; `stability.py` finds the levels on which it diverges.

On the same levels and noises our samplers give the images of diffusers. Its schedulers choose other
levels in these cases (tests/core/sampling/test_solvers.py shows each and that nothing else
differs):

- DPM-Solver++ and UniPC make steps + 1 levels of `leading` and `linspace` and leave out t = 0; in
  `karras` and `exponential` they tell the network a timestep rounded or cut to a whole one.
- Euler, Euler ancestral, Heun and LMS do not round `linspace`; their `karras` and `exponential`
  run between the first and last timestep of the spacing that is set beside them; and but for
  `leading` they start from sigma / alpha times the noise where ours is 1 / alpha times.
- DDIM lands T // steps below, also where the next timestep asked is lower (`linspace`; `trailing`
  where steps does not divide T).
- `trailing` can go one step too far, to t = -1, by the rounding of T / steps.
- DDPM with the large variance adds noise in its last step too, unless that starts at t = 0.
- The options `steps_offset` (all timesteps of `leading` higher) and `final_sigmas_type="sigma_min"`
  (the walk ends at the noise of t = 0) have no counterpart here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from diffusion_core.process.schedule import Schedule

TIMESTEP_SPACINGS = ("trailing", "leading", "linspace", "karras", "exponential")
OF_SIGMA = ("karras", "exponential")  # these space sigma / alpha instead of t
LEARNED = "learned"  # the spacing whose timesteps are learned for a checkpoint; see `learned.py`
KARRAS_RHO = 7.0  # Karras et al. 2022, equation 5


@dataclass(frozen=True)
class NoiseLevel:
    t: float  # timestep, whole for the first three spacings
    alpha: float  # factor of the image
    sigma: float  # factor of the noise

    @property
    def ratio(self) -> float:
        """Noise to image, sigma / alpha: the sigma of Karras et al. 2022."""
        return self.sigma / self.alpha if self.alpha else float("inf")

    @property
    def log_snr_half(self) -> float:
        """log(alpha / sigma): the lambda of Lu et al. 2022."""
        return float(np.log(self.alpha) - np.log(self.sigma)) if self.sigma else float("inf")


IMAGE = NoiseLevel(0.0, 1.0, 0.0)  # where every walk ends


def spacings_for(schedule: Schedule) -> tuple[str, ...]:
    """The names of TIMESTEP_SPACINGS that this schedule takes."""
    if schedule.ends_in_noise:
        return tuple(name for name in TIMESTEP_SPACINGS if name not in OF_SIGMA)
    return TIMESTEP_SPACINGS


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


def make_levels(schedule: Schedule, steps: int, spacing: str = "trailing") -> list[NoiseLevel]:
    """The `steps` levels at which the network is evaluated, the noisiest first, and `IMAGE`.

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
        return [*(NoiseLevel(t, alphas[t], sigmas[t]) for t in walk), IMAGE]
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
    # Rounded, for the logarithm of the last, t = 0, is the table's to the last digit but one.
    ts = np.interp(np.log(wanted), np.log(ratios), np.arange(schedule.timesteps)).round(9)
    share = 1 / np.sqrt(1 + wanted**2)  # alpha^2 + sigma^2 = 1; a flow ends in pure noise
    found = zip(ts, share, wanted * share, strict=True)
    return [*(NoiseLevel(float(t), float(a), float(s)) for t, a, s in found), IMAGE]


def learned_levels(schedule: Schedule, timesteps: Sequence[float]) -> list[NoiseLevel]:
    """The levels of falling timesteps, also between two of the schedule's, and `IMAGE`. Raises
    ValueError for timesteps that do not fall, or are beyond the schedule."""
    falling = all(high > low for high, low in pairwise(timesteps))
    last = schedule.timesteps - 1
    if not timesteps or not falling or not 0 <= timesteps[-1] <= timesteps[0] <= last:
        raise ValueError(f"Timesteps must fall, from at most {last:,} to at least 0.")
    return [*(interpolated(schedule, t) for t in timesteps), IMAGE]


def interpolated(schedule: Schedule, t: float) -> NoiseLevel:
    """The level of a timestep that may lie between two of the schedule's.

    alpha and sigma are on the straight line between theirs, scaled to alpha^2 + sigma^2 = 1 but for
    a flow, which itself is such a line. t may be a tensor; the level has gradients then.
    """
    alphas, sigmas = schedule.exact_signal, schedule.exact_spread
    k = min(int(t), schedule.timesteps - 2)
    alpha = float(alphas[k]) + (t - k) * float(alphas[k + 1] - alphas[k])
    sigma = float(sigmas[k]) + (t - k) * float(sigmas[k + 1] - sigmas[k])
    length = 1.0 if schedule.is_flow else (alpha**2 + sigma**2) ** 0.5
    return NoiseLevel(t, alpha / length, sigma / length)


def exact_tables(schedule: Schedule) -> tuple[list[float], list[float]]:
    """alpha and sigma of each timestep in float64: differences of float32 would lose digits."""
    return schedule.exact_signal.tolist(), schedule.exact_spread.tolist()
