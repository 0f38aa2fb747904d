"""The training images nearest to a sample: which, how far, mirrored or not, and the yardstick."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import numpy as np
import pytest

from diffusion_core.evaluation.evaluator import held_out_images, split_of
from diffusion_core.evaluation.image_metrics import nearest, thumbs
from diffusion_core.review import nearest as module
from diffusion_core.review.nearest import FEATURES, PIXELS, TrainingSet, read_training_set
from tests.tiny_runs import tiny

Result = TypeVar("Result")
CONFIG = tiny(data="cars:48", validation_count=4, random_flip=True)


def done(work: Generator[int, None, Result]) -> tuple[list[int], Result]:
    seen = []
    while True:
        try:
            seen.append(next(work))
        except StopIteration as end:
            return seen, end.value


@pytest.fixture(scope="module")
def cars() -> TrainingSet:
    return done(read_training_set(CONFIG))[1]


def test_a_training_image_is_its_own_nearest_also_mirrored(cars: TrainingSet) -> None:
    training, held_out = split_of(CONFIG, cars.store)
    assert (cars.rows == training).all() and cars.total == len(training) == 44
    [image] = cars.store.read(training[5:6]).transpose(0, 2, 3, 1)
    for given, mirrored in ((image, False), (image[:, ::-1], True)):
        found = cars.nearest(given, 3)
        assert set(found) == {PIXELS, FEATURES}
        for neighbours in found.values():
            first = neighbours[0]
            assert (first.row, first.mirrored) == (training[5], mirrored)
            assert first.distance == pytest.approx(0, abs=1e-4)
            assert [n.distance for n in neighbours] == sorted(n.distance for n in neighbours)
            assert (cars.image(first) == given).all()
    assert not set(held_out) & {n.row for n in cars.nearest(image, 44)[PIXELS]}


def test_distances_are_those_of_the_quality_page(cars: TrainingSet) -> None:
    training = cars.store.read(cars.rows).transpose(0, 2, 3, 1)
    _, held_out = done(held_out_images(CONFIG, cars.store, module.HELD_OUT, CONFIG.seed))
    index, distance = nearest(held_out.pixels, training, mirrored=True)
    np.testing.assert_allclose(cars.held_out[PIXELS], np.sort(distance), rtol=1e-4)
    neighbour = cars.nearest(held_out.pixels[0], 1)[PIXELS][0]
    assert neighbour.row == cars.rows[index[0]]
    assert neighbour.distance == pytest.approx(distance[0], rel=1e-4)
    assert cars.nearer_than(PIXELS, np.sort(distance)[31] + 1e-3) == 96 / 128
    assert thumbs(training).shape == (44, 16, 16, 3)


def test_of_many_images_some_are_searched_and_without_classifier_pixels_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_TRAINING", 10)
    monkeypatch.setattr(module, "PER_TURN", 4)
    monkeypatch.setattr(module, "feature_net", lambda *_: None)
    seen, found = done(read_training_set(CONFIG.replace(random_flip=False)))
    assert seen[:3] == [0, 4, 8]
    assert (len(found.rows), found.total) == (10, 44)
    assert list(found.points) == [PIXELS] and len(found.points[PIXELS]) == 1
