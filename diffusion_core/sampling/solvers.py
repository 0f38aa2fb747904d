"""The sampling methods: from noise to images, each a generator of steps.

`predict(x_t, level)` gives the predicted (x_0, epsilon) at a `NoiseLevel`; `noise()` gives fresh
N(0, I) in the shape of x_T. Every method walks `levels` downwards and lands on the image. They
know nothing of networks, schedules, files or pages. With x_t = alpha x_0 + sigma epsilon:

- ratio = sigma / alpha is the sigma of Karras et al. 2022, for x_t / alpha;
- lambda = log(alpha / sigma) is that of Lu et al. 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from diffusion_core.sampling.levels import NoiseLevel

NOISE_TERMS = ("posterior", "large", "lecture")

Predict = Callable[[Tensor, NoiseLevel], tuple[Tensor, Tensor]]
Noise = Callable[[], Tensor]


@dataclass(frozen=True)
class StepView:
    """What a sampler shows after each step; tensors (n, C, H, W), not to be written to."""

    index: int  # of this step, from 0
    steps: int  # how many there will be
    timestep: float  # where the step started
    x_t: Tensor  # the image after the step
    x_0: Tensor  # the clean image that the network predicted at `timestep`
    epsilon: Tensor  # the noise that belongs to it


Steps = Iterator[StepView]


def _pairs(levels: Sequence[NoiseLevel]) -> Iterator[tuple[int, NoiseLevel, NoiseLevel]]:
    """(index, level at which a step starts, level at which it lands)."""
    return ((k, start, end) for k, (start, end) in enumerate(pairwise(levels)))


def ddpm(
    predict: Predict,
    levels: Sequence[NoiseLevel],
    x_T: Tensor,
    noise: Noise,
    *,
    noise_term: str = "posterior",
    clip_x_t: bool = False,
) -> Steps:
    """Ancestral sampling: Ho et al. 2020, algorithm 2.

    `noise_term`: `posterior` has the fixed variance of equation 7, beta~; `large` has beta, the
    paper's other choice; `lecture` adds beta~ * z where the paper has sqrt(beta~) * z, and
    `clip_x_t` clamps every x_t to [-1, 1], both as in the lecture.
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        bar, bar_prev = level.alpha**2, after.alpha**2
        alpha = bar / bar_prev
        beta = 1 - alpha
        mean_x_0 = bar_prev**0.5 * beta / (1 - bar)
        mean_x_t = alpha**0.5 * (1 - bar_prev) / (1 - bar)
        x_t = mean_x_0 * x_0 + mean_x_t * x_t
        if after.sigma > 0:
            variance = beta if noise_term == "large" else beta * (1 - bar_prev) / (1 - bar)
            x_t = x_t + (variance if noise_term == "lecture" else variance**0.5) * noise()
        if clip_x_t:
            x_t = x_t.clamp(-1, 1)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def ddim(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise, *, eta: float = 0.0
) -> Steps:
    """Song et al. 2021, equation 12; `eta` 0 adds no noise, 1 as much as DDPM (equation 16)."""
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        bar, bar_prev = level.alpha**2, after.alpha**2
        spread = eta * ((1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)) ** 0.5
        x_t = after.alpha * x_0 + max(after.sigma**2 - spread**2, 0.0) ** 0.5 * epsilon
        if spread > 0:
            x_t = x_t + spread * noise()
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def euler(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Euler's method along the probability flow (Karras et al. 2022, algorithm 1 without line 6).

    In x_t / alpha the direction is epsilon: the step is DDIM's with eta 0. Of a flow it is a step
    along the straight line to the predicted image (Liu et al. 2023).
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        x_t = after.alpha * x_0 + after.sigma * epsilon
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def euler_ancestral(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise
) -> Steps:
    """Euler's method to a lower level and noise back up to the right one (Crowson, k-diffusion)."""
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        here, there = level.ratio, after.ratio
        up = min(there, (there**2 * (here**2 - there**2) / here**2) ** 0.5)
        down = (there**2 - up**2) ** 0.5
        x_t = after.alpha * (x_0 + down * epsilon)
        if up > 0:
            x_t = x_t + after.alpha * up * noise()
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def heun(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Heun's method in x_t / alpha over sigma / alpha (Karras et al. 2022, algorithm 1).

    The mean of the directions at both ends of a step: two evaluations, except in the last step,
    which lands on the image and is Euler's.
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        landed = after.alpha * x_0 + after.sigma * epsilon
        if after.sigma > 0:
            _, there = predict(landed, after)
            width = after.ratio - level.ratio
            landed = after.alpha * (x_t / level.alpha + width * (epsilon + there) / 2)
        x_t = landed
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def flow_heun(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Heun's method on a flow's own equation dx/ds = epsilon - x_0, s = sigma (Liu et al. 2023)."""
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        direction, width = epsilon - x_0, after.sigma - level.sigma
        landed = x_t + width * direction
        if after.sigma > 0:
            far_x_0, far_epsilon = predict(landed, after)
            landed = x_t + width * (direction + far_epsilon - far_x_0) / 2
        x_t = landed
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def dpmpp_2m(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """DPM-Solver++(2M): Lu et al. 2022, algorithm 2. The first and the last step are of order 1."""
    x_t, before = x_T, None
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        h = after.log_snr_half - level.log_snr_half
        shift = -math.expm1(-h)  # 1 - exp(-h); 1 in the last step, where h is infinite
        guess = x_0
        if before is not None and after.sigma > 0:
            old_x_0, old_h = before
            guess = x_0 + (x_0 - old_x_0) * h / (2 * old_h)
        x_t = after.sigma / level.sigma * x_t + after.alpha * shift * guess
        before = (x_0, h)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def dpmpp_2m_sde(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise
) -> Steps:
    """SDE-DPM-Solver++(2M), midpoint (Lu et al. 2022, section 5): as `dpmpp_2m`, with fresh noise
    in every step but the last."""
    x_t, before = x_T, None
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        h = after.log_snr_half - level.log_snr_half
        shift = -math.expm1(-2 * h)
        guess = x_0
        if before is not None and after.sigma > 0:
            old_x_0, old_h = before
            guess = x_0 + (x_0 - old_x_0) * h / (2 * old_h)
        x_t = after.sigma / level.sigma * math.exp(-h) * x_t + after.alpha * shift * guess
        if after.sigma > 0:
            x_t = x_t + after.sigma * shift**0.5 * noise()
        before = (x_0, h)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def lms(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise, *, order: int = 4
) -> Steps:
    """Linear multistep (Adams-Bashforth) in x_t / alpha over sigma / alpha, with the directions of
    the last `order` steps; their weights integrate the polynomial through them exactly."""
    ratios = [level.ratio for level in levels]
    x_t = x_T
    directions: list[Tensor] = []
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        directions = [epsilon, *directions][:order]
        weights = _lagrange_integrals(ratios, index, len(directions))
        moved = sum(w * d for w, d in zip(weights, directions, strict=True))
        x_t = after.alpha * (x_t / level.alpha + moved)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def _lagrange_integrals(ratios: Sequence[float], index: int, order: int) -> list[float]:
    """The integrals from ratios[index] to ratios[index + 1] of the Lagrange polynomials through
    the last `order` of the ratios, the newest first."""
    nodes = [ratios[index - k] for k in range(order)]
    weights = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1 :]
        # Around the step's start, so that high powers of large ratios do not lose digits.
        roots = [other - ratios[index] for other in others]
        integral = np.poly1d(np.poly(roots) if roots else [1.0]).integ()
        scale = math.prod(node - other for other in others)
        weights.append(float(integral(ratios[index + 1] - ratios[index]) / scale))
    return weights


def unipc(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """UniPC of order 2 with B(h) = exp(h) - 1: Zhao et al. 2023, algorithms 5 and 6, on x_0.

    Every evaluation is used twice: to correct the step that led to it, which makes the whole of
    order 3, and to predict the next.
    """
    x_t, last = x_T, None
    newest: list[tuple[Tensor, float]] = []  # (x_0, lambda) of the evaluations, newest first
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        if last is not None:
            x_t = _unipc_correct(last, level, newest, x_0)
        newest = [(x_0, level.log_snr_half), *newest][:2]
        last = (x_t, level)
        h = after.log_snr_half - level.log_snr_half
        shift = -math.expm1(-h)
        guess = x_0
        if len(newest) == 2 and after.sigma > 0:
            (m0, lambda0), (m1, lambda1) = newest
            guess = m0 + (m1 - m0) / ((lambda1 - lambda0) / h) / 2
        x_t = after.sigma / level.sigma * x_t + after.alpha * shift * guess
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def _unipc_correct(
    last: tuple[Tensor, NoiseLevel],
    level: NoiseLevel,
    newest: list[tuple[Tensor, float]],
    x_0: Tensor,
) -> Tensor:
    """The step from `last` to `level` again, now that x_0 at its end is known."""
    x, start = last
    m0, lambda0 = newest[0]
    h = level.log_snr_half - start.log_snr_half
    b = math.expm1(-h)
    correction = (x_0 - m0) / 2
    if len(newest) == 2:
        m1, lambda1 = newest[1]
        ratio = (lambda1 - lambda0) / h
        phi = -b / h - 1
        wanted = phi / b, (-phi / h - 1 / 2) * 2 / b
        # The weights of the two differences solve
        # w_old + w_new = wanted[0] and ratio * w_old + w_new = wanted[1].
        w_old = (wanted[0] - wanted[1]) / (1 - ratio)
        w_new = wanted[0] - w_old
        correction = w_new * (x_0 - m0) + w_old / ratio * (m1 - m0)
    return level.sigma / start.sigma * x - level.alpha * b * (m0 + correction)
