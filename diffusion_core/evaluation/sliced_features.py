"""Sliced Wasserstein distance between two sets of features (Rabin et al. 2012).

The features are projected onto random directions. Along a direction the Wasserstein distance of two
finite sets is known exactly, from their sorted values. Unlike the Fréchet distance it needs no
covariance matrix, so that it tells sets apart with fewer images, and it sees more than means and
covariances.
"""

from __future__ import annotations

import numpy as np

from diffusion_core.evaluation.intervals import Estimate, Rows, estimates, half_samples, one_thread

DIRECTIONS = 512
DIRECTIONS_OF_HALVES = 128  # of these, for the interval


def sliced_feature_distance(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> float:
    """Root of the mean over directions of the squared 2-Wasserstein distance along each.

    (n, d) and (m, d), n and m at least 1 and not necessarily equal. In units of the features; a
    shift of all rows by v gives about |v| / sqrt(d). 0 for equal sets.
    """
    return sliced_feature_estimate(real, fake, seed, repeats=0).value


@one_thread
def sliced_feature_estimate(
    real: np.ndarray, fake: np.ndarray, seed: int = 0, repeats: int = 100
) -> Estimate:
    """`sliced_feature_distance` with its interval, from `repeats` pairs of halves."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Both sets must be rows of equally many features, not {real.shape} and {fake.shape}."
        )
    n, m = len(real), len(fake)
    if not n or not m:
        raise ValueError("Both sets need at least one image.")
    axes = directions(real.shape[1], seed)
    (a, of_real), (b, of_fake) = (_sorted(axes, rows) for rows in (real, fake))
    value = _distance(a, b)
    a, of_real, b, of_fake = (x[:DIRECTIONS_OF_HALVES] for x in (a, of_real, b, of_fake))
    halves = [
        _distance(_part(a, of_real, of_n), _part(b, of_fake, of_m))
        for of_n, of_m in half_samples(n, m, seed, repeats)
    ]
    if not halves:
        return Estimate(value, value, value, n, m)
    return estimates({"": value}, {"": np.array(halves)}, n, m)[""]


def directions(d: int, seed: int = 0) -> np.ndarray:
    """Uniform on the unit sphere, float64 (DIRECTIONS, d)."""
    axes = np.random.default_rng([seed, d]).standard_normal((DIRECTIONS, d))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _sorted(axes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted values along each direction, (directions, n), and the row of each."""
    along = axes @ rows.astype(np.float64).T
    order = np.argsort(along, axis=1, kind="stable")
    return np.take_along_axis(along, order, 1), order


def _part(along: np.ndarray, order: np.ndarray, rows: Rows) -> np.ndarray:
    """Those of these rows only, still sorted."""
    there = np.zeros(along.shape[1], bool)
    there[rows] = True
    return along[there[order]].reshape(len(along), len(rows))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of sorted values (directions, n) and (directions, m).

    Both quantile functions are steps. Between two neighbours of the places where either of them
    steps, k / n or k / m, both are constant.
    """
    n, m = a.shape[1], b.shape[1]
    ends = np.unique(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))
    widths = np.diff(ends, prepend=0) / (n * m)
    a, b = a[:, (ends - 1) // m], b[:, (ends - 1) // n]
    return float(np.sqrt((np.square(a - b) @ widths).mean()))
