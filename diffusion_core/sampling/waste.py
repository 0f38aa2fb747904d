"""How much a network knows of x_0 at each timestep beyond what needs no network."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_core.device import device_of
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.sampling.one_step import Asked, level_at, predictor

# A network that is better than the best of the others by less than this share knows nothing more.
LEAST_GAIN = 0.05


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of x_0, float64 (K,), over images and values, at timesteps `t`."""

    t: np.ndarray
    network: np.ndarray
    mean_image: np.ndarray  # x_0 is the mean image, whatever x_t is
    noise: np.ndarray  # epsilon is x_t
    copy: np.ndarray  # x_0 is x_t by its signal: epsilon is 0

    @property
    def trivial(self) -> np.ndarray:
        """Of the best of the three that need no network."""
        return np.minimum(self.mean_image, np.minimum(self.noise, self.copy))

    @property
    def wasted(self) -> np.ndarray:
        """Where the network is hardly better, bool (K,)."""
        return self.network > (1 - LEAST_GAIN) * self.trivial


def measured_timesteps(loaded_timesteps: int, most: int) -> list[int]:
    """At most `most` timesteps, spread evenly from the first to the last."""
    spread = np.linspace(0, loaded_timesteps - 1, min(most, loaded_timesteps))
    return np.unique(spread.round().astype(int)).tolist()


def measure_errors(
    loaded: LoadedModel, x_0: Tensor, noise: Tensor, mean: Tensor, timesteps: list[int]
) -> Generator[int, None, Errors]:
    """The errors over images (B, C, H, W) with noise of that shape; `mean` is (C, H, W).

    Yields how many timesteps are done. Timesteps that leave nothing of the image are left out.
    """
    device = device_of(loaded.model)
    x_0, noise, mean = x_0.to(device), noise.to(device), mean.to(device)
    rows = []
    for done, t in enumerate(timesteps, 1):
        level = level_at(loaded.schedule, t)
        if level.alpha > 0:
            with torch.inference_mode():
                x_t = level.alpha * x_0 + level.sigma * noise
                known, _ = predictor(loaded, Asked(t), clip_x0=False)(x_t, level)
                others = (mean, (x_t - level.sigma * x_t) / level.alpha, x_t / level.alpha)
                found = [(each - x_0).square().mean().item() for each in (known, *others)]
            rows.append((t, *found))
        yield done
    t_of, *errors = (np.array(column) for column in zip(*rows, strict=True))
    return Errors(t_of, *errors)
