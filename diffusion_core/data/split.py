"""Which images of a set are trained on, and which are held out for validation."""

from __future__ import annotations

import numpy as np

from diffusion_core.data.errors import DataError


def held_out_count(images: int, validation_count: int, batch_size: int, name: str) -> int:
    """How many of a set's images are kept for validation, at most a tenth of them.

    Raises DataError, which calls the set `name`, where the others do not fill a batch.
    """
    held_out = min(validation_count, images // 10)
    if images - held_out < batch_size:
        raise DataError(
            f"{name} leaves {images - held_out} images for training, fewer than a batch of "
            f"{batch_size}. Choose a smaller batch_size or more images."
        )
    return held_out


def batches_per_epoch(images: int, batch_size: int) -> int:
    """The steps in which each training image is seen at most once; the last, incomplete batch is
    dropped."""
    return images // batch_size


def split(
    images: int, validation_count: int, batch_size: int, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a set that are trained on, and those held out; both sorted.

    Raises DataError as `held_out_count`.
    """
    held_out = held_out_count(images, validation_count, batch_size, name)
    order = np.random.default_rng([seed, images]).permutation(images)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
