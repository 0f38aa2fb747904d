"""The training images nearest to a sample, and how near held-out images are to theirs.

Two distances: between images averaged to about 16 x 16 pixels, as the root mean square difference
in grey levels (0 to 255), and between the features of the classifier that fits the data, where
there is one. With random flips in training the mirrored images count as well.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from diffusion_core.data.store import ImageStore, build_store, same_images
from diffusion_core.evaluation.evaluator import FEWEST, held_out_images, split_of
from diffusion_core.evaluation.features import feature_net
from diffusion_core.evaluation.image_metrics import thumbs
from diffusion_core.runs.config import RunConfig

MOST_TRAINING = 10_000  # images that are searched; of more, as many chosen at random
HELD_OUT = 128  # images that say how near is near
PER_TURN = 250  # images between two yields
PIXELS, FEATURES = "pixels", "features"


class Neighbour(NamedTuple):
    row: int  # of the training set
    distance: float
    mirrored: bool  # whether the mirrored image is the near one


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The images that a run was trained on, ready for the search."""

    store: ImageStore
    rows: np.ndarray  # (n,) of the store, rising
    total: int  # of the images trained on; those searched may be fewer
    # By the name of a distance, of each image and its mirrored one, float32 (n, d).
    points: Mapping[str, tuple[np.ndarray, ...]]
    # Of each held-out image to its nearest training image, rising; empty if there are too few.
    held_out: Mapping[str, np.ndarray]
    _views: Views = field(repr=False)

    def nearest(self, image: np.ndarray, k: int) -> dict[str, list[Neighbour]]:
        """The k nearest to an image uint8 (H, W, C), by the name of a distance, nearest first."""
        views = self._views(image[None])
        return {name: self._nearest(views[name][0], name, k) for name in self.points}

    def _nearest(self, point: np.ndarray, name: str, k: int) -> list[Neighbour]:
        kinds = self.points[name]
        distances = np.stack([np.linalg.norm(kind - point, axis=1) for kind in kinds])
        best = distances.min(axis=0)
        found = np.argsort(best, kind="stable")[:k]
        return [
            Neighbour(int(self.rows[at]), float(best[at]), bool(distances[:, at].argmin()))
            for at in found
        ]

    def nearer_than(self, name: str, distance: float) -> float:
        """The share of the held-out images whose nearest training image is farther away."""
        return float((self.held_out[name] > distance).mean())

    def image(self, neighbour: Neighbour) -> np.ndarray:
        """uint8 (H, W, C), mirrored where that is the near one."""
        [pixels] = self.store.read(np.array([neighbour.row])).transpose(0, 2, 3, 1)
        return pixels[:, ::-1] if neighbour.mirrored else pixels

    def is_of(self, fingerprint: str, content: str) -> bool | None:
        """Whether these are the images of a run's record; None where that cannot be told."""
        return same_images(self.store, fingerprint, content)


class Views:
    """Images uint8 (n, H, W, C) as points between which the distances are Euclidean."""

    def __init__(self, config: RunConfig, device: torch.device | str) -> None:
        self.net = feature_net(config.data, config.channels, config.image_size, device)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        small = thumbs(images).reshape(len(images), -1)
        found = {PIXELS: small / np.float32(small.shape[1] ** 0.5)}
        if self.net is not None:
            found[FEATURES] = self.net.features(np.ascontiguousarray(images))[0]
        return found


def read_training_set(
    config: RunConfig, device: torch.device | str = "cpu"
) -> Generator[int, None, TrainingSet]:
    """Return the images that a run with these settings is trained on; yields how many are read.

    Raises DataError.
    """
    # workers=0: each process would import the whole app first.
    store = build_store(config.data, config.image_size, config.channels, config.resize, workers=0)
    trained, _ = split_of(config, store)
    rows = trained
    if len(trained) > MOST_TRAINING:
        chosen = np.random.default_rng([config.seed, len(trained)]).permutation(trained)
        rows = np.sort(chosen[:MOST_TRAINING])
    views = Views(config, device)
    kinds: list[list[dict[str, np.ndarray]]] = [[] for _ in range(1 + config.random_flip)]
    for start in range(0, len(rows), PER_TURN):
        yield start
        images = store.read(rows[start : start + PER_TURN]).transpose(0, 2, 3, 1)
        for parts, turned in zip(kinds, (images, images[:, :, ::-1]), strict=False):
            parts.append(views(turned))
    points = {
        name: tuple(np.concatenate([part[name] for part in parts]) for parts in kinds)
        for name in kinds[0][0]
    }
    unseen = yield from held_out_images(config, store, HELD_OUT, config.seed, len(rows))
    held_out = dict.fromkeys(points, np.empty(0))
    if len(unseen.pixels) >= FEWEST:
        held_out = {
            name: np.sort([_least(point, points[name]) for point in found])
            for name, found in views(unseen.pixels).items()
        }
    return TrainingSet(store, rows, len(trained), points, held_out, views)


def _least(point: np.ndarray, kinds: tuple[np.ndarray, ...]) -> float:
    return min(float(np.linalg.norm(kind - point, axis=1).min()) for kind in kinds)
