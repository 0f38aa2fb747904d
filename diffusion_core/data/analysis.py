"""What a data set looks like as the network sees it: sizes, colours, mean image, near duplicates.

At most `limit` images are examined, evenly spaced in the set, so that a large set costs no more
than a small one. What was found is kept in a file beside the decoded stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from diffusion_core.data.cache import default_cache_dir
from diffusion_core.data.decode import SQUASH, ImageError, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import open_source
from diffusion_core.data.store import fingerprint_of
from diffusion_core.files import replacing

VERSION = 1  # of the file
SIZE = 64  # pixels a side at which images are examined
THUMBNAIL = 32  # pixels a side at which they are compared
ALIKE = 0.98  # the correlation from which two images are near duplicates
LEAST_ALIKE = 0.9  # the smallest of which pairs are counted
EDGES = np.linspace(LEAST_ALIKE, 1.0, 101)
MOST_PAIRS = 500  # that are kept, the most alike
BLOCK = 500  # images that are compared with all others at a time


@dataclass(frozen=True)
class Examined:
    """What was found in n of a set's images."""

    rows: np.ndarray  # (n,) their numbers in the set, sorted
    labels: np.ndarray  # (n,)
    sizes: np.ndarray  # (n, 2) width and height of each file
    histogram: np.ndarray  # (3, 256) how many values of each channel there are
    mean: np.ndarray  # (SIZE, SIZE, 3) over the images, in grey levels
    std: np.ndarray  # the same of the standard deviation
    copies: np.ndarray  # (k, 2) pairs with the same pixels: an image and the first like it
    pairs: np.ndarray  # (m, 2) the most similar pairs of all but the copies, most similar first
    correlations: np.ndarray  # (m,) of these
    alike: np.ndarray  # (100,) how many such pairs have a correlation between two EDGES
    broken: np.ndarray  # names of the files that cannot be read

    @property
    def channel_mean(self) -> np.ndarray:
        """(3,) grey levels."""
        return self.histogram @ np.arange(256) / self.histogram.sum(1)

    @property
    def channel_std(self) -> np.ndarray:
        """(3,) grey levels."""
        squares = self.histogram @ np.arange(256.0) ** 2 / self.histogram.sum(1)
        return np.sqrt(np.maximum(squares - self.channel_mean**2, 0))

    def pairs_above(self, correlation: float) -> int:
        """How many pairs are at least so similar, to a thousandth from LEAST_ALIKE on."""
        return int(self.alike[round((correlation - LEAST_ALIKE) * 1000) :].sum())


def rows_of(count: int, limit: int) -> np.ndarray:
    """The numbers of at most `limit` of so many images, evenly spaced."""
    return np.unique(np.arange(min(count, limit)) * count // max(1, min(count, limit)))


def file_of(fingerprint: str, limit: int) -> Path:
    """Where the result is kept, by the fingerprint of the set at SIZE pixels in colour."""
    return default_cache_dir() / "examined" / f"{fingerprint[:20]}-{limit}-{VERSION}.npz"


def load(file: Path) -> Examined | None:
    """A result that is there; None where it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as found:
            return Examined(**{field.name: found[field.name] for field in fields(Examined)})
    except Exception:  # NumPy raises half a dozen kinds for a damaged file
        return None


def examine(spec: str, limit: int, resize: str = SQUASH) -> Generator[int, None, Examined]:
    """Examine at most `limit` images and keep the result; yields how many are done.

    Raises DataError, also where no image can be read.
    """
    file = file_of(fingerprint_of(spec, SIZE, 3, resize), limit)
    if (known := load(file)) is not None:
        return known
    source = open_source(spec)
    rows = rows_of(source.count, limit)
    kept: list[int] = []
    labels, sizes, broken, digests = [], [], [], []
    thumbnails = np.empty((len(rows), 3 * THUMBNAIL**2), np.float32)
    total = np.zeros((SIZE, SIZE, 3), np.int64)
    squares = np.zeros_like(total)
    histogram = np.zeros((3, 256), np.int64)
    for done, row in enumerate(map(int, rows)):
        yield done
        try:
            image, label = source.read(row)
        except ImageError:
            broken.append(source.name(row))
            continue
        pixels = to_size(image, SIZE, resize)
        thumbnails[len(kept)] = thumbnail(pixels)
        kept.append(row)
        labels.append(label)
        sizes.append(image.size)
        total += pixels
        squares += pixels.astype(np.int64) ** 2
        histogram += [np.bincount(pixels[..., k].ravel(), minlength=256) for k in range(3)]
        digests.append(hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())
    if not kept:
        raise DataError(f"None of the {len(rows):,} images that were tried can be read.")
    mean = total / len(kept)
    numbers = np.array(kept)
    copies = _copies(digests)
    others = np.setdiff1d(np.arange(len(kept)), copies[:, 1])  # each image once
    pairs, correlations, alike = yield from _similar(thumbnails[others], len(rows))
    found = Examined(
        rows=numbers,
        labels=np.array(labels),
        sizes=np.array(sizes),
        histogram=histogram,
        mean=mean,
        std=np.sqrt(np.maximum(squares / len(kept) - mean**2, 0)),
        copies=numbers[copies],
        pairs=numbers[others[pairs]],
        correlations=correlations,
        alike=alike,
        broken=np.array(broken, dtype=str),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as out:
        np.savez(out, **{field.name: getattr(found, field.name) for field in fields(Examined)})
    return found


def collect(work: Generator[int, None, Examined]) -> Examined:
    """What such a generator returns at its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """An image uint8 (SIZE, SIZE, 3) at THUMBNAIL pixels, as a vector of mean 0 and length 1.

    The scalar product of two is the correlation of their values, which brightness and contrast do
    not change. That of an image of a single colour is 0.
    """
    step = SIZE // THUMBNAIL
    means = pixels.reshape(THUMBNAIL, step, THUMBNAIL, step, 3).mean((1, 3), dtype=np.float32)
    values = means.ravel() - means.mean()
    return values / max(float(np.linalg.norm(values)), 1e-3)


def _copies(digests: list[bytes]) -> np.ndarray:
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(digest, k), k) for k, digest in enumerate(digests)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _similar(
    thumbnails: np.ndarray, done: int
) -> Generator[int, None, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The most similar pairs, their correlations, and how many pairs there are between two EDGES;
    yields `done` now and then."""
    best = np.empty((0, 2), np.int64)
    values = np.empty(0, np.float32)
    alike = np.zeros(len(EDGES) - 1, np.int64)
    for start in range(0, len(thumbnails), BLOCK):
        yield done
        block = np.triu(thumbnails[start : start + BLOCK] @ thumbnails[start:].T, 1)
        places = np.flatnonzero(block >= LEAST_ALIKE)
        found = np.minimum(block.ravel()[places], 1)
        alike += np.histogram(found, EDGES)[0]
        order = np.argsort(-found, kind="stable")[:MOST_PAIRS]
        new = np.stack(np.unravel_index(places[order], block.shape), 1) + start
        best = np.concatenate([best, new])
        values = np.concatenate([values, found[order]])
        order = np.argsort(-values, kind="stable")[:MOST_PAIRS]
        best, values = best[order], values[order]
    return best, values, alike
