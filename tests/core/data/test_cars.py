"""The procedural cars: reproducible, balanced, and different where they should differ."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_core.data.sources.cars import CLASSES, SIZE, draw_car

PER_CLASS = 40


@pytest.fixture(scope="module")
def cars() -> tuple[np.ndarray, np.ndarray]:
    drawn = [draw_car(index) for index in range(PER_CLASS * len(CLASSES))]
    return np.stack([image for image, _ in drawn]), np.array([label for _, label in drawn])


def edges(images: np.ndarray) -> np.ndarray:
    """Edge strengths of each image plus its mirror image; (n, 64, 64, 3) to (n, 4096), unit."""
    grey = images.astype(np.float64).mean(axis=-1)
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.minimum(np.abs(down) + np.abs(across), 40)
    flat = (strength + strength[:, :, ::-1]).reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def test_image_is_a_uint8_rgb_square() -> None:
    image, label = draw_car(5)
    assert image.shape == (SIZE, SIZE, 3) == (64, 64, 3)
    assert image.dtype == np.uint8
    assert isinstance(label, int) and CLASSES[label] == "lorry"


def test_same_index_and_seed_give_the_same_bytes_in_any_order() -> None:
    forwards = [draw_car(i, seed=3)[0].tobytes() for i in range(16)]
    backwards = [draw_car(i, seed=3)[0].tobytes() for i in reversed(range(16))]
    assert forwards == backwards[::-1]


def test_every_index_and_every_seed_give_another_image(
    cars: tuple[np.ndarray, np.ndarray],
) -> None:
    images, _ = cars
    assert len({image.tobytes() for image in images}) == len(images)
    assert len({draw_car(7, seed)[0].tobytes() for seed in range(32)}) == 32


@pytest.mark.long
def test_labels_are_balanced_in_the_first_800() -> None:
    labels = [draw_car(index)[1] for index in range(800)]
    assert np.bincount(labels).tolist() == [100] * len(CLASSES)


def test_images_use_a_wide_range_of_tones_without_clipping(
    cars: tuple[np.ndarray, np.ndarray],
) -> None:
    images, _ = cars
    assert images.std(axis=(1, 2, 3)).min() > 12
    burnt_out = (images == 255).all(axis=-1).mean(axis=(1, 2))
    assert burnt_out.max() < 0.05


def test_labels_can_be_told_from_the_shapes(cars: tuple[np.ndarray, np.ndarray]) -> None:
    """The kinds' mean edges in one half name the other half's images well above chance, 1/8."""
    images, labels = cars
    half = len(images) // 2
    known, unknown = edges(images[:half]), edges(images[half:])
    means = np.stack([known[labels[:half] == k].mean(axis=0) for k in range(len(CLASSES))])
    named = (unknown @ means.T).argmax(axis=1)
    right = named == labels[half:]
    assert right.mean() > 0.5
    for k, name in enumerate(CLASSES):
        assert right[labels[half:] == k].mean() > 0.125, name


def test_cars_fill_most_of_the_width_and_stand_on_dark_tyres(
    cars: tuple[np.ndarray, np.ndarray],
) -> None:
    """Tyres are the darkest thing low in an image: two groups of them, far apart."""
    images, labels = cars
    for image, label in zip(images, labels, strict=True):
        dark = image[40:52].max(axis=-1) < 52
        columns = np.flatnonzero(dark.sum(axis=0) >= 2)
        span = columns.max() - columns.min()
        assert 0.5 * SIZE < span < 0.95 * SIZE, CLASSES[label]


def test_cars_face_both_ways(cars: tuple[np.ndarray, np.ndarray]) -> None:
    """A lorry's load is tall, its cab is not: the load's side tells where it faces."""
    images, labels = cars
    lorries = images[labels == CLASSES.index("lorry")].astype(np.float64)
    heavy = np.abs(np.diff(lorries.mean(axis=-1), axis=1))[:, 14:30, :]
    left, right = heavy[:, :, 6:30].sum(axis=(1, 2)), heavy[:, :, 34:58].sum(axis=(1, 2))
    facing_right = int((left > right).sum())
    assert PER_CLASS * 0.2 < facing_right < PER_CLASS * 0.8


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused_in_one_sentence(index: int, seed: int) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        draw_car(index, seed)
