"""Consistency: a network that answers at every noise level with the image where the path ends.

Easy Consistency Tuning (ECT; Geng et al. 2024, arXiv 2406.14548) starts from a trained denoiser and
brings two neighbouring noise levels of one path ever closer together. The noise level that the
paper calls t is sigma / alpha here, the `ratio` of x_t / alpha: x_t = alpha x_0 + sigma epsilon.
The other way to distil, which has no objective of its own, is in `training.paths`.

Shapes: images (B, C, H, W), timesteps, ratios and errors (B,), all float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffusion_core.process.objective import predict_x_0, to_x_0
from diffusion_core.process.schedule import Schedule

K, B = 8.0, 1.0  # of the mapping function (ECT, section 3.3 and table 5)
# Of the pseudo-Huber metric, for the root mean square over an image's values; ECT has 0.06 for the
# root of the sum over the 12,288 values of 64 x 64 pixels.
HUBER = 0.06 / 12_288**0.5


def stage_of(step: int, steps: int, stages: int) -> int:
    """The stage, from 1 to `stages`, of step `step` (from 1) of `steps`; all are equally long."""
    return min(stages, max(1, math.ceil(step * stages / steps)))


def ratios(schedule: Schedule, t: Tensor) -> Tensor:
    """sigma / alpha at whole timesteps (B,)."""
    return _log_ratios(schedule).to(t.device)[t].exp()


def target_ratio(
    schedule: Schedule, t: Tensor, stage: int, q: float = 2.0, k: float = K, b: float = B
) -> Tensor:
    """The ratio r of the less noisy level that belongs to timesteps t: ECT, equation 14.

    r / t = 1 - n(t) / q^stage with n(t) = 1 + k sigmoid(-b t). The gap between the two falls by q
    from stage to stage. 0, the image itself, where r would be less than the noise at timestep 0.
    """
    table = _log_ratios(schedule).to(t.device)
    ratio = table[t].exp()
    r = ratio * (1 - (1 + k * torch.sigmoid(-b * ratio)) / q**stage)
    return r.where(r >= table[0].exp(), 0)


def level_at(schedule: Schedule, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The timestep, signal and spread where sigma / alpha is `ratio`, (B,) each.

    The timestep, a fraction between two of the schedule's, is found by the logarithm of the ratio,
    as for `karras` spacing; below the noise at timestep 0 it is 0.
    """
    table = _log_ratios(schedule).to(ratio.device)
    wanted = ratio.log()
    above = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
    low, high = table[above - 1], table[above]
    t = (above - 1 + (wanted - low) / (high - low)).clamp(0, len(table) - 1)
    signal = 1 / (1 + ratio) if schedule.is_flow else (1 + ratio.square()).rsqrt()
    return t, signal, ratio * signal


def consistency_errors(
    network: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    x_0: Tensor,
    noise: Tensor,
    t: Tensor,
    r: Tensor,
    prediction_type: str,
) -> Tensor:
    """How far apart the images are that two noise levels of one path lead to, (B,).

    d(f(x_t, t), f(x_r, r)) with the same image and noise at both (ECT, equation 10), where f is the
    clean image that the prediction of `network(x_t, t)` stands for. At r = 0 it is x_0 itself, the
    boundary condition. There is no gradient through f(x_r, r). d is the pseudo-Huber metric
    sqrt(|x - y|^2 + c^2) - c (Song & Dhariwal 2024), here of root mean squares, so that it does not
    grow with the size of the images. Its gradient is that of |x - y|^2 with the adaptive weight of
    ECT, equation 15, p = 1/2. The networks have no dropout, of which both would have to see the
    same.

    `t` (B,) integers, `r` (B,) ratios: see `target_ratio`.
    """
    with torch.no_grad():
        at, signal, spread = (
            each.reshape(-1, *[1] * (x_0.ndim - 1)) for each in level_at(schedule, r)
        )
        x_r = signal * x_0 + spread * noise
        target = to_x_0(network(x_r, at.flatten()).float(), x_r, signal, spread, prediction_type)
        target = target.where(spread > 0, x_0)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    found = predict_x_0(schedule, x_t, t, network(x_t, t).float(), prediction_type)
    square = (found - target).square().flatten(1).mean(1)
    return (square + HUBER**2).sqrt() - HUBER


def consistency_weight(schedule: Schedule, t: Tensor, r: Tensor) -> Tensor:
    """The weight (B,) of each image's error: 1 / (t - r) in ratios (ECT, equation 15)."""
    return 1 / (ratios(schedule, t) - r)


@functools.lru_cache(maxsize=4)
def _log_ratios(schedule: Schedule) -> Tensor:
    """log(sigma / alpha) (T,), rising. Where a schedule ends in pure noise, which has no ratio, the
    last goes on as the two before it."""
    with np.errstate(divide="ignore"):
        table = np.log(schedule.exact_spread) - np.log(schedule.exact_signal)
    if np.isinf(table[-1]):
        table[-1] = 2 * table[-2] - table[-3]
    return torch.from_numpy(table).float()
