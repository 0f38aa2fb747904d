"""What the evaluations of a run say: better or not, memorised or not, averages behind or not."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_core.data.store import build_store
from diffusion_core.evaluation.image_metrics import copies_estimate, nearest
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.progress import (
    average_sentence,
    compared_by,
    expected_copies,
    memorisation_sentence,
    memorises,
    scalars,
    without_better,
)
from diffusion_core.runs.metrics import BEHIND, LOW
from tests.tiny_runs import tiny


def estimate(value: float, half: float = 1.0) -> Estimate:
    return Estimate(value, value - half, value + half, 64, 64)


@pytest.mark.parametrize(
    ("values", "without"),
    [
        ([], 0),
        ([9], 0),
        ([9, 7, 5], 0),
        ([9, 8.5], 1),  # within the interval of 9
        ([9, 8.5, 7.9], 0),  # no longer
        ([9, 8.5, 8.2, 10, 8.1], 4),
        ([9, 5, 6, 7], 2),
    ],
)
def test_better_is_below_the_interval_of_the_best_before(values: list[float], without: int) -> None:
    assert without_better([estimate(value) for value in values]) == without


def test_steps_are_compared_by_what_was_measured_of_all_of_them() -> None:
    both = {"frechet": estimate(1), "sliced_wasserstein": estimate(2)}
    pixels = {"sliced_wasserstein": estimate(3)}
    for evaluations, name in (
        ([both, both], "frechet"),
        ([both, pixels], "sliced_wasserstein"),
        ([pixels, {"copies": estimate(0)}], None),
        ([], None),
    ):
        metric = compared_by(evaluations)
        assert (metric and metric.name) == name


def test_the_curves_have_plain_names_and_the_ends_of_the_interval() -> None:
    assert scalars({"frechet": estimate(5), "recall": estimate(0.5)}) == {
        "evaluation.frechet_distance": 5,
        "evaluation.frechet_distance.low": 4,
        "evaluation.frechet_distance.high": 6,
    }


def digits(first: int, count: int) -> np.ndarray:
    """uint8 (count, 16, 16, 1), which nobody has sorted."""
    store = build_store("digits", 16, 1, workers=0)
    order = np.random.default_rng(0).permutation(len(store))
    return store.read(np.sort(order[first : first + count])).transpose(0, 2, 3, 1)


def share_of_copies(samples: np.ndarray) -> Estimate:
    """Where the first 1,000 digits are trained on and the next 200 are held out."""
    training, held_out = digits(0, 1000), digits(1000, 200)
    return copies_estimate(nearest(samples, training)[1], nearest(held_out, training)[1])


def test_samples_that_copy_training_images_raise_the_alarm_and_new_images_do_not() -> None:
    new = digits(1200, 200)
    assert not memorises(share_of_copies(new))
    rng = np.random.default_rng(0)
    noise = rng.integers(-4, 5, (200, 16, 16, 1))
    copied = (digits(0, 200).astype(int) + noise).clip(0, 255).astype(np.uint8)
    alarm = share_of_copies(copied)
    assert memorises(alarm) and alarm.value > 0.95
    last = {name: (400, value) for name, value in scalars({"copies": alarm}).items()}
    sentence = memorisation_sentence(last)
    assert sentence.startswith("Memorisation: 100.0 % (") and "of step 400 are near" in sentence
    assert sentence.endswith("Without memorisation it would be 5 %, at most 9.3 %.")
    # A third of the images is enough; one in fifty is no more than chance.
    assert memorises(share_of_copies(np.concatenate([copied[:67], new[:133]])))
    few = share_of_copies(np.concatenate([copied[:4], new[:196]]))
    assert not memorises(few)
    last = {name: (400, value) for name, value in scalars({"copies": few}).items()}
    assert memorisation_sentence(last) == memorisation_sentence({}) == ""


def test_without_memorisation_the_alarm_is_rare() -> None:
    rng = np.random.default_rng(0)
    counts = {"inside": 0, "alarms": 0}
    for _ in range(20):  # networks whose samples are as far from the training images as held-out
        held_out, samples = rng.gamma(5, 1, 100), rng.gamma(5, 1, 100)
        found = copies_estimate(samples, held_out)
        expected = expected_copies(100, 100)
        counts["inside"] += expected.low <= found.value <= expected.high
        counts["alarms"] += memorises(found)
    assert counts["inside"] >= 18 and counts["alarms"] <= 1


def test_averaged_weights_that_are_behind_are_said_with_the_shorter_average() -> None:
    config = tiny(ema_decay=0.999, ema_decays={"short": 0.9, "long": 0.9999})
    last = {BEHIND: (400, 0.25), BEHIND + LOW: (400, 0.2)}
    assert average_sentence(config, last) == (
        "The averaged weights (main, 0.999) are still behind the raw ones: at step 400 their "
        "validation loss is 25 % higher. To get better samples, use the average short, or train "
        "longer, or with a smaller ema_decay."
    )
    alone = average_sentence(config.replace(ema_decays={}), last)
    assert alone.endswith("To get better samples, train longer, or with a smaller ema_decay.")
    assert average_sentence(config, {BEHIND: (400, 0.3), BEHIND + LOW: (400, 0.002)}) == ""
    assert average_sentence(config, {}) == ""
