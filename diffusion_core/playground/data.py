"""Points in the plane to learn: shapes, a drawing, or the main components of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_core.data import store
from diffusion_core.data.errors import DataError
from diffusion_core.playground.components import principal_components
from diffusion_core.playground.drawing import EDGE, read_drawing
from diffusion_core.playground.random import Random
from diffusion_core.playground.settings import DRAWING, IMAGES, Settings

COUNT = 512  # points of a shape
MOST_IMAGES = 512
IMAGE_SIZE = 32
ALONG = np.array([-2.0, -1, 0, 1, 2])  # standard deviations


@dataclass(frozen=True)
class Data:
    points: np.ndarray  # float64 (N, 2)
    labels: np.ndarray  # int64 (N,), 0 or 1


def make_data(settings: Settings) -> Data:
    """The points of the settings. Raises DataError and ImageError for images, ValueError for a
    drawing without points."""
    if settings.data == IMAGES:
        return image_plane(settings.images).data
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


@dataclass(frozen=True)
class ImagePlane:
    """The two main components of images as points, and what they mean."""

    data: Data  # of class 0 is the first half of the set's classes
    explained: np.ndarray  # shares of the variance, (2,)
    axes: np.ndarray  # uint8 (2, 5, H, W, 3): the mean image moved along each axis
    classes: tuple[str, ...]


def image_plane(spec: str) -> ImagePlane:
    """Of at most MOST_IMAGES of a data set, evenly spread over it, at IMAGE_SIZE pixels; the points
    have standard deviation 1, or less where they would reach beyond a drawing's edge.

    Raises DataError and ImageError.
    """
    count = store.count(spec)
    if count < 3:
        raise DataError(f"Two main components need at least 3 images; {spec} has {count}.")
    rows = np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(np.int64))
    images = [store.load_image(spec, int(row), IMAGE_SIZE) for row in rows]
    pixels = np.stack([image for image, _, _ in images]).reshape(len(rows), -1) / 127.5 - 1
    scores, explained, axes = principal_components(pixels)
    names = dict(sorted((label, name) for _, label, name in images))
    half = list(names)[(len(names) + 1) // 2 :]
    labels = np.array([label in half for _, label, _ in images], np.int64)
    scale = max(np.sqrt((scores**2).mean()), abs(scores).max() / EDGE) or 1.0
    moved = scores.std(axis=0)[:, None, None] * ALONG[:, None] * axes[:, None]
    shown = (pixels.mean(axis=0) + moved).reshape(2, len(ALONG), IMAGE_SIZE, IMAGE_SIZE, 3)
    return ImagePlane(
        Data(scores / scale, labels),
        explained,
        ((shown.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8),
        tuple(names.values()),
    )
