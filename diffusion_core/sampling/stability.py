"""Whether a sampler diverges on some noise levels: found from the levels, without a network.

As numerical analysis does it, on an equation whose solution is known. Where an image's values are
independent and from N(0, s^2), x_t is from N(0, s^2 alpha^2 + sigma^2), and the ideal prediction is
x_0 = s^2 alpha / (s^2 alpha^2 + sigma^2) x_t, which leaves noise of at most size 1. A sampler that
walks with this prediction and finds larger noise diverges. The values of images are not
independent, but their principal components are, nearly, each with an s of its own: much for the
brightness of the whole, little for details.

It is Heun's method that this finds. A step over which sigma / alpha falls to its r-th part
multiplies what the second evaluation changes in x_0 by (r - 1) / 2. The last timestep of the cosine
schedule has a sigma / alpha of 20,000, and the next of 25 with `trailing` spacing one of 16. Of the
shipped run (the largest noise in 4 images, and what is found here):

    spacing      steps   network   here
    trailing        25      8.50   3.63
    trailing        60      1.68   1.33
    trailing       100      1.12   1.05
    karras          10      4.87   2.86
    karras          15      1.16   1.11
    leading          5      1.80   2.17
    leading         10      1.26   1.12
    exponential      7      1.58   1.39
    exponential     10      1.05   1.02

Of 109 of Heun's combinations of spacing, steps and seven schedules, this and the network disagree
about 6 whether the noise is larger (than 1.25 here, 1.35 there), all of them near that border.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_core.sampling.levels import NoiseLevel
from diffusion_core.sampling.solvers import Sampler, Steps

MOST_NOISE = 1.25  # size of the predicted noise, above which images are visibly wrong
# Of images of 64 x 64 x 3 values, of variance 1/4: the variance s^2 of some of their principal
# components, each of which stands for as many as it weighs. It falls as a power of their rank; for
# the cars, 1.4 in the first 300 ranks and 1.7 beyond.
_RANKS = np.geomspace(1, 64 * 64 * 3, 24)
_WEIGHTS = torch.from_numpy(np.gradient(_RANKS) / np.gradient(_RANKS).sum())[:, None]
_POWERS = torch.from_numpy(_RANKS**-1.7)[:, None]
_VARIANCES = _POWERS / (4 * (_WEIGHTS * _POWERS).sum())


def predicted_noise(
    sampler: Sampler, levels: Sequence[NoiseLevel], options: Mapping[str, Any] | None = None
) -> float:
    """The largest size (root mean square) of the predicted noise on a walk down `levels`; 1 is
    right. `options`: of the sampler."""
    return _predicted_noise(sampler.solve, tuple(levels), frozenset((options or {}).items()))


@functools.lru_cache(maxsize=256)
def _predicted_noise(
    solve: Callable[..., Steps], levels: tuple[NoiseLevel, ...], options: frozenset[tuple[str, Any]]
) -> float:
    largest = 0.0

    def predict(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        nonlocal largest
        share = x_t / (_VARIANCES * level.alpha**2 + level.sigma**2)
        epsilon = level.sigma * share
        largest = max(largest, float((_WEIGHTS * epsilon.square()).sum().sqrt()))
        return _VARIANCES * level.alpha * share, epsilon

    # Each noise is a dimension of its own: the length of x_t is its standard deviation.
    noises = itertools.cycle(torch.eye(len(levels), dtype=torch.float64))
    start = (_VARIANCES * levels[0].alpha ** 2 + levels[0].sigma ** 2).sqrt() * next(noises)
    for _ in solve(predict, levels, start, lambda: next(noises), **dict(options)):
        pass
    return largest
