"""Points in the plane to learn: shapes, a drawing, or the main components of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_core.data import store
from diffusion_core.playground.components import principal_components
from diffusion_core.playground.drawing import read_drawing
from diffusion_core.playground.random import Random
from diffusion_core.playground.settings import DRAWING, IMAGES, Settings

COUNT = 512  # points of a shape
MOST_IMAGES = 512
IMAGE_SIZE = 32


@dataclass(frozen=True)
class Data:
    points: np.ndarray  # float64 (N, 2)
    labels: np.ndarray  # int64 (N,), 0 or 1


def make_data(settings: Settings) -> Data:
    """The points of the settings. Raises DataError and ImageError for images, ValueError for a
    drawing without points."""
    if settings.data == IMAGES:
        return image_data(settings.images)[0]
    if settings.data == DRAWING:
        points, labels = read_drawing(settings.drawing)
        if not len(points):
            raise ValueError("The drawing has no points.")
        return Data(points, labels)
    return make_shape(settings.data, settings.seed)


def make_shape(name: str, seed: int) -> Data:
    """COUNT points of one of `settings.SHAPES`, of classes 0 and 1 in turns, mean about 0 and
    standard deviation about 1."""
    random = Random(seed, "data")
    share = random.uniforms(COUNT)
    blur = random.normals(COUNT)
    labels = np.arange(COUNT) % 2
    sign = 1 - 2 * labels
    if name == "two moons":
        angle = np.pi * share
        x = sign * np.cos(angle) - 0.5 * sign
        y = sign * np.sin(angle) - 0.25 * sign
        return Data(1.3 * np.stack([x, y], axis=1) + 0.08 * blur, labels)
    if name == "spiral":
        root = np.sqrt(share)
        angle, radius = 3 * np.pi * root, 2 * sign * root
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return Data(points + 0.06 * blur, labels)
    angle, radius = 2 * np.pi * share, 0.7 + labels
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return Data(points + 0.06 * blur, labels)


def image_data(spec: str) -> tuple[Data, np.ndarray, tuple[str, ...]]:
    """The two main components of a data set's images, scaled to standard deviation 1, as points.

    At most MOST_IMAGES, evenly spread over the set, at IMAGE_SIZE pixels. Class 0 is the first half
    of the set's classes. Also the explained shares of the variance (2,) and the names of the
    classes. Raises DataError and ImageError.
    """
    count = store.count(spec)
    rows = np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(np.int64))
    images = [store.load_image(spec, int(row), IMAGE_SIZE) for row in rows]
    pixels = np.stack([image for image, _, _ in images]).reshape(len(rows), -1) / 127.5 - 1
    scores, explained = principal_components(pixels)
    names = dict(sorted((label, name) for _, label, name in images))
    half = list(names)[(len(names) + 1) // 2 :]
    labels = np.array([label in half for _, label, _ in images], np.int64)
    spread = np.sqrt((scores**2).mean())
    return Data(scores / (spread or 1.0), labels), explained, tuple(names.values())
