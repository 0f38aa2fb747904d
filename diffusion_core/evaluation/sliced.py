"""Sliced Wasserstein distance on a Laplacian pyramid (Karras et al. 2018, appendix A of ProGAN).

Needs no trained network: images are decomposed by size of detail, and at each size the 7 x 7
patches of two sets are compared along random directions. As in the authors' code, the channels of
the patches of each set are normalised to mean 0 and variance 1, and the distance is multiplied by
1,000.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diffusion_core.evaluation.intervals import Estimate, Rows, estimates, half_samples, one_thread

PATCH = 7
SMALLEST = 16  # pixels, side of the last level
DESCRIPTORS = 2**15  # patches of a set per level, approximately; at most 128 per image
DIRECTIONS = 256
EDGES = 32  # quantiles of each set between which halves are compared
PRINTED = 1000.0
CHUNK = 256  # images decomposed at once


def sliced_wasserstein(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> dict[int, float]:
    """Distance at each level, by the level's side in pixels (64, 32, 16); 0 for equal sets.

    `real` and `fake`: uint8 (n, H, W, C) of one size, C = 1 or 3. Of the larger set only as many
    images as the smaller has are used. Raises ValueError for images that do not match or are
    smaller than 16 pixels.
    """
    real, fake = _matched(real, fake)
    return {side: _distance(np.sort(a), np.sort(b)) for side, a, b in _slices(real, fake, seed)}


def sliced_wasserstein_estimates(
    real: np.ndarray, fake: np.ndarray, seed: int = 0
) -> dict[str, Estimate]:
    """`sliced_wasserstein` with intervals, as "64", "32", "16", and their mean as "mean".

    The halves are of images, each with all its patches.
    """
    real, fake = _matched(real, fake)
    count = len(real)
    pairs = half_samples(count, count, seed)
    values, halves = {}, {}
    for side, a, b in _slices(real, fake, seed):
        sorted_a, sorted_b = np.sort(a), np.sort(b)
        values[str(side)] = _distance(sorted_a, sorted_b)
        halves[str(side)] = _distances_of_halves(a, b, sorted_a, sorted_b, count, pairs)
    values["mean"] = float(np.mean(list(values.values())))
    halves["mean"] = np.mean(list(halves.values()), axis=0)
    return estimates(values, halves, count, count)


def _matched(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"The two sets must have images of one size and colour, not {real.shape[1:]} and "
            f"{fake.shape[1:]}."
        )
    count = min(len(real), len(fake))
    if not count or min(real.shape[1:3]) < SMALLEST:
        raise ValueError(f"Both sets need images, of {SMALLEST} pixels or more on each side.")
    return real[:count], fake[:count]


def _patches(
    real: np.ndarray, fake: np.ndarray, seed: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each level, its side and the normalised patches of both sets, float32 (n * each, 147).

    The places of the patches differ between the sets. The patches of an image are consecutive.
    """
    each = min(128, max(1, DESCRIPTORS // len(real)))
    streams = [np.random.default_rng([seed, number]) for number in (1, 2)]
    levels: list[list[list[np.ndarray]]] = [[], []]
    for cuts, images, rng in zip(levels, (real, fake), streams, strict=True):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            cuts.append([_cut(level, each, rng) for level in laplacian_pyramid(chunk)])
    for number, of_real in enumerate(zip(*levels[0], strict=True)):
        of_fake = [chunk[number] for chunk in levels[1]]
        sets = [_normalised(np.concatenate(chunks)) for chunks in (of_real, of_fake)]
        yield real.shape[1] // 2**number, sets[0], sets[1]


def laplacian_pyramid(images: np.ndarray) -> list[np.ndarray]:
    """Decompose (n, H, W, C) into what each halving of the size loses, float32, largest first.

    The last level is the downscaled images, at 16 pixels or as near as halving comes to it.
    """
    level = images.astype(np.float32)
    levels = []
    while min(level.shape[1:3]) // 2 >= SMALLEST and not (level.shape[1] % 2 or level.shape[2] % 2):
        smaller = _blurred(level)[:, ::2, ::2]
        larger = np.zeros_like(level)
        larger[:, ::2, ::2] = smaller
        levels.append(level - 4 * _blurred(larger))
        level = smaller
    return [*levels, level]


def _blurred(images: np.ndarray) -> np.ndarray:
    """Filter with the binomial 1 4 6 4 1 along both axes; borders are reflected."""
    height, width = images.shape[1:3]
    wide = np.pad(images, [(0, 0), (2, 2), (0, 0), (0, 0)], mode="reflect")
    images = _binomial([wide[:, k : k + height] for k in range(5)])
    wide = np.pad(images, [(0, 0), (0, 0), (2, 2), (0, 0)], mode="reflect")
    return _binomial([wide[:, :, k : k + width] for k in range(5)])


def _binomial(parts: list[np.ndarray]) -> np.ndarray:
    return (parts[0] + parts[4] + 4 * (parts[1] + parts[3]) + 6 * parts[2]) / np.float32(16)


def _cut(images: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
    """Cut `each` patches from random places of every image: (n, each, 7, 7, C)."""
    count, height, width, _ = images.shape
    y = rng.integers(height - PATCH + 1, size=(count, each, 1, 1))
    x = rng.integers(width - PATCH + 1, size=(count, each, 1, 1))
    across = np.arange(PATCH)
    image = np.arange(count).reshape(-1, 1, 1, 1)
    return images[image, y + across[:, None], x + across]


def _normalised(patches: np.ndarray) -> np.ndarray:
    """Rows (n * each, 49 C) of (n, each, 7, 7, C), each channel with mean 0 and variance 1."""
    axes = (0, 1, 2, 3)
    spread = patches.std(axis=axes, dtype=np.float64)
    spread[spread == 0] = 1  # a set of one colour
    middle = patches.mean(axis=axes, dtype=np.float64).astype(np.float32)
    rows = (patches - middle) / spread.astype(np.float32)
    return rows.reshape(-1, PATCH * PATCH * patches.shape[-1])


def _slices(
    real: np.ndarray, fake: np.ndarray, seed: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each level, its side and the patches of both sets, projected on random directions.

    float32 (directions, patches); the patches of an image are consecutive.
    """
    rng = np.random.default_rng([seed, 0])
    for side, *sets in _patches(real, fake, seed):
        axes = rng.standard_normal((DIRECTIONS, sets[0].shape[1]))
        axes = (axes / np.linalg.norm(axes, axis=1, keepdims=True)).astype(np.float32)
        yield side, axes @ sets[0].T, axes @ sets[1].T


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of equal ranks of two sets of equal size, sorted along each row."""
    return float(np.abs(a - b).mean(dtype=np.float64)) * PRINTED


@one_thread
def _distances_of_halves(
    a: np.ndarray,
    b: np.ndarray,
    sorted_a: np.ndarray,
    sorted_b: np.ndarray,
    count: int,
    pairs: list[tuple[Rows, Rows]],
) -> np.ndarray:
    """Distance of each pair of halves of the `count` images, float64 (pairs,).

    Computed as the area between the two distribution functions, at quantiles of both sets, so that
    the patches need not be sorted again for each half.
    """
    chosen = [np.zeros((len(pairs), count), np.float32) for _ in range(2)]
    for number, rows in enumerate(pairs):
        for kept, of_set in zip(chosen, rows, strict=True):
            kept[number, of_set] = 1 / len(of_set)
    apart = max(1, a.shape[1] // EDGES)
    total = np.zeros(len(pairs))
    for row in range(len(a)):
        quantiles = sorted_a[row, ::apart], sorted_b[row, ::apart]
        edges = np.unique(np.concatenate([*quantiles, sorted_a[row, -1:], sorted_b[row, -1:]]))
        gap = chosen[0] @ _shares_below(a[row], edges, count)
        gap -= chosen[1] @ _shares_below(b[row], edges, count)
        total += np.abs(gap[:, :-1]) @ np.diff(edges)
    return total / len(a) * PRINTED


def _shares_below(values: np.ndarray, edges: np.ndarray, count: int) -> np.ndarray:
    """For each image, the share of its patches up to each edge, float32 (count, edges)."""
    each = len(values) // count
    cells = np.arange(len(values)) // each * (len(edges) + 1) + np.searchsorted(edges, values)
    counts = np.bincount(cells, minlength=count * (len(edges) + 1)).reshape(count, -1)
    return (counts.cumsum(axis=1)[:, :-1] / each).astype(np.float32)
