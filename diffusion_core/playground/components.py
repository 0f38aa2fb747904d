"""Principal components."""

from __future__ import annotations

import numpy as np

TINY = 1e-12  # of a component without variance, which has no axis


def principal_components(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two main components of the rows (N, D), N and D at least 2: scores (N, 2), the explained
    shares of the variance (2,) and the axes (2, D) of length 1.

    An axis is turned so that its largest entry is positive.
    """
    centred = rows - rows.mean(axis=0)
    # Of the rows' products with each other: far fewer numbers than pixels have.
    variances, sides = np.linalg.eigh(centred @ centred.T)
    largest, sides = variances[:-3:-1].clip(0), sides[:, :-3:-1]
    axes = sides.T @ centred
    turn = np.where(axes[[0, 1], np.abs(axes).argmax(axis=1)] < 0, -1, 1)
    lengths = np.sqrt(largest)
    total = (centred**2).sum() or 1.0
    return sides * lengths * turn, largest / total, axes / (lengths * turn + TINY)[:, None]
