"""The quality metrics against plain references, and the intervals against repeated draws."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from diffusion_core.evaluation import image_metrics, sliced
from diffusion_core.evaluation.intervals import (
    Estimate,
    half_samples,
    half_sampling,
    mean_estimate,
    one_thread,
    wilson,
)
from diffusion_core.evaluation.sliced import laplacian_pyramid

RNG = np.random.default_rng


def two_sets(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    mixing = rng.standard_normal((d, d))
    real = rng.standard_normal((n, d)) @ mixing + 30  # far from 0, as features may be
    return real, rng.standard_normal((m, d)) @ mixing * 1.1 + 30.2


def images(n: int, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth blots, so that neighbours are alike as in an image."""
    noise = RNG(seed).standard_normal((n, size, size, channels))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="mirror")
    return (smooth / smooth.std() * 50 + 128).clip(0, 255).astype(np.uint8)


# ---------------------------------------------------------------- Fréchet distance


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 12), (30, 40, 128), (10, 500, 64)])
def test_the_frechet_distance_is_the_one_with_scipys_matrix_root(n: int, m: int, d: int) -> None:
    """Also with fewer rows than features, where scipy needs a little help to have a root."""
    real, fake = two_sets(n, m, d)
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    ridge = 1e-9 * np.trace(a) / d * np.eye(d)
    root = scipy.linalg.sqrtm((a + ridge) @ (b + ridge)).real
    gap = np.square(real.mean(0) - fake.mean(0)).sum()
    expected = gap + np.trace(a + b - 2 * root)
    assert image_metrics.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-3)
    if n > d:
        assert image_metrics.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-7)


def test_the_frechet_distance_of_equal_sets_is_0_and_of_shifted_ones_the_square_of_the_shift() -> (
    None
):
    real, _ = two_sets(300, 2, 20)
    assert image_metrics.frechet_distance(real, real) == pytest.approx(0, abs=1e-5)
    assert image_metrics.frechet_distance(real, real + 0.5) == pytest.approx(20 * 0.25, rel=1e-6)
    assert image_metrics.frechet_distance(real[:1], real[1:2]) == pytest.approx(
        np.square(real[0] - real[1]).sum()
    )


def test_sets_that_do_not_match_are_refused_with_a_sentence() -> None:
    real, fake = two_sets(5, 5, 4)
    with pytest.raises(ValueError, match="equally many features"):
        image_metrics.frechet_distance(real, fake[:, :3])
    with pytest.raises(ValueError, match="at least one image"):
        image_metrics.frechet_distance(real[:0], fake)
    with pytest.raises(ValueError, match="at least 2 images"):
        image_metrics.precision_recall(real[:1], fake)
    with pytest.raises(ValueError, match="between 1 and 20"):
        image_metrics.precision_recall(real, fake, 21)


# ---------------------------------------------------------------- precision and its kin


def plain_manifold(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, ...]:
    """Precision, recall, density and coverage, one pair of images after the other."""

    def radii(rows: np.ndarray) -> list[float]:
        found = []
        for i, row in enumerate(rows):
            others = sorted(math.dist(row, other) for j, other in enumerate(rows) if j != i)
            found.append(others[min(k, len(others)) - 1])
        return found

    of_real, of_fake = radii(real), radii(fake)
    inside = [
        [math.dist(r, f) <= radius for f in fake] for r, radius in zip(real, of_real, strict=True)
    ]
    back = [
        [math.dist(f, r) <= radius for r in real] for f, radius in zip(fake, of_fake, strict=True)
    ]
    precision = sum(any(row[j] for row in inside) for j in range(len(fake))) / len(fake)
    recall = sum(any(row[i] for row in back) for i in range(len(real))) / len(real)
    density = sum(map(sum, inside)) / (min(k, len(real) - 1) * len(fake))
    coverage = sum(map(any, inside)) / len(real)
    return precision, recall, density, coverage


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 30), m=st.integers(2, 30), k=st.integers(1, 6), seed=st.integers(0, 99))
def test_precision_recall_density_and_coverage_are_those_of_plain_loops(
    n: int, m: int, k: int, seed: int
) -> None:
    real, fake = two_sets(n, m, 3, seed)
    found = (
        *image_metrics.precision_recall(real, fake, k),
        *image_metrics.density_coverage(real, fake, k),
    )
    assert found == pytest.approx(plain_manifold(real, fake, k))


def test_they_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = two_sets(120, 90, 5)
    whole = (image_metrics.precision_recall(real, fake), image_metrics.density_coverage(real, fake))
    monkeypatch.setattr(image_metrics, "CHUNK", 7)
    assert (
        image_metrics.precision_recall(real, fake),
        image_metrics.density_coverage(real, fake),
    ) == whole


def test_the_halves_are_measured_as_if_they_were_the_sets() -> None:
    """The neighbours of the whole set, skipping those that are not there, are the half's own."""
    real, fake = two_sets(80, 70, 4)
    rng = RNG(1)
    rows, others = rng.permutation(80)[:40], rng.permutation(70)[:35]
    balls = image_metrics._Balls(real, fake).of_rows(rows, others)
    _, _, density, coverage = plain_manifold(real[rows], fake[others], 5)
    assert balls.density(5) == pytest.approx(density)
    assert balls.coverage(5) == pytest.approx(coverage)
    precision = plain_manifold(real[rows], fake[others], 3)[0]
    assert balls.share_inside(3) == pytest.approx(precision)


def test_equal_sets_are_all_covered_and_far_ones_not_at_all() -> None:
    real, _ = two_sets(60, 2, 6)
    twins = np.concatenate([real, real])  # many radii are 0
    assert image_metrics.precision_recall(real, real) == (1, 1)
    assert image_metrics.precision_recall(twins, twins, 1) == (1, 1)
    assert image_metrics.density_coverage(real, real)[1] == 1
    assert image_metrics.precision_recall(real, real + 1000) == (0, 0)
    assert image_metrics.density_coverage(real, real + 1000) == (0, 0)


# ---------------------------------------------------------------- classes


def test_the_class_scores_are_a_share_and_an_entropy() -> None:
    probabilities = np.eye(4)[[0, 0, 1, 2]]
    found = image_metrics.class_scores(probabilities, np.array([0, 1, 1, 2]))
    assert found["accuracy"] == 0.75
    assert found["balance"] == pytest.approx(scipy.stats.entropy([2, 1, 1]) / math.log(4))
    assert image_metrics.class_scores(np.eye(4)) == {"balance": 1}
    assert image_metrics.class_scores(np.eye(4)[[2, 2]])["balance"] == 0
    estimates = image_metrics.class_scores_estimates(
        np.eye(4)[np.arange(400) % 4], np.arange(400) % 4
    )
    assert estimates["accuracy"].high == 1 and 0.98 < estimates["accuracy"].low < 1
    assert estimates["balance"].high == 1
    assert estimates["accuracy"].n_real == 0 and estimates["accuracy"].n_fake == 400


# ---------------------------------------------------------------- copying


@pytest.mark.parametrize("size", [16, 24, 32])
def test_the_nearest_image_is_that_of_a_plain_search(size: int) -> None:
    real, fake = images(40, size), images(25, size, seed=1)
    fake[3] = real[7]
    fake[4] = real[9][:, ::-1]
    index, distance = image_metrics.nearest(fake, real)
    block = size // 16
    small = [
        p.astype(float).reshape(-1, size // block, block, size // block, block, 3).mean((2, 4))
        for p in (fake, real)
    ]
    root_mean = [[np.sqrt(np.square(f - r).mean()) for r in small[1]] for f in small[0]]
    assert index.tolist() == np.argmin(root_mean, axis=1).tolist()
    assert distance == pytest.approx(np.min(root_mean, axis=1), abs=1e-4)
    assert index[3] == 7 and distance[3] == 0
    index, distance = image_metrics.nearest(fake, real, mirrored=True)
    assert index[4] == 9 and distance[4] == 0


def test_neighbours_are_found_among_features_too() -> None:
    real, fake = two_sets(50, 30, 6)
    index, distance = image_metrics.nearest(fake, real)
    plain = np.linalg.norm(fake[:, None] - real, axis=2)
    assert index.tolist() == plain.argmin(1).tolist()
    assert distance == pytest.approx(plain.min(1))


def test_copies_stand_out_from_images_that_are_only_alike() -> None:
    everything = images(700)
    training, held_out, fresh = everything[:400], everything[400:550], everything[550:]
    noisy = training[:150] + RNG(0).integers(0, 9, (150, 32, 32, 3)).astype(np.uint8)
    far = image_metrics.nearest(held_out, training)[1]
    honest = image_metrics.copies_estimate(image_metrics.nearest(fresh, training)[1], far)
    copied = image_metrics.copies_estimate(image_metrics.nearest(noisy, training)[1], far)
    assert honest.low <= 0.05 <= honest.high < 0.2
    assert copied.value == 1 and copied.low > 0.9
    assert image_metrics.near_distance(far) == np.quantile(far, 0.05)


# ---------------------------------------------------------------- sliced Wasserstein distance


def test_the_pyramid_is_that_of_the_authors_code() -> None:
    """Karras et al. filter with a 5 x 5 kernel in scipy, mirrored, and enlarge by zeros."""
    row = np.array([1, 4, 6, 4, 1], np.float32)
    kernel = np.outer(row, row)[None, :, :, None] / 256
    level = images(3, 64).astype(np.float32)
    for found in laplacian_pyramid(images(3, 64))[:-1]:
        smaller = scipy.ndimage.convolve(level, kernel, mode="mirror")[:, ::2, ::2]
        larger = np.zeros_like(level)
        larger[:, ::2, ::2] = smaller
        larger = scipy.ndimage.convolve(larger, kernel * 4, mode="mirror")
        assert np.allclose(found, level - larger, atol=1e-3)
        level = smaller
    assert np.allclose(laplacian_pyramid(images(3, 64))[-1], level, atol=1e-3)
    assert [p.shape[1] for p in laplacian_pyramid(images(2, 48))] == [48, 24]


def test_along_one_direction_it_is_scipys_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "DIRECTIONS", 1)
    real, fake = images(6, 16), 255 - images(6, 16, seed=1) // 2
    ((_, axes, a, b),) = sliced._levels(real, fake, 0)
    assert axes.shape == (3, 1, 49)
    assert np.linalg.norm(axes) == pytest.approx(1, rel=1e-3)
    along = [np.einsum("cp,cnep->ne", axes[:, 0], patches).ravel() for patches in (a, b)]
    expected = scipy.stats.wasserstein_distance(*along) * 1000
    assert sliced.sliced_wasserstein(real, fake)[16] == pytest.approx(expected, rel=1e-3)
    assert a.shape == (3, 6, 128, 49)
    assert a.mean((1, 2, 3)) == pytest.approx([0] * 3, abs=1e-4)
    assert a.std((1, 2, 3)) == pytest.approx([1] * 3, abs=1e-4)


@pytest.fixture
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "DESCRIPTORS", 4096)
    monkeypatch.setattr(sliced, "DIRECTIONS", 32)


@pytest.mark.usefixtures("few_patches")
def test_it_says_of_which_size_the_wrong_details_are() -> None:
    everything = images(128, 64)
    real, alike = everything[:64], everything[64:]
    specks = np.where(RNG(5).random(alike.shape) < 0.01, 255, alike).astype(np.uint8)
    floor, dirty = (
        sliced.sliced_wasserstein(real, alike),
        sliced.sliced_wasserstein(real, specks),
    )
    assert list(floor) == [64, 32, 16]
    assert dirty[64] > 2 * floor[64] and dirty[16] < 1.3 * floor[16]
    assert floor == sliced.sliced_wasserstein(real, alike)
    grey = sliced.sliced_wasserstein(real[..., :1], alike[..., :1])
    assert list(grey) == [64, 32, 16] and grey[64] > 0


@pytest.mark.usefixtures("few_patches")
def test_its_estimate_has_the_same_values_and_their_mean() -> None:
    real, fake = images(40, 32), images(50, 32, seed=1)
    values = sliced.sliced_wasserstein(real, fake)
    found = sliced.sliced_wasserstein_estimates(real, fake)
    assert list(found) == ["32", "16", "mean"]
    assert found["32"].value == values[32] and found["16"].value == values[16]
    assert found["mean"].value == pytest.approx(np.mean(list(values.values())))
    assert all(0 <= e.low < e.value < e.high and e.n_fake == 40 for e in found.values())


def test_a_half_is_measured_as_a_set_of_its_own_would_be() -> None:
    """Normalised by its own mean and spread, not by those of the set that it is half of."""
    rng = RNG(0)
    sets = [rng.gamma(2, 1, (3, 20, 1, 1)) * rng.standard_normal((3, 20, 5, 49)) for _ in range(2)]
    real, fake = (patches.astype(np.float32) for patches in sets)
    axes = rng.standard_normal((3, 4, 49)).astype(np.float32)
    pairs = half_samples(20, 20, 0, 5)
    found = sliced._distances_of_halves(axes, real, fake, pairs)
    expected = []
    for rows in pairs:
        halves = [
            sliced._normalised(patches[:, of_set].transpose(1, 2, 3, 0).reshape(10, 5, 7, 7, 3))
            for patches, of_set in zip((real, fake), rows, strict=True)
        ]
        along = [np.einsum("cdp,cnep->dne", axes, half).reshape(4, -1) for half in halves]
        each = [scipy.stats.wasserstein_distance(a, b) for a, b in zip(*along, strict=True)]
        expected.append(1000 * np.mean(each))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("few_patches")
@pytest.mark.parametrize("gain", [1, 1.6])
def test_its_interval_is_about_as_wide_as_repeated_measurements_are_spread(
    gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images differ most in their colours and contrast, which the normalisation takes out."""
    monkeypatch.setattr(sliced, "DESCRIPTORS", 1024)

    def varied(trial: int, gain: float) -> np.ndarray:
        rng = RNG([9, trial, int(gain * 10)])
        colour, contrast = rng.normal(128, 30, (64, 1, 1, 3)), rng.gamma(4, gain / 4, (64, 1, 1, 1))
        texture = images(64, 16, seed=trial * 10 + int(gain)).astype(float) - 128
        return (colour + contrast * texture).clip(0, 255).astype(np.uint8)

    found = [
        sliced.sliced_wasserstein_estimates(varied(k, 1), varied(k + 100, gain), seed=k)["mean"]
        for k in range(30)
    ]
    spread = np.std([e.value for e in found], ddof=1)
    width = np.mean([e.high - e.value for e in found]) / 1.96
    assert covered(found) > 0.88
    assert 0.8 * spread < width < 1.7 * spread


def test_images_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="one size and colour"):
        sliced.sliced_wasserstein(images(2, 32), images(2, 16))
    with pytest.raises(ValueError, match="16 pixels or more"):
        sliced.sliced_wasserstein(images(2, 8), images(2, 8))
    with pytest.raises(ValueError, match="one size and colour"):
        image_metrics.nearest(images(2, 32), images(2, 16))


# ---------------------------------------------------------------- intervals


def covered(estimates: list[Estimate]) -> float:
    """The share of repeated measurements whose interval holds the mean of all of them."""
    truth = np.mean([e.value for e in estimates])
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def test_intervals_hold_what_many_measurements_give_on_average() -> None:
    """95 % of them, or a little more; with 60 measurements 88 % is about the least by chance."""
    found: dict[str, list[Estimate]] = {}
    for trial in range(60):
        rng = RNG([7, trial])
        real, fake = rng.standard_normal((70, 4)), rng.standard_normal((70, 4)) * 1.3 + 0.5
        measured = {"frechet": image_metrics.frechet_estimate(real, fake, trial)}
        measured |= image_metrics.manifold_estimates(real, fake, trial)
        for name, estimate in measured.items():
            found.setdefault(name, []).append(estimate)
    assert list(found) == ["frechet", "precision", "recall", "density", "coverage"]
    for name, estimates in found.items():
        assert covered(estimates) > 0.88, name
        # And they are of use: not many times as wide as the values are spread.
        width = np.mean([e.high - e.low for e in estimates])
        spread = np.std([e.value for e in estimates])
        assert width < 2 * 1.96 * spread * 1.6, name


def test_where_both_sets_are_of_one_kind_the_interval_is_wide_enough_too() -> None:
    found = []
    for trial in range(60):
        rng = RNG([8, trial])
        found.append(
            image_metrics.frechet_estimate(
                rng.standard_normal((60, 6)), rng.standard_normal((60, 6))
            )
        )
    assert covered(found) > 0.88


def test_halves_of_a_mean_have_its_standard_error() -> None:
    rng = RNG(0)
    real, fake = rng.standard_normal(400) + 5, rng.standard_normal(900) * 3 + 50
    found = half_sampling(
        lambda r, f: {"gap": fake[f].mean() - real[r].mean()}, 400, 900, repeats=2000
    )
    error = math.hypot(real.std(ddof=1) / 20, fake.std(ddof=1) / 30)
    assert found["gap"].high - found["gap"].value == pytest.approx(1.96 * error, rel=0.05)
    plain = mean_estimate(fake)
    assert plain.high - plain.low == pytest.approx(2 * 1.96 * fake.std(ddof=1) / 30, rel=1e-3)
    assert mean_estimate(np.array([3.0])).high == math.inf


def test_a_share_of_nothing_or_of_all_has_an_interval_all_the_same() -> None:
    """Wilson's, which statistics books give for 0 of 10: up to 0.278."""
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-3)
    reference = scipy.stats.binomtest(37, 90).proportion_ci(method="wilson")
    assert wilson(37 / 90, 90) == pytest.approx((reference.low, reference.high), rel=1e-5)
    found = half_sampling(lambda r, f: {"hits": 0.0}, 0, 10, shares={"hits": 10})["hits"]
    assert (found.low, found.value, found.high) == pytest.approx((0, 0, 0.2775), abs=1e-3)


def test_the_same_seed_gives_the_same_interval_and_two_images_are_enough() -> None:
    real, fake = two_sets(2, 2, 8)
    assert image_metrics.frechet_estimate(real, fake, 3) == image_metrics.frechet_estimate(
        real, fake, 3
    )
    for estimate in image_metrics.manifold_estimates(real, fake).values():
        assert math.isfinite(estimate.low) and math.isfinite(estimate.high)
    a, b = images(2, 16), images(2, 16, seed=1)
    mean = sliced.sliced_wasserstein_estimates(a, b)["mean"]
    assert 0 <= mean.low <= mean.value <= mean.high


def test_of_two_half_samplings_at_once_the_second_waits_and_the_threads_are_as_they_were() -> None:
    """Else the second would put back the limit that the first has set."""

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    first_is_in, second_is_in = threading.Event(), threading.Event()
    seen: list[object] = []

    @one_thread
    def first() -> None:
        first_is_in.set()
        seen.append(second_is_in.wait(0.2))
        seen.append(set(threads()))

    before = threads()
    one, two = threading.Thread(target=first), threading.Thread(target=one_thread(second_is_in.set))
    one.start()
    first_is_in.wait()
    two.start()
    one.join()
    two.join()
    assert seen == [False, {1}] and second_is_in.is_set()
    assert threads() == before
