"""Random numbers that are the same here and in the browser."""

from __future__ import annotations

import math

import numpy as np

STREAMS = ("data", "weights", "batches", "x_T", "noise")  # independent numbers of one seed


class Random:
    """The 32-bit generator mulberry32 (Tommy Ettinger, 2017, public domain).

    Its state grows by a constant with every number, so the k-th number is a hash of k, and many
    are made at once. A seed's streams start at different states.
    """

    def __init__(self, seed: int, stream: str) -> None:
        self.state = (seed * 0x9E3779B9 + STREAMS.index(stream) * 0x85EBCA6B) % 2**32

    def uniforms(self, *shape: int) -> np.ndarray:
        """Numbers in (0, 1), float64, row by row."""
        count = math.prod(shape)
        places = np.arange(1, count + 1, dtype=np.uint64) * 0x6D2B79F5 + self.state
        self.state = (self.state + count * 0x6D2B79F5) % 2**32
        a = places.astype(np.uint32)
        t = (a ^ a >> 15) * (a | 1)
        t ^= t + (t ^ t >> 7) * (t | 61)
        return ((t ^ t >> 14) + 0.5).reshape(shape) / 2**32

    def integers(self, below: int, count: int) -> np.ndarray:
        """Whole numbers in [0, below), int64 (count,)."""
        return np.floor(self.uniforms(count) * below).astype(np.int64)

    def normals(self, count: int) -> np.ndarray:
        """Points of N(0, I) in the plane, (count, 2), by Box and Muller (1958)."""
        first, second = self.uniforms(count, 2).T
        radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
