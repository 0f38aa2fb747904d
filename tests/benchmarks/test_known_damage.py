"""The distances in general features rank known damage of real images in the right order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import pytest

from benchmarks.known_damage import Images, halves, images_of, ranking, resized
from diffusion_core.evaluation.features import general_net
from diffusion_core.evaluation.image_metrics import frechet_distance
from diffusion_core.evaluation.sliced_features import sliced_feature_distance

LOOKS = ("blur", "noise", "JPEG")  # of each image; the others are of the whole set
SETS = ("missing classes", "copies", "mixed in")


def ranked(
    data: str, other: str, n: int, kinds: tuple[str, ...]
) -> Iterator[tuple[str, str, list[float]]]:
    """Each kind of damage and measure, with the distances from none to the strongest."""
    look = general_net().features
    measures = {"Fréchet": (look, frechet_distance), "sliced": (look, sliced_feature_distance)}
    real, second = halves(images_of(data, 2 * n))
    mixed_in = resized(images_of(other, n).pixels, real.pixels.shape[1])
    rows = list(islice(ranking(measures, real, second, mixed_in), 1 + 3 * len(kinds)))
    for kind in kinds:
        for name in measures:
            strengths = [found[name] for each, _, found in rows if each in ("", kind)]
            yield kind, name, strengths


@pytest.mark.parametrize(
    ("data", "other", "n", "kinds"),
    [
        ("cars", "digits", 96, LOOKS),
        pytest.param("cars", "emoji", 256, LOOKS + SETS, marks=pytest.mark.long),
        pytest.param("emoji", "cars", 256, LOOKS + SETS, marks=pytest.mark.long),
    ],
)
def test_more_damage_is_further_from_real_images(
    data: str, other: str, n: int, kinds: tuple[str, ...]
) -> None:
    for kind, name, distances in ranked(data, other, n, kinds):
        assert len(distances) == 4
        assert all(less < more for less, more in pairwise(distances)), (kind, name, distances)


def test_both_halves_are_of_different_images() -> None:
    images = Images(np.arange(7)[:, None, None, None], np.arange(7))
    first, second = halves(images)
    assert first.labels.tolist() == [0, 1, 2] and second.pixels.ravel().tolist() == [3, 4, 5]
