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
DIRECTIONS_OF_HALVES = 64  # of these, for the intervals
PRINTED = 1000.0
CHUNK = 256  # images decomposed at once


def sliced_wasserstein(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> dict[int, float]:
    """Distance at each level, by the level's side in pixels (64, 32, 16); 0 for equal sets.

    `real` and `fake`: uint8 (n, H, W, C) of one size, C = 1 or 3. Of the larger set only as many
    images as the smaller has are used. Raises ValueError for images that do not match or are
    smaller than 16 pixels.
    """
    real, fake = _matched(real, fake)
    return {side: _distance(axes, a, b) for side, axes, a, b in _levels(real, fake, seed)}


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
    for side, axes, a, b in _levels(real, fake, seed):
        values[str(side)] = _distance(axes, a, b)
        halves[str(side)] = _distances_of_halves(axes[:, :DIRECTIONS_OF_HALVES], a, b, pairs)
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


def _levels(
    real: np.ndarray, fake: np.ndarray, seed: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """For each level, its side, random directions and the normalised patches of both sets.

    Directions: float32 (C, directions, 49), of length 1 over C and 49. Patches: float32 (C, n,
    each, 49); their places differ between the sets.
    """
    each = min(128, max(1, DESCRIPTORS // len(real)))
    streams = [np.random.default_rng([seed, number]) for number in (1, 2)]
    levels: list[list[list[np.ndarray]]] = [[], []]
    for cuts, images, rng in zip(levels, (real, fake), streams, strict=True):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            cuts.append([_cut(level, each, rng) for level in laplacian_pyramid(chunk)])
    rng = np.random.default_rng([seed, 0])
    for number, of_real in enumerate(zip(*levels[0], strict=True)):
        of_fake = [chunk[number] for chunk in levels[1]]
        sets = [_normalised(np.concatenate(chunks)) for chunks in (of_real, of_fake)]
        axes = rng.standard_normal((DIRECTIONS, PATCH * PATCH, len(sets[0])))
        axes /= np.linalg.norm(axes, axis=(1, 2), keepdims=True)
        axes = np.ascontiguousarray(axes.transpose(2, 0, 1), np.float32)
        yield real.shape[1] // 2**number, axes, sets[0], sets[1]


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
    """(C, n, each, 49) of (n, each, 7, 7, C), each channel with mean 0 and variance 1."""
    axes = (0, 1, 2, 3)
    spread = patches.std(axis=axes, dtype=np.float64)
    spread[spread == 0] = 1  # a set of one colour
    middle = patches.mean(axis=axes, dtype=np.float64).astype(np.float32)
    rows = (patches - middle) / spread.astype(np.float32)
    count, each, *_, channels = patches.shape
    return np.ascontiguousarray(rows.reshape(count, each, -1, channels).transpose(3, 0, 1, 2))


def _distance(axes: np.ndarray, real: np.ndarray, fake: np.ndarray) -> float:
    """Mean distance of equal ranks of two sets of patches along each direction."""
    along = [_along(axes, patches).sum(0).reshape(axes.shape[1], -1) for patches in (real, fake)]
    return _of_ranks(*along)


def _along(axes: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Where the patches lie along the directions, by channel: (C, directions, n, each)."""
    channels, count, each, pixels = patches.shape
    rows = patches.reshape(channels, count * each, pixels)
    return (axes @ rows.transpose(0, 2, 1)).reshape(channels, -1, count, each)


def _of_ranks(a: np.ndarray, b: np.ndarray) -> float:
    a.sort()
    b.sort()
    return float(np.abs(a - b).mean(dtype=np.float64)) * PRINTED


@one_thread
def _distances_of_halves(
    axes: np.ndarray, real: np.ndarray, fake: np.ndarray, pairs: list[tuple[Rows, Rows]]
) -> np.ndarray:
    """Distance of each pair of halves of the images, float64 (pairs,).

    Each half is normalised by itself, as a set of its own would be: the halves of what all images
    share would differ by the colours and the contrast of their images.
    """
    of_sets = [(_along(axes, patches), *_moments(patches)) for patches in (real, fake)]
    weight = axes.sum(2)  # (C, directions), of a patch that is 1 everywhere
    distances = []
    for pair in pairs:
        halves = []
        for (along, means, squares), rows in zip(of_sets, pair, strict=True):
            middle = means[:, rows].mean(1)
            spread = np.sqrt((squares[:, rows].mean(1) - middle**2).clip(0))
            scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 1)
            half = np.einsum("cdne,c->dne", along[:, :, rows], scale.astype(np.float32))
            half -= ((scale * middle) @ weight).astype(np.float32)[:, None, None]
            halves.append(half.reshape(len(half), -1))
        distances.append(_of_ranks(*halves))
    return np.array(distances)


def _moments(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of each channel of each image's patches, float64 (C, n)."""
    mean = patches.mean(axis=(2, 3), dtype=np.float64)
    return mean, np.square(patches).mean(axis=(2, 3), dtype=np.float64)
