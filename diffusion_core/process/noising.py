"""The forward process on display: one image and one fixed noise at any timesteps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion_core.media.images import to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.process.schedule import NoiseSchedule

# The lecture's strip: t = 0, 30, ..., 270 of T = 300.
STRIP_LENGTH = 10
# Noise is shown from black (-3) to white (3); 99.7 % of N(0, 1) lies between.
NOISE_RANGE = 3.0


def image_to_x_0(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [-1, 1], scaled as for training."""
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    return pixels[None].float().div_(127.5).sub_(1)


def fixed_noise(seed: int, size: int) -> Tensor:
    """The noise of a seed, N(0, I) of shape (1, 3, size, size); always the same."""
    return image_noise(seed, 1, (3, size, size))()


def noise_to_uint8(noise: Tensor) -> np.ndarray:
    """(B, C, H, W) to uint8 (B, H, W, C), -NOISE_RANGE black and NOISE_RANGE white."""
    return to_uint8(noise / NOISE_RANGE)


def strip_timesteps(timesteps: int) -> list[int]:
    """STRIP_LENGTH timesteps evenly spaced from 0, rising; all of them where there are fewer."""
    return sorted({k * timesteps // STRIP_LENGTH for k in range(STRIP_LENGTH)})


def noised_at(
    schedule: NoiseSchedule, x_0: Tensor, noise: Tensor, timesteps: Sequence[int]
) -> Tensor:
    """One image with one noise at several timesteps, as a batch.

    `x_0` and `noise` are (1, C, H, W); the result is (len(timesteps), C, H, W).
    """
    t = torch.tensor(timesteps)
    shape = (len(t), *x_0.shape[1:])
    return schedule.add_noise(x_0.expand(shape), t, noise.expand(shape))[0]


def noised_step_by_step(
    schedule: NoiseSchedule, x_0: Tensor, t: int, draws: int, generator: torch.Generator
) -> Tensor:
    """x_t by t + 1 steps x_s = sqrt(alpha_s) x_{s-1} + sqrt(beta_s) z, each with noise of its own
    (Ho et al. 2020, equation 2).

    `x_0` is (1, C, H, W); the result is (draws, C, H, W). Distributed as what `add_noise` gives.
    """
    x = x_0.expand(draws, *x_0.shape[1:])
    for alpha, beta in zip(schedule.alphas[: t + 1], schedule.betas[: t + 1], strict=True):
        x = alpha.sqrt() * x + beta.sqrt() * torch.randn(x.shape, generator=generator)
    return x


def standardised(schedule: NoiseSchedule, x_0: Tensor, t: int, x_t: Tensor) -> Tensor:
    """(x_t - sqrt_alphas_cumprod x_0) / sqrt_one_minus_alphas_cumprod: N(0, 1) for every x_t of the
    forward process."""
    return (x_t - schedule.signal[t] * x_0) / schedule.spread[t]


def noising_walk(
    schedule: NoiseSchedule, x_0: Tensor, timesteps: Sequence[int]
) -> list[tuple[str, str, Tensor]]:
    """The steps of `add_noise` on a batch: (description, expression, result) each.

    `x_0` is (1, C, H, W), one image shared by all `timesteps`.
    """
    t = torch.tensor(timesteps)
    table = schedule.sqrt_alphas_cumprod
    gathered = table[t]
    reshaped = gathered.reshape(-1, 1, 1, 1)
    batch = x_0.expand(len(t), *x_0.shape[1:])
    return [
        ("the timesteps", "t", t),
        ("the table of the schedule", "sqrt_alphas_cumprod", table),
        ("gather: a coefficient for each image", "sqrt_alphas_cumprod[t]", gathered),
        ("reshape: add the other dimensions", ".reshape(-1, 1, 1, 1)", reshaped),
        ("the images", "x_0", batch),
        ("broadcast: each image times its coefficient", "· x_0", reshaped * batch),
    ]
