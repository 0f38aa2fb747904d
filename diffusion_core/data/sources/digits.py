"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8, upscaled to 32 x 32 RGB."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

CLASSES = tuple("0123456789")
SIZE = 32
COUNT = 1797


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # half a second, so only when it is needed

    data = load_digits()
    return data.images, data.target


def draw_digit(index: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Image `index` as uint8 (32, 32, 3), grey, and its digit. There is nothing to seed."""
    images, target = _digits()
    small = Image.fromarray((images[index] * (255 / 16)).round().astype(np.uint8))
    large = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return np.repeat(large[..., None], 3, axis=2), int(target[index])
