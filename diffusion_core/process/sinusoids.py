"""Sinusoidal embeddings of the timestep (Vaswani et al. 2017, as used by Ho et al. 2020), in NumPy.

`embedding.SinusoidalPositionEmbeddings` is the layer of a network, in PyTorch. What is here gives
the same in float64 and for any base, and compares timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BASE = 10_000.0  # of every network here: the ratio of the highest frequency to the lowest
MOST_AT_ONCE = 2**20  # cosines, so that comparing takes little memory


def check_size(size: int) -> None:
    """Raises ValueError for a size that is odd, or too small for two frequencies."""
    if size < 4 or size % 2:
        raise ValueError(f"The size must be even and at least 4, not {size}.")


def frequencies(size: int, base: float = BASE) -> np.ndarray:
    """Radians per timestep, float64 (size / 2,), falling geometrically from 1 to 1 / base."""
    check_size(size)
    half = size // 2
    return np.exp(np.arange(half) * -(math.log(base) / (half - 1)))


def sinusoids(t: np.ndarray | Sequence[int], size: int, base: float = BASE) -> np.ndarray:
    """Timesteps (N,) to rows, float64 (N, size): [sin(t f_0) ..., cos(t f_0) ...]."""
    angles = np.asarray(t, dtype=np.float64)[:, None] * frequencies(size, base)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def similarity_at(
    distances: np.ndarray | Sequence[int], size: int, base: float = BASE
) -> np.ndarray:
    """Cosine similarity of the rows of two timesteps that lie these distances apart, float64 (N,).

    It is the mean of cos(distance f_i), whatever the timesteps are.
    """
    distances = np.asarray(distances, dtype=np.float64)
    f = frequencies(size, base)
    parts = np.array_split(distances, math.ceil(distances.size * f.size / MOST_AT_ONCE) or 1)
    return np.concatenate([np.cos(part[:, None] * f).mean(axis=1) for part in parts])


def cosine_similarity(rows: np.ndarray) -> np.ndarray:
    """Cosine of the angle between any two of the rows (N, size): (N, N), in [-1, 1].

    A row of zeros, which a ReLU can give, has similarity 0 with every row.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return np.clip(unit @ unit.T, -1, 1)


def spread_timesteps(timesteps: int, most: int) -> np.ndarray:
    """0 ... timesteps - 1 in equal strides, the shortest that leave at most `most`; int64."""
    return np.arange(0, timesteps, math.ceil(timesteps / most), dtype=np.int64)
