"""Bits per dimension: how well a diffusion model compresses images, by the variational bound.

-log2 p(x_0) of an image in 256 levels is at most (Ho et al. 2020, equation 5; as measured by
Nichol & Dhariwal 2021)

    KL(q(x_T | x_0) || N(0, I)) + sum over t > 0 of KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
    - log p(x_0 | x_1),

divided by the number of pixels times channels. Timesteps count from 0 here, as everywhere: the last
term is that of t = 0 and the first that of the last timestep. Takes a network evaluation per
timestep and image, or an unbiased subset of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_core.device import device_of
from diffusion_core.process.noise import image_noise
from diffusion_core.process.prediction import prediction_type_of
from diffusion_core.process.schedule import Schedule

STEP_VARIANCES = ("posterior", "beta")  # of p(x_{t-1} | x_t)


@dataclass(frozen=True)
class BitsPerDim:
    """The bound of each of n images and its parts, in bits per dimension."""

    total: np.ndarray  # float64 (n,): prior + the sum of the terms
    prior: np.ndarray  # float64 (n,): distance of the last timestep from pure noise
    terms: np.ndarray  # float64 (n, K): one per evaluated timestep; t = 0 is the decoder
    timesteps: np.ndarray  # int (n, K), ascending, always with 0
    # If not all timesteps are evaluated, a term is weighted for its neighbours too.


@torch.inference_mode()
def bits_per_dim(
    model: nn.Module,
    schedule: Schedule,
    images: Tensor,
    prediction_type: str = "epsilon",
    seed: int = 0,
    labels: Tensor | None = None,
    timesteps_per_image: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    *,
    variance: str = "posterior",
    clip_x0: bool = True,
    first: int = 0,
) -> BitsPerDim:
    """Compute the variational bound of images (n, C, H, W) in [-1, 1] that have 256 levels.

    - `labels`: (n,) integers for a network with classes; None for "any class".
    - `timesteps_per_image`: None evaluates all timesteps; K evaluates t = 0 and one random timestep
      in each of K - 1 ranges, which are short where t is small and the terms are large (stratified:
      the expected bound is the same).
    - `variance`: of p(x_{t-1} | x_t), `posterior` or `beta`; see Ho et al. 2020, section 3.2. At
      t = 0, where the former is 0, both use the posterior's of t = 1, as the code of Nichol &
      Dhariwal does.
    - `clip_x0`: clamp the predicted image to [-1, 1].
    - `first`: number of the first image. The noise of an image depends only on the seed and its
      number, so that a set can be measured in batches of any size.
    - `on_step(done, total)`: called after each evaluation of the network on all n images; raising
      in it stops the measurement.

    The network is evaluated in evaluation mode. Raises ValueError for a flow, whose steps have no
    variance, and for epsilon prediction on a schedule that ends in pure noise, where epsilon does
    not determine the image.
    """
    predicts = prediction_type_of(prediction_type)
    if schedule.is_flow or predicts.flow:
        raise ValueError(
            "Bits per dimension need a diffusion model: the steps of a flow have no variance, so "
            "that the variational bound does not exist for it."
        )
    if variance not in STEP_VARIANCES:
        raise ValueError(
            f"Unknown variance {variance!r}; choose one of {', '.join(STEP_VARIANCES)}."
        )
    asked = schedule.timesteps if timesteps_per_image is None else timesteps_per_image
    if not 2 <= asked <= schedule.timesteps:
        raise ValueError(
            f"timesteps_per_image must lie between 2 and {schedule.timesteps}, not {asked}."
        )
    tables = _Tables(schedule, variance)
    if tables.signal[-1] <= 0 and not predicts.learns_pure_noise:
        raise ValueError(
            "Bits per dimension cannot be measured: the schedule ends in pure noise, where the "
            "predicted epsilon does not determine the image. Train with v_prediction or x_0."
        )
    device = device_of(model)
    n = len(images)
    dimensions = math.prod(images.shape[1:])
    x_0 = images.to(device).float()
    classes = [] if labels is None else [labels.to(device)]
    next_noise = image_noise(seed, n, x_0.shape[1:], device, first)
    timesteps, weights = _stratified(schedule.timesteps, asked, seed, n, first)
    terms = np.empty((n, asked))
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for column in range(asked):
            t = timesteps[:, column]
            signal, spread = (_shaped(table[t], x_0) for table in (tables.signal, tables.spread))
            x_t = signal * x_0 + spread * next_noise()
            prediction = model(x_t, torch.from_numpy(t).to(device), *classes).float()
            guess = predicts.to_x_0(prediction, x_t, signal, spread)
            if clip_x0:
                guess = guess.clamp(-1, 1)
            if column == 0:  # t = 0 of all images
                nats = _decoder(x_0, guess, tables.first_variance)
            else:
                error = (x_0 - guess).square().flatten(1).sum(1).cpu().double().numpy()
                nats = tables.kl(t, error, dimensions) * weights[column]
            terms[:, column] = nats
            if on_step is not None:
                on_step(column + 1, asked)
    finally:
        for module in training:
            module.training = True
    scale = 1 / (dimensions * math.log(2))
    terms *= scale
    squares = x_0.square().flatten(1).sum(1).cpu().double().numpy()
    prior = tables.prior(squares, dimensions) * scale
    return BitsPerDim(prior + terms.sum(axis=1), prior, terms, timesteps)


class _Tables:
    """Constants of the bound at each timestep, float64 (timesteps,)."""

    def __init__(self, schedule: Schedule, variance: str) -> None:
        bar = schedule.exact_signal**2
        before = np.concatenate([[1.0], bar[:-1]])
        beta = 1 - bar / before
        self.signal, self.spread = np.sqrt(bar), np.sqrt(1 - bar)
        self.last_bar = bar[-1]
        self.posterior_variance = beta * (1 - before) / (1 - bar)
        self.variance = self.posterior_variance if variance == "posterior" else beta
        self.first_variance = self.posterior_variance[1]
        # Coefficient of x_0 in the mean of q(x_{t-1} | x_t, x_0) (Ho et al., equation 7).
        self.slope = np.sqrt(before) * beta / (1 - bar)

    def kl(self, t: np.ndarray, error: np.ndarray, dimensions: int) -> np.ndarray:
        """KL divergence of the model's step from the posterior at t > 0, nats (n,).

        `error`: squared error of the predicted image, summed over its dimensions.
        """
        ratio = self.posterior_variance[t] / self.variance[t]
        spread = dimensions * (ratio - 1 - np.log(ratio))
        return (spread + self.slope[t] ** 2 * error / self.variance[t]) / 2

    def prior(self, squares: np.ndarray, dimensions: int) -> np.ndarray:
        """KL divergence of q(x_T | x_0) from N(0, I), nats (n,); `squares`: sum of x_0^2."""
        spread = -self.last_bar - np.log1p(-self.last_bar)
        return (dimensions * spread + self.last_bar * squares) / 2


def _decoder(x_0: Tensor, mean: Tensor, variance: float) -> np.ndarray:
    """-log of the probability of the level of x_0 (of 256) under N(mean, variance), nats (n,).

    A level reaches half way to its neighbours, the first and the last to infinity (Ho et al. 2020,
    equation 13).
    """
    x_0, mean = x_0.cpu().double(), mean.cpu().double()
    # Mirrored where x_0 is below the mean: only one tail of the normal keeps its digits.
    side = torch.where(x_0 < mean, 1.0, -1.0)
    near = ((x_0 - mean) * side + 1 / 255) / variance**0.5
    far = ((x_0 - mean) * side - 1 / 255) / variance**0.5
    top = torch.where(x_0 * side > 0.999, torch.inf, near)
    bottom = torch.where(x_0 * side < -0.999, -torch.inf, far)
    log_top, log_bottom = torch.special.log_ndtr(top), torch.special.log_ndtr(bottom)
    inside = log_top + torch.log(-torch.expm1(log_bottom - log_top))
    return -inside.flatten(1).sum(1).numpy()


def _stratified(
    timesteps: int, asked: int, seed: int, n: int, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """The timesteps of each image, int (n, asked), and their weights, (asked,).

    The first is 0; the others are one in each range. The ranges grow geometrically with t.
    """
    edges = [0, 1]
    for left in range(asked - 1, 0, -1):
        grown = round(edges[-1] * (timesteps / edges[-1]) ** (1 / left))
        edges.append(min(max(edges[-1] + 1, grown), timesteps - left + 1))
    lows, sizes = np.array(edges[:-1]), np.diff(edges)
    found = np.empty((n, asked), np.int64)
    for k in range(n):
        rng = np.random.default_rng([seed, first + k])
        found[k] = lows + rng.integers(sizes)
    return found, sizes.astype(np.float64)


def _shaped(values: np.ndarray, like: Tensor) -> Tensor:
    """One number per image, on the images' device and shaped to broadcast over them."""
    return torch.from_numpy(values).float().to(like.device).reshape(-1, *[1] * (like.ndim - 1))
