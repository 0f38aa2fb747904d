"""Is it enough? The quality at the last step, from the evaluations so far.

The curve is taken for a power law, value = a + b (step / first)^-c with a ≥ 0 and c > 0, as losses
follow it in training (Kaplan et al. 2020, arXiv:2001.08361; extrapolated from the first part of a
curve as in Domhan et al. 2015, IJCAI). For each exponent c of a grid the rest is a linear
regression, so its posterior is Student's t in closed form; the forecast is their mixture, each by
its marginal likelihood with a flat prior.

How good such forecasts are is not taken on trust: `record_of` makes them for runs that are over,
at the same part of their steps, and compares them with what came true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from diffusion_core.runs.metrics import COMPARED_BY, HIGH, LOW, QUALITY, MetricsError
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import RunState

FEWEST = 4  # evaluations: one more than the law has numbers
EXPONENTS = 0.05, 4.0  # the ends of the grid; its logarithms are evenly spread
GRID, ZOOMS = 80, 8  # the grid is made again where an exact curve leaves few of its exponents
LEVEL = 0.95
DRAWS = 4000


@dataclass(frozen=True)
class Forecast:
    """The value that is expected at a step, with its 95 % interval."""

    step: int
    value: float  # the median
    low: float
    high: float


@dataclass(frozen=True)
class Record:
    """How forecasts did on runs that are over."""

    runs: int
    inside: int  # of how many the last value lay in the interval
    error: float  # the median of |forecast - value| / value


def forecast(
    steps: np.ndarray, values: np.ndarray, at: int, *, noise: np.ndarray | None = None
) -> Forecast | None:
    """What a curve will be at the step `at`; None with fewer than FEWEST evaluations.

    `noise`: the standard error of each value, which weighs it; None: the same for all. The interval
    is that of an evaluation at that step, whose own error is like those so far.
    """
    usable = (steps > 0) & np.isfinite(values)
    x, y = steps[usable].astype(float), values[usable]
    if len(x) < FEWEST or at <= 0:
        return None
    weight = np.ones(len(x))
    if noise is not None and np.all(noise[usable] > 0):
        weight = 1 / noise[usable]
        weight /= np.sqrt(np.mean(weight**2))
    ends = EXPONENTS
    for _ in range(ZOOMS):
        exponents = np.geomspace(*ends, GRID)
        laws = [_fit(x, y, weight, exponent, at) for exponent in exponents]
        likely = np.array([law[0] for law in laws])
        shares = np.exp(likely - likely.max())
        shares /= shares.sum()
        [seen] = np.nonzero(shares > 1e-6)
        if len(seen) > GRID // 2:
            break
        ends = exponents[max(seen[0] - 1, 0)], exponents[min(seen[-1] + 1, GRID - 1)]
    draws = np.maximum(_mixture(laws, shares, len(x) - 2), 0)  # a distance
    low, value, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Forecast(at, float(value), float(low), float(high))


def _fit(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, exponent: float, at: int
) -> tuple[float, float, float]:
    """Log marginal likelihood of an exponent, and the mean and spread of its forecast."""
    first = x[0]
    design = np.stack([np.ones_like(x), (x / first) ** -exponent], axis=1)
    weighted, target = design * weight[:, None], y * weight
    a, b = np.linalg.lstsq(weighted, target, rcond=None)[0]
    if a < 0:  # a distance does not fall below 0: without the constant
        a, b = 0.0, weighted[:, 1] @ target / (weighted[:, 1] @ weighted[:, 1])
    gram = weighted.T @ weighted
    left = target - weighted @ np.array([a, b])
    free = len(x) - 2
    # What rounding leaves of an exact curve is not noise of its own.
    variance = max(left @ left, 1e-24 * (target @ target)) / free
    likely = -0.5 * free * np.log(variance) - 0.5 * np.linalg.slogdet(gram)[1]
    place = np.array([1.0, (at / first) ** -exponent])
    spread = np.sqrt(variance * (1 + place @ np.linalg.solve(gram, place)))
    return float(likely), float(place @ np.array([a, b])), float(spread)


def _mixture(laws: list[tuple[float, float, float]], shares: np.ndarray, free: int) -> np.ndarray:
    """Evenly spread quantiles of each law's Student's t, as many as its share."""
    from scipy.special import stdtrit  # not before it is used: it takes 30 MB

    counts = np.floor(np.cumsum(shares) * DRAWS + 0.5).astype(int)
    counts = np.diff(counts, prepend=0)
    parts = [
        mean + spread * stdtrit(free, (np.arange(count) + 0.5) / count)
        for (_, mean, spread), count in zip(laws, counts, strict=True)
        if count
    ]
    return np.concatenate(parts)


def forecast_of(run: RunSnapshot, upto: int | None = None) -> Forecast | None:
    """The forecast of a run's quality at its last step, from the evaluations up to a step.

    None where there are too few. Raises MetricsError.
    """
    if run.config is None:
        return None
    steps, values, noise = _curve(run)
    kept = steps <= (run.status.step if upto is None else upto)
    return forecast(steps[kept], values[kept], run.config.steps, noise=noise[kept])


def evaluated(run: RunSnapshot) -> int:
    """How many evaluations a forecast has to go by. Raises MetricsError."""
    return len(_curve(run)[0])


def record_of(runs: Iterable[RunSnapshot], part: float) -> Record:
    """How forecasts from the first `part` of the steps did on the runs that are finished.

    A run counts where it was evaluated at its last step.
    """
    errors, inside = list[float](), 0
    for run in runs:
        if run.state != RunState.FINISHED or run.config is None:
            continue
        try:
            steps, values, _ = _curve(run)
            made = forecast_of(run, round(part * run.config.steps))
        except MetricsError:
            continue
        if made is None or steps[-1] != run.config.steps or made.step <= part * run.config.steps:
            continue
        true = values[-1]
        inside += bool(made.low <= true <= made.high)
        errors.append(abs(made.value - true) / true if true else float(made.value > 0))
    return Record(len(errors), inside, float(np.median(errors)) if errors else 0.0)


def _curve(run: RunSnapshot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, values and standard errors of the quality that was measured in training."""
    name = QUALITY[run.run.compared_by() or COMPARED_BY[0]]
    value, low, high = (run.run.curve(name + end) for end in ("", LOW, HIGH))
    steps = value["step"]
    ends = [dict(zip(end["step"], end["value"], strict=True)) for end in (low, high)]
    half = np.array([ends[1].get(step, 0.0) - ends[0].get(step, 0.0) for step in steps]) / 2
    return steps, value["value"], half / NormalDist().inv_cdf((1 + LEVEL) / 2)
