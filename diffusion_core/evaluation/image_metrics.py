"""The mathematics of the metrics that need no downloaded weights.

`real` and `fake` are two sets: rows of features (n, d), see `features.py`, or uint8 images
(n, H, W, C). Everything is computed in float64 and in chunks, so that 10,000 x 10,000 images fit.
Functions with "estimate" in their name also return 95 % intervals by half sampling, see
`intervals.py`. Bits per dimension are in `likelihood.py`, FID and KID in `fidelity.py`.

All values depend on the number of images: compare values of equal counts, with those of as many
held-out real images (the floor) and of noise (the ceiling).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from diffusion_core.evaluation.intervals import REPEATS, Estimate, Rows, half_sampling

CHUNK = 512  # rows whose distances to all others are in memory at once
DEPTH = 40  # nearest neighbours kept per image; about half of them are in a half of the set
THUMB = 16  # pixels, side of the downscaled images in which neighbours are found
NEAR = 0.05  # quantile of held-out images' distances below which a sample is a near copy


# ---------------------------------------------------------------- Fréchet distance


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of the Gaussians with the sets' means and covariances (Heusel et al. 2017).

    "FID" if the features are Inception's. (n, d) and (m, d), n and m at least 1; fewer rows than d,
    with singular covariances, are allowed and faster. 0 for equal sets.
    """
    real, fake = _features(real, fake)
    a, b = _spread(real), _spread(fake)
    # With covariances A'A and B'B, the trace of the root of their product is the sum of the
    # singular values of AB'.
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    gap = np.square(real.mean(axis=0) - fake.mean(axis=0)).sum()
    return max(0.0, float(gap + np.square(a).sum() + np.square(b).sum() - 2 * shared))


def frechet_estimate(
    real: np.ndarray, fake: np.ndarray, seed: int = 0, repeats: int = REPEATS
) -> Estimate:
    """`frechet_distance` with its interval, from `repeats` pairs of halves."""
    real, fake = _features(real, fake)

    def statistic(real_rows: Rows, fake_rows: Rows) -> dict[str, float]:
        return {"frechet": frechet_distance(real[real_rows], fake[fake_rows])}

    return half_sampling(statistic, len(real), len(fake), seed=seed, repeats=repeats)["frechet"]


def _spread(rows: np.ndarray) -> np.ndarray:
    """At most d rows A such that A'A is the unbiased covariance; 0 for a single row."""
    centred = (rows - rows.mean(axis=0)) / max(1, len(rows) - 1) ** 0.5
    if len(rows) <= rows.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


# ---------------------------------------------------------------- nearest neighbours in features


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019), each in [0, 1].

    Precision: share of the fakes in the ball of some real image, which reaches to its k-th nearest
    other real image ("do the images look real?"). Recall: the same with real and fake exchanged
    ("is every kind of real image generated?"). Both sets need at least 2 rows; a set of k rows or
    fewer uses k = rows - 1. k may be up to 20.
    """
    found = _Balls(real, fake)
    return found.share_inside(k), _Balls(fake, real).share_inside(k)


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Density, 0 or more, and coverage, in [0, 1] (Naeem et al. 2020).

    Density: number of real images' balls that a fake lies in, divided by k, on average (1 for real
    images; more if the fakes crowd where the real ones are dense). Coverage: share of the real
    images with a fake in their ball. Sizes of the sets as in `precision_recall`.
    """
    found = _Balls(real, fake)
    return found.density(k), found.coverage(k)


def manifold_estimates(
    real: np.ndarray, fake: np.ndarray, seed: int = 0, k: int = 3, k_coverage: int = 5
) -> dict[str, Estimate]:
    """`precision`, `recall` (of `k`), `density` and `coverage` (of `k_coverage`) with intervals.

    Takes 2 n m bytes of memory: 200 MB for 10,000 x 10,000.
    """
    of_real, of_fake = _Balls(real, fake), _Balls(fake, real)

    def statistic(real_rows: Rows, fake_rows: Rows) -> dict[str, float]:
        half, other = of_real.of_rows(real_rows, fake_rows), of_fake.of_rows(fake_rows, real_rows)
        return {
            "precision": half.share_inside(k),
            "recall": other.share_inside(k),
            "density": half.density(k_coverage),
            "coverage": half.coverage(k_coverage),
        }

    n, m = len(real), len(fake)
    shares = {"precision": m, "recall": n, "coverage": n}
    return half_sampling(statistic, n, m, seed=seed, shares=shares)


class _Balls:
    """Which points lie in the balls of which centres, for any k and any part of both sets.

    The ball of a centre reaches to its k-th nearest other centre, inclusive. Kept are the sorted
    neighbours of each centre and, for each centre and point, how many of them are strictly nearer
    than the point. In a part of the centres, the k-th neighbour is a later one of the same list, so
    that no distance is computed again.
    """

    def __init__(self, centres: np.ndarray, points: np.ndarray) -> None:
        centres, points = _features(centres, points)
        n = len(centres)
        if n < 2 or len(points) < 1:
            raise ValueError("Neighbours need at least 2 images in each set.")
        depth = min(DEPTH, n - 1)
        self.neighbours = np.empty((n, depth), np.int32)
        self.nearer = np.full((n, len(points)), depth, np.uint8)
        for rows, squares in _square_distances(centres, centres):
            squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1.0  # itself
            found = np.argpartition(squares, depth, axis=1)[:, : depth + 1]
            order = np.argsort(np.take_along_axis(squares, found, 1), axis=1)[:, 1:]
            self.neighbours[rows] = np.take_along_axis(found, order, 1)
            radii = np.take_along_axis(squares, self.neighbours[rows], 1)
            ((_, to_points),) = _square_distances(centres[rows], points)
            for row, (edges, distances) in enumerate(zip(radii, to_points, strict=True)):
                close = np.flatnonzero(distances <= edges[-1])
                self.nearer[rows.start + row, close] = np.searchsorted(edges, distances[close])

    def of_rows(self, centres: Rows, points: Rows) -> _Balls:
        """The balls of these centres and points only."""
        part = object.__new__(_Balls)
        if len(centres) == len(self.neighbours) and len(points) == self.nearer.shape[1]:
            return self
        place = np.full(len(self.neighbours), -1, np.int32)
        place[centres] = np.arange(len(centres))
        part.neighbours = place[self.neighbours[centres]]  # -1: not in the part
        part.nearer = self.nearer[centres].take(points, axis=1)
        return part

    def reach(self, k: int) -> int:
        """k, at most the number of other centres."""
        return max(1, min(k, len(self.neighbours) - 1))

    def inside(self, k: int) -> np.ndarray:
        """bool (centres, points): whether the point lies in the centre's ball."""
        if not 1 <= k <= DEPTH // 2:
            raise ValueError(f"k must lie between 1 and {DEPTH // 2}, not {k}.")
        there = np.cumsum(self.neighbours >= 0, axis=1)
        wanted = self.reach(k)
        # If a list holds fewer than k of the part, which is unlikely, its last stands for the k-th.
        last = np.where(
            there[:, -1] >= wanted, (there >= wanted).argmax(axis=1), there.shape[1] - 1
        )
        return self.nearer <= last[:, None].astype(np.uint8)

    def share_inside(self, k: int) -> float:
        return float(self.inside(k).any(axis=0).mean())

    def density(self, k: int) -> float:
        wanted = self.reach(k)
        return np.count_nonzero(self.inside(k)) / (wanted * self.nearer.shape[1])

    def coverage(self, k: int) -> float:
        return float(self.inside(k).any(axis=1).mean())


def _square_distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances of all rows of `a` to all of `b`, in chunks of rows of `a`."""
    middle = b.mean(axis=0)  # far from 0, the difference of large squares loses digits
    b = b - middle
    square_b = np.square(b).sum(axis=1)
    for start in range(0, len(a), CHUNK):
        rows = slice(start, min(start + CHUNK, len(a)))
        part = a[rows] - middle
        squares = np.square(part).sum(axis=1)[:, None] + square_b - 2 * (part @ b.T)
        # Rounding may leave more than 0 between equal rows, beyond a radius of 0.
        squares[squares < len(middle) * np.finfo(squares.dtype).eps * square_b.max()] = 0
        yield rows, squares


def _features(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Both sets must be rows of equally many features, not {real.shape} and {fake.shape}."
        )
    if not len(real) or not len(fake):
        raise ValueError("Both sets need at least one image.")
    return real.astype(np.float64, copy=False), fake.astype(np.float64, copy=False)


# ---------------------------------------------------------------- classes


def class_scores(probabilities: np.ndarray, labels: np.ndarray | None = None) -> dict[str, float]:
    """Class accuracy and balance of images, from a classifier's probabilities (m, classes).

    `accuracy`, only with `labels` (m,): share of images classified as their label. `balance`:
    entropy of the class frequencies, divided by that of equal ones; 1 if all classes are equally
    frequent, 0 if there is only one.
    """
    named = probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    shares = np.bincount(named, minlength=classes) / max(1, len(named))
    there = shares[shares > 0]
    balance = -(there * np.log(there)).sum() / np.log(classes)
    scores = {"balance": min(1.0, max(0.0, float(balance)))}
    if labels is not None:
        scores = {"accuracy": float((named == labels).mean()), **scores}
    return scores


def class_scores_estimates(
    probabilities: np.ndarray, labels: np.ndarray | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """`class_scores` with intervals."""

    def statistic(_: Rows, rows: Rows) -> dict[str, float]:
        return class_scores(probabilities[rows], None if labels is None else labels[rows])

    shares = {} if labels is None else {"accuracy": len(labels)}
    found = half_sampling(statistic, 0, len(probabilities), seed=seed, shares=shares)
    balance = found["balance"]
    found["balance"] = replace(balance, high=min(1.0, balance.high))
    return found


# ---------------------------------------------------------------- is it copying?


def nearest(
    fake: np.ndarray, real: np.ndarray, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Find the real image nearest to each fake: its row, int (m,), and distance, float64 (m,).

    uint8 images (n, H, W, C) are compared at about 16 x 16 pixels; the distance is the root mean
    square difference in grey levels (0 to 255). Rows of features (n, d): Euclidean distance.
    `mirrored`: also compare with the mirrored real images, as training with random flips sees them.
    """
    if not len(fake) or not len(real):
        raise ValueError("The nearest images need at least one image in each set.")
    scale = 1.0
    kinds = [real]
    if fake.ndim == 4:
        if fake.shape[1:] != real.shape[1:]:
            raise ValueError(
                f"The images must be of one size and colour, not {fake.shape[1:]} and "
                f"{real.shape[1:]}."
            )
        small = thumbs(real)
        kinds = [small, small[:, :, ::-1]] if mirrored else [small]
        kinds = [kind.reshape(len(real), -1) for kind in kinds]
        fake = thumbs(fake).reshape(len(fake), -1)
        scale = fake.shape[1] ** 0.5
    index = np.zeros(len(fake), np.int64)
    distance = np.full(len(fake), np.inf)
    for kind in kinds:
        # The search is in float32, which is fast; the distance of the one found is exact.
        middle = kind.mean(axis=0)
        a, b = ((rows - middle).astype(np.float32) for rows in (fake, kind))
        for rows, squares in _square_distances(a, b):
            found = squares.argmin(axis=1)
            exact = np.linalg.norm(fake[rows].astype(np.float64) - kind[found], axis=1) / scale
            better = exact < distance[rows]
            index[rows] = np.where(better, found, index[rows])
            distance[rows] = np.where(better, exact, distance[rows])
    return index, distance


def copies(fake_distance: np.ndarray, held_out_distance: np.ndarray) -> float:
    """Share of samples that are nearer to a training image than held-out images are.

    Both arguments are distances to the nearest training image, of the samples and of real images
    that were not trained on. Nearer means below the 5 % quantile of the latter: about 0.05 for a
    network that does not copy, 1 for one that generates its training images.
    """
    return float((fake_distance < near_distance(held_out_distance)).mean())


def near_distance(held_out_distance: np.ndarray) -> float:
    """The distance below which a sample is a near copy; see `copies`."""
    return float(np.quantile(held_out_distance, NEAR))


def copies_estimate(
    fake_distance: np.ndarray, held_out_distance: np.ndarray, seed: int = 0
) -> Estimate:
    """`copies` with its interval, which accounts for both sets."""

    def statistic(held_out: Rows, fake: Rows) -> dict[str, float]:
        return {"copies": copies(fake_distance[fake], held_out_distance[held_out])}

    n, m = len(held_out_distance), len(fake_distance)
    return half_sampling(statistic, n, m, seed=seed, shares={"copies": m})["copies"]


def thumbs(images: np.ndarray) -> np.ndarray:
    """Images averaged over blocks to 16 x 16 pixels or a little more, float32."""
    n, height, width, channels = images.shape
    block = max(1, min(height, width) // THUMB)
    high, wide = height // block, width // block
    cut = images[:, : high * block, : wide * block]
    blocks = cut.reshape(n, high, block, wide, block, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float32)
