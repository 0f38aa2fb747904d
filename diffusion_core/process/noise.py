"""Noise that belongs to an image, whatever the device and the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[], Tensor]  # each call gives fresh N(0, I)

_drawing = ThreadPoolExecutor(4, "noise")

MAX_SEED = 2**63 - 1  # the largest that both torch and numpy take


def image_noise(
    seed: int, n: int, shape: Sequence[int], device: torch.device | str = "cpu", first: int = 0
) -> Noise:
    """A source of N(0, I) of shape (n, *shape) in which each image has its own stream.

    The streams are made on the CPU from (seed, first + k), so image k of a seed gets the same
    noise on every device and in every batch size. For a GPU they are drawn ahead.
    """
    generators = []
    for k in range(first, first + n):
        state = int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0])
        generators.append(torch.Generator().manual_seed(state >> 1))

    def draw() -> Tensor:
        rows = [torch.randn(*shape, generator=generator) for generator in generators]
        return torch.stack(rows) if rows else torch.empty(0, *shape)

    def draw_pinned() -> Tensor:  # from which a copy to the GPU keeps nobody waiting
        with torch.cuda.device(device):
            return draw().pin_memory()

    if torch.device(device).type != "cuda":
        return lambda: draw().to(device)
    on_host = ahead(draw_pinned)
    return lambda: on_host().to(device, non_blocking=True)


def ahead(draw: Noise) -> Noise:
    """The same noises; from the third on each is drawn in a thread while the last one is used.

    Only what adds noise in its steps asks for a second one.
    """
    taken = 0
    coming: Future[Tensor] | None = None

    def take() -> Tensor:
        nonlocal taken, coming
        noise = draw() if coming is None else coming.result()
        taken += 1
        coming = _drawing.submit(draw) if taken > 1 else None
        return noise

    return take
