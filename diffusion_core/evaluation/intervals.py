"""95 % intervals by half sampling.

A bootstrap draws rows with replacement, which biases values that compare images with images: copies
of an image are each other's nearest neighbours, and the spread of the rows is too small. Half
sampling draws half of the rows without replacement. It is the delete-d jackknife with d = n / 2
(Shao & Wu 1989): the standard deviation of the values of the halves is the standard error of the
value of all rows, with no factor. Only the spread of the halves is used, since their values are
those of a smaller count.

The interval covers the value of other images of the same counts. It does not correct the bias of a
small count (the Fréchet distance of two samples of one distribution is above 0): compare only
values of equal counts. If both sets have the same distribution and the value is near its minimum,
the interval is too wide; it is never much too narrow. Below about 50 images it is rough.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
from pydantic import NonNegativeInt
from threadpoolctl import threadpool_limits

WIDTH = 1.959964  # standard errors on each side of a 95 % interval
REPEATS = 100

Rows = np.ndarray  # of int, which images of a set
Statistic = Callable[[Rows, Rows], Mapping[str, float]]

Given = ParamSpec("Given")
Returned = TypeVar("Returned")
_alone = threading.RLock()


def one_thread(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Decorate a function so that its matrix products run in one thread.

    With many small products, several threads wait for each other longer than they compute, and many
    times as long if other work keeps the cores busy. The limit holds for the whole process and is
    reset afterwards; the lock keeps two functions from resetting each other's.
    """

    @functools.wraps(function)
    def limited(*args: Given.args, **options: Given.kwargs) -> Returned:
        with _alone, threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **options)

    return limited


@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95 % interval."""

    value: float
    low: float
    high: float
    n_real: NonNegativeInt  # real images that it was measured with; 0 if it needs none
    n_fake: NonNegativeInt  # generated ones, likewise


@one_thread
def half_sampling(
    statistic: Statistic,
    n_real: int,
    n_fake: int,
    *,
    seed: int = 0,
    repeats: int = REPEATS,
    shares: Mapping[str, int] | None = None,
) -> dict[str, Estimate]:
    """Estimate all values of a statistic with intervals, from the same `repeats` pairs of halves.

    `statistic(real_rows, fake_rows)` returns the values, 0 or more, of these rows of the two sets,
    by name. `shares`: see `estimates`.
    """
    values = dict(statistic(np.arange(n_real), np.arange(n_fake)))
    halves = [statistic(*rows) for rows in half_samples(n_real, n_fake, seed, repeats)]
    of_halves = {name: np.array([half[name] for half in halves]) for name in values}
    return estimates(values, of_halves, n_real, n_fake, shares)


def half_samples(
    n_real: int, n_fake: int, seed: int = 0, repeats: int = REPEATS
) -> list[tuple[Rows, Rows]]:
    """Draw `repeats` pairs of halves of two sets: rows without repetition, sorted."""
    rng = np.random.default_rng([seed, n_real, n_fake])
    return [(_half(n_real, rng), _half(n_fake, rng)) for _ in range(repeats)]


def estimates(
    values: Mapping[str, float],
    halves: Mapping[str, np.ndarray],
    n_real: int,
    n_fake: int,
    shares: Mapping[str, int] | None = None,
) -> dict[str, Estimate]:
    """Estimates of values of 0 or more, by name, from those of their halves, (repeats,).

    `shares` maps the values that are a share in [0, 1] to the number of images they are a share of:
    their interval stays in [0, 1] and is never narrower than Wilson's for as many independent
    images, which is not empty at 0 and 1.
    """
    found = {}
    for name, value in values.items():
        error = np.std(halves[name], ddof=1)
        low, high = max(0.0, value - WIDTH * error), value + WIDTH * error
        if shares and name in shares:
            least, most = wilson(value, shares[name])
            low, high = min(low, least), min(1.0, max(high, most))
        found[name] = Estimate(float(value), float(low), float(high), n_real, n_fake)
    return found


def mean_estimate(values: np.ndarray) -> Estimate:
    """Mean of one value per real image, which may be negative, by the central limit theorem.

    (Half sampling gives the same standard error for a mean.) The interval of one image is infinite.
    """
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.inf
    mean = float(values.mean())
    return Estimate(mean, mean - WIDTH * error, mean + WIDTH * error, len(values), 0)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n independent cases."""
    square = WIDTH**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = WIDTH / (1 + square / n) * (share * (1 - share) / n + square / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _half(n: int, rng: np.random.Generator) -> Rows:
    """Half of the rows, rounded up, sorted."""
    return np.sort(rng.permutation(n)[: (n + 1) // 2])
