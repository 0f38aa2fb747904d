"""The sliced Wasserstein distance of features against its definition, and its interval."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_core.evaluation import sliced_features
from diffusion_core.evaluation.intervals import WIDTH, half_samples
from diffusion_core.evaluation.sliced_features import (
    directions,
    sliced_feature_distance,
    sliced_feature_estimate,
)


def rows(n: int, d: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def by_definition(real: np.ndarray, fake: np.ndarray) -> float:
    """Both sets repeated to as many rows, the n-th smallest moved to the n-th smallest."""
    count = np.lcm(len(real), len(fake))
    squares = []
    for axis in directions(real.shape[1]):
        a, b = (np.sort(np.repeat(x @ axis, count // len(x))) for x in (real, fake))
        squares.append(np.square(a - b).mean())
    return float(np.sqrt(np.mean(squares)))


@pytest.mark.parametrize(("n", "m"), [(20, 20), (12, 9), (7, 30), (1, 5), (1, 1)])
def test_it_is_the_root_of_the_mean_squared_distance_of_equal_ranks(n: int, m: int) -> None:
    real, fake = rows(n), 1.5 * rows(m, seed=1) + 0.3
    expected = by_definition(real, fake)
    assert sliced_feature_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert sliced_feature_distance(fake, real) == pytest.approx(expected, rel=1e-6)


def test_equal_sets_lie_at_0_and_a_shift_at_its_length_by_the_root_of_the_dimensions() -> None:
    real = rows(40, 20)
    assert sliced_feature_distance(real, real[::-1]) == pytest.approx(0, abs=1e-7)
    assert sliced_feature_distance(real, np.tile(real, (2, 1))) == pytest.approx(0, abs=1e-7)
    assert sliced_feature_distance(real, real + 0.5) == pytest.approx(0.5, rel=0.1)


def test_it_sees_what_means_and_covariances_do_not_show() -> None:
    """Two points at ±1 and a Gaussian have the same first two moments."""
    rng = np.random.default_rng(0)
    pairs = np.where(rng.random((500, 1)) < 0.5, -1.0, 1.0)
    bell, other = (rng.standard_normal((500, 1)) for _ in range(2))
    assert sliced_feature_distance(pairs, bell) > 4 * sliced_feature_distance(bell, other)


def test_the_interval_is_that_of_the_distances_of_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, fake = rows(40), rows(31, seed=1) + 0.2
    found = sliced_feature_estimate(real, fake, seed=3)
    assert found.value == sliced_feature_distance(real, fake, seed=3)
    assert found == sliced_feature_estimate(real, fake, seed=3)
    monkeypatch.setattr(sliced_features, "DIRECTIONS", sliced_features.DIRECTIONS_OF_HALVES)
    halves = [sliced_feature_distance(real[a], fake[b], seed=3) for a, b in half_samples(40, 31, 3)]
    assert found.high - found.value == pytest.approx(WIDTH * np.std(halves, ddof=1))
    assert (found.n_real, found.n_fake) == (40, 31)


def test_the_interval_is_about_as_wide_as_the_distances_of_other_images_spread() -> None:
    estimates = [
        sliced_feature_estimate(rows(60, seed=2 * k), rows(60, seed=2 * k + 1) + 0.4)
        for k in range(25)
    ]
    spread = np.std([each.value for each in estimates], ddof=1)
    error = np.mean([(each.high - each.value) / WIDTH for each in estimates])
    assert 0.7 < error / spread < 1.5


def test_sets_of_other_features_and_empty_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of equally many features"):
        sliced_feature_distance(rows(3), rows(3, 4))
    with pytest.raises(ValueError, match="at least one image"):
        sliced_feature_distance(rows(3), rows(0))
