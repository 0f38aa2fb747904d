"""Noise that belongs to an image, whatever the device and the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[], Tensor]  # each call gives fresh N(0, I)

MAX_SEED = 2**63 - 1  # the largest that both torch and numpy take


def image_noise(
    seed: int, n: int, shape: Sequence[int], device: torch.device | str = "cpu", first: int = 0
) -> Noise:
    """A source of N(0, I) of shape (n, *shape) in which each image has its own stream.

    The streams are made on the CPU from (seed, first + k), so image k of a seed gets the same
    noise on every device and in every batch size.
    """
    generators = []
    for k in range(first, first + n):
        state = int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0])
        generators.append(torch.Generator().manual_seed(state >> 1))

    def draw() -> Tensor:
        if not generators:
            return torch.empty(0, *shape, device=device)
        rows = [torch.randn(*shape, generator=generator) for generator in generators]
        return torch.stack(rows).to(device)

    return draw
