"""The shipped networks: what they know of images that they have never seen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_core.data.sources import cars, digits
from diffusion_core.evaluation import fidelity, image_metrics
from diffusion_core.evaluation.features import (
    ASSETS,
    GENERAL,
    FeatureNet,
    GeneralNet,
    feature_net,
    general_net,
)

UNSEEN_SEED = 77  # neither a run's nor that of the training of the networks


@pytest.fixture(scope="module")
def some_cars() -> tuple[np.ndarray, np.ndarray]:
    drawn = [cars.draw_car(index, UNSEEN_SEED) for index in range(400)]
    return np.stack([image for image, _ in drawn]), np.array([label for _, label in drawn])


@pytest.fixture(scope="module")
def car_net() -> FeatureNet:
    net = feature_net("cars:500")
    assert net is not None
    return net


@pytest.fixture(scope="module")
def general() -> GeneralNet:
    return general_net()


def right(net: FeatureNet, images: np.ndarray, labels: np.ndarray) -> float:
    return image_metrics.class_scores(net.features(images)[1], labels)["accuracy"]


def resized(images: np.ndarray, size: int) -> np.ndarray:
    return np.stack(
        [np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BOX)) for p in images]
    )


def test_features_are_float32_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    feature_net("cars")
    assert not torch.backends.cudnn.allow_tf32


def test_cars_that_it_has_never_seen_are_told_apart(some_cars, car_net: FeatureNet) -> None:
    images, labels = some_cars
    assert car_net.classes == cars.CLASSES
    assert right(car_net, images, labels) > 0.98
    assert right(car_net, images[:, :, ::-1], labels) > 0.98
    assert right(car_net, resized(images, 32), labels) > 0.95
    grey = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in images])[..., None]
    assert right(car_net, grey, labels) > 0.95


def test_digits_that_were_held_out_are_told_apart() -> None:
    net = feature_net("digits")
    assert net is not None and net.classes == digits.CLASSES
    drawn = [digits.draw_digit(index) for index in range(5, digits.COUNT, 6)]
    images, labels = np.stack([p for p, _ in drawn]), np.array([label for _, label in drawn])
    assert right(net, images, labels) > 0.97
    assert right(net, images[..., :1], labels) > 0.97
    assert right(net, resized(images, 16), labels) > 0.9


def test_the_features_have_their_shapes_and_do_not_depend_on_the_batch(
    some_cars, car_net: FeatureNet
) -> None:
    images = some_cars[0][:10]
    features, probabilities = car_net.features(images)
    assert features.shape == (10, 128) and features.dtype == np.float32
    assert probabilities.shape == (10, 8) and probabilities.dtype == np.float32
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5) and features.min() >= 0
    again = car_net.features(images, batch=3)
    assert np.allclose(again[0], features, atol=1e-4)
    assert np.allclose(again[1], probabilities, atol=1e-4)
    assert car_net.features(images[:0])[0].shape == (0, 128)


def test_worse_images_lie_further_away(some_cars, car_net: FeatureNet) -> None:
    """Real against real, then blurred, then noise: the floor, a fault and the ceiling."""
    images = some_cars[0]
    noise = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3)).astype(np.uint8)
    seen = [
        car_net.features(p)[0]
        for p in (images[:200], images[200:], resized(resized(images[200:], 16), 64), noise)
    ]
    floor, blurred, ceiling = (image_metrics.frechet_distance(seen[0], other) for other in seen[1:])
    assert 3 * floor < blurred and 10 * floor < ceiling
    one_kind = car_net.features(images[some_cars[1] == 6])[0]
    assert image_metrics.frechet_distance(seen[0], one_kind) > 3 * floor
    assert image_metrics.precision_recall(seen[0], seen[1])[0] > 0.5
    assert image_metrics.precision_recall(seen[0], seen[3])[0] < 0.1
    assert image_metrics.precision_recall(seen[0], one_kind)[1] < 0.5


def test_other_data_have_no_network_and_other_images_are_refused(car_net: FeatureNet) -> None:
    assert feature_net("folder:somewhere") is None
    assert feature_net("torchvision:cifar10") is None
    with pytest.raises(ValueError, match=r"uint8 of shape \(n, H, W, 3\)"):
        car_net.features(np.zeros((2, 3, 64, 64), np.uint8))
    with pytest.raises(ValueError, match="not float64"):
        car_net.features(np.zeros((2, 64, 64, 3)))


def test_the_shipped_weights_are_small() -> None:
    assert (ASSETS / GENERAL).stat().st_size < 3 * 10**6
    assert sum(file.stat().st_size for file in ASSETS.iterdir()) < 4 * 10**6


# ------------------------------------------------------------------ the general network


def test_general_features_are_of_any_size_and_colour_and_of_each_image_alone(
    general: GeneralNet, some_cars
) -> None:
    images = some_cars[0][:6]
    found = general.features(images)
    assert found.shape == (6, 128) and found.dtype == np.float32
    assert np.allclose(general.features(images, batch=4), found, atol=1e-3)
    assert np.allclose(general.features(images[::-1])[::-1], found, atol=1e-3)
    assert general.features(images[:0]).shape == (0, 128)
    grey = images[..., :1]
    expected = general.features(np.repeat(grey, 3, axis=3))
    assert np.allclose(general.features(grey), expected, atol=1e-3)
    small = general.features(resized(images, 32))
    nearest = np.linalg.norm(small[:, None] - found, axis=2).argmin(1)
    assert nearest.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="not float64"):
        general.features(np.zeros((2, 64, 64, 3)))


def test_general_features_tell_kinds_that_the_network_was_never_told(
    general: GeneralNet, some_cars
) -> None:
    """By the class of the nearest other car, of which chance gives one in eight."""
    images, labels = some_cars
    found = general.features(images)
    apart = np.square(found[:, None] - found).sum(2)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(1)] == labels).mean() > 0.3


# ---------------------------------------------------------------- FID and KID


def test_without_the_package_or_its_weights_a_sentence_says_what_is_missing(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity.importlib.util, "find_spec", lambda name: None)
    net, why = fidelity.load_inception()
    assert net is None and "torch-fidelity was not installed" in why

    monkeypatch.setattr(fidelity.importlib.util, "find_spec", lambda name: object())
    missing = tmp_path / fidelity.WEIGHTS
    net, why = fidelity.load_inception(weights=missing)
    assert net is None and f"{fidelity.WEIGHTS} was not found: there is no file {missing}." in why
    monkeypatch.setenv(fidelity.SETTING, str(tmp_path / "elsewhere"))
    assert f"there is no file {tmp_path / 'elsewhere'}." in fidelity.load_inception()[1]

    missing.write_bytes(b"not the weights")
    net, why = fidelity.load_inception(weights=missing)
    assert net is None and "damaged" in why


class Extractor(nn.Module):
    """Stands in for torch-fidelity's: each image's three means, the least and the largest."""

    def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        self.asked = (name, features, feature_extractor_weights_path)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        x = x.float().flatten(2)
        return (torch.cat([x.mean(2), x.amin(2)[:, :1], x.amax(2)[:, :1]], dim=1),)


def test_with_both_inception_is_made_of_the_local_file(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / fidelity.WEIGHTS
    weights.write_bytes(b"stand-in")
    package = SimpleNamespace(FeatureExtractorInceptionV3=Extractor)
    monkeypatch.setattr(fidelity, "CHECKSUM", fidelity._checksum(weights)[:8])
    monkeypatch.setattr(fidelity.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(fidelity.importlib, "import_module", {"torch_fidelity": package}.get)
    monkeypatch.setenv(fidelity.SETTING, str(weights))
    net, why = fidelity.load_inception()
    assert net is not None and why == ""
    assert net.model.asked == ("inception-v3-compat", ["2048"], str(weights))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    found = net.features(images, batch=2)
    assert found[:, :3] == pytest.approx(images.mean((1, 2)))
    assert found[:, 4].tolist() == images[..., 0].max((1, 2)).tolist()
    grey = net.features(images[..., :1])
    assert (grey[:, 0] == grey[:, 2]).all()


def test_fid_and_kid_have_intervals_and_kid_is_taken_of_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A subset of all images would always be the same one."""
    asked: list[dict] = []

    def kid(one: Tensor, other: Tensor, **options) -> dict[str, float]:
        asked.append(options)
        means = {"kernel_inception_distance_mean": 0.01, "kernel_inception_distance_std": 0.002}
        return means if len(one) >= options["kid_subset_size"] <= len(other) else {}

    package = SimpleNamespace(kid_features_to_metric=kid)
    packages = {"torch_fidelity.metric_kid": package}
    monkeypatch.setattr(fidelity.importlib, "import_module", packages.get)
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal((n, 6)).astype(np.float32) for n in (50, 40))
    found = fidelity.fidelity_estimates(real, fake, seed=3)
    assert found["fid"].value == image_metrics.frechet_distance(real, fake)
    assert found["fid"].low < found["fid"].value < found["fid"].high
    assert (found["kid"].value, found["kid"].high) == pytest.approx((10, 13.92), abs=1e-3)
    assert all((e.n_real, e.n_fake) == (50, 40) for e in found.values())
    many = np.zeros((3000, 2), np.float32)
    fidelity.fidelity_estimates(many, many)
    assert [options["kid_subset_size"] for options in asked] == [20, 1000]
    assert asked[0]["rng_seed"] == 3
    with pytest.raises(ValueError, match="at least 4 images of each kind, not 3"):
        fidelity.fidelity_estimates(real, fake[:3])
