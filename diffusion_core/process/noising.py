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


def mean_and_std(x: Tensor) -> tuple[float, float]:
    """Over all values of all images."""
    return float(x.mean()), float(x.std(correction=0))


def noising_shapes(
    schedule: NoiseSchedule, x_0: Tensor, timesteps: Sequence[int]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """The steps of `add_noise` on a batch: (description, expression, shape) each.

    `x_0` is (1, C, H, W), one image shared by all `timesteps`.
    """
    t = torch.tensor(timesteps)
    table = schedule.sqrt_alphas_cumprod
    gathered = table[t]
    reshaped = gathered.reshape(-1, 1, 1, 1)
    batch = x_0.expand(len(t), *x_0.shape[1:])
    product = reshaped * batch
    return [
        ("the timesteps", "t", tuple(t.shape)),
        ("the table of the schedule", "sqrt_alphas_cumprod", tuple(table.shape)),
        ("gather: a coefficient for each image", "sqrt_alphas_cumprod[t]", tuple(gathered.shape)),
        ("reshape: add the other dimensions", ".reshape(-1, 1, 1, 1)", tuple(reshaped.shape)),
        ("the images", "x_0", tuple(batch.shape)),
        ("broadcast: each image times its coefficient", "· x_0", tuple(product.shape)),
    ]
