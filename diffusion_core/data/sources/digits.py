"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8, upscaled to 32 x 32 RGB."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from diffusion_core.data.source import IndexedSource, SourceKind, parse_count

CLASSES = tuple("0123456789")
SIZE = 32
COUNT = 1797
# What the pixels are, as in cars.py.
PIXELS = "e463eefffa854c6f8c390e5661614d8dac04f7ce1d3d847cf583069835574a66"


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # takes half a second

    data = load_digits()
    return data.images, data.target


def draw_digit(index: int) -> tuple[np.ndarray, int]:
    """Return image `index` as uint8 (32, 32, 3), grey, and its digit."""
    images, target = _digits()
    small = Image.fromarray((images[index] * (255 / 16)).round().astype(np.uint8))
    large = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return np.repeat(large[..., None], 3, axis=2), int(target[index])


def label_of(index: int) -> int:
    return int(_digits()[1][index])


def open_digits(detail: str) -> IndexedSource:
    count = parse_count("digits", detail, COUNT, COUNT)
    return IndexedSource(count, CLASSES, SIZE, f"digits {PIXELS}", draw_digit, label_of=label_of)


SOURCE = SourceKind(
    name="digits",
    help="real handwriting, from scikit-learn.",
    usage=("digits", "digits:N"),
    open=open_digits,
    size=SIZE,
    channels=1,
    detail="Number of images",
    most=COUNT,
    largest=COUNT,
)
