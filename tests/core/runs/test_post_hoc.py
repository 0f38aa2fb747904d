"""Averages whose length is chosen afterwards: densities, combinations, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from diffusion_core.runs.archive import export_archive
from diffusion_core.runs.archive_import import import_archive
from diffusion_core.runs.checkpoint import CheckpointError, load_model, load_weights
from diffusion_core.runs.post_hoc import (
    FARTHEST,
    MOST,
    OFFERED,
    STORED,
    PostHocError,
    can_make,
    combination,
    exponent_of,
    length_in,
    offered,
    overlap,
    power_decay,
    reconstruct,
    remove_after,
    save_snapshot,
    snapshot_path,
    snapshots_for,
)
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.training.step import update_average
from diffusion_core.training.trainer import train
from tests.tiny_runs import DEVICE, tiny

EVERY, STEPS = 50, 1000
SHAPES = {"weight": (3,), "count": ()}


def density(s: float, t: float, g: float) -> float:
    return (g + 1) * s**g / t ** (g + 1) if s <= t else 0.0


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.28])
def test_the_length_is_the_standard_deviation_of_the_density(length: float) -> None:
    g = exponent_of(length)
    mean, _ = quad(lambda s: s * density(s, 1, g), 0, 1)
    square, _ = quad(lambda s: s**2 * density(s, 1, g), 0, 1)
    assert (square - mean**2) ** 0.5 == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize(("t_1", "t_2"), [(300, 1000), (1000, 300), (500, 500)])
def test_overlaps_are_the_integrals_of_the_products(t_1: float, t_2: float) -> None:
    g_1, g_2 = exponent_of(0.05), exponent_of(0.15)
    whole, _ = quad(lambda s: density(s, t_1, g_1) * density(s, t_2, g_2), 0, min(t_1, t_2))
    found = overlap(*map(np.array, (t_1, g_1, t_2, g_2)))
    assert found == pytest.approx(whole, rel=1e-6)


def trajectory() -> np.ndarray:
    """Weights (STEPS, 3) that move fast at first, wander and settle."""
    t = np.arange(1, STEPS + 1)[:, None] / STEPS
    return np.concatenate([t**0.5, np.sin(9 * t) * (1 - t), 3 + np.exp(-5 * t)], axis=1)


def averages_of(length: float) -> np.ndarray:
    """The average after every step, as training computes it."""
    found, average = [], np.zeros(3)
    for step, weights in enumerate(trajectory(), 1):
        keep = power_decay(step, length)
        average = keep * average + (1 - keep) * weights
        found.append(average)
    return np.array(found)


def test_the_average_of_training_has_the_power_density() -> None:
    g, steps = exponent_of(0.07), np.arange(STEPS + 1) / STEPS
    shares = np.diff(steps ** (g + 1))  # the density's integral over each step
    assert averages_of(0.07)[-1] == pytest.approx(shares @ trajectory(), abs=1e-9)


@pytest.mark.parametrize("length", [0.03, 0.06, 0.075, 0.15, 0.2])
def test_a_length_between_is_that_of_the_average_that_was_not_followed(length: float) -> None:
    steps = tuple(range(EVERY, STEPS + 1, EVERY))
    coefficients, error = combination(steps, STEPS, length)
    assert error < 0.03
    stored = np.stack([averages_of(each)[[s - 1 for s in steps]] for each in STORED], axis=1)
    found = np.einsum("sl,sln->n", coefficients, stored)
    assert found == pytest.approx(averages_of(length)[-1], abs=2e-3)
    # The nearest stored one is further away.
    gaps = [np.abs(averages_of(each)[-1] - averages_of(length)[-1]).max() for each in STORED]
    assert np.abs(found - averages_of(length)[-1]).max() < 0.2 * min(gaps)


@pytest.mark.parametrize("k", range(len(STORED)))
def test_a_stored_length_is_its_own_snapshot(k: int) -> None:
    steps = tuple(range(EVERY, STEPS + 1, EVERY))
    coefficients, error = combination(steps, STEPS, STORED[k])
    expected = np.zeros((len(steps), len(STORED)))
    expected[-1, k] = 1
    assert coefficients == pytest.approx(expected, abs=1e-6)
    assert error < 1e-5


@pytest.mark.parametrize("length", OFFERED)
def test_weights_that_never_move_stay_what_they_are(length: float) -> None:
    for steps in ((400,), (100, 250, 400)):
        assert combination(steps, 400, length)[0].sum() == pytest.approx(1)


def test_only_lengths_that_the_snapshots_reach_are_offered() -> None:
    single, many = (1000,), tuple(range(50, 1001, 50))
    assert offered(single) == ("post-hoc 0.05", "post-hoc 0.075", "post-hoc 0.1")
    assert len(offered(many)) == len(OFFERED)
    assert offered(()) == ()
    assert combination(single, 1000, 0.2)[1] > FARTHEST
    assert can_make("post-hoc 0.064", single) and not can_make("post-hoc 0.02", single)


@pytest.mark.parametrize(
    "name", ["main", "post-hoc 0.10", "post-hoc 0.5", "post-hoc 0", "post-hoc", "post-hoc 1e-1"]
)
def test_an_average_has_one_name(name: str) -> None:
    assert length_in(name) is None
    assert length_in("post-hoc 0.1") == 0.1


# ---------------------------------------------------------------- files


def write(run: Path, *steps: int) -> None:
    paths = {length: averages_of(length) for length in STORED}
    for step in steps:
        weights = {
            length: {"weight": torch.tensor(path[step - 1]).float(), "count": torch.tensor(step)}
            for length, path in paths.items()
        }
        save_snapshot(run, step, weights)


def test_snapshots_in_float16_give_the_average_and_the_newest_count(tmp_path: Path) -> None:
    write(tmp_path, *range(EVERY, STEPS + 1, EVERY))
    found = reconstruct(tmp_path, STEPS, "post-hoc 0.075", SHAPES)
    assert found["weight"].tolist() == pytest.approx(averages_of(0.075)[-1].tolist(), abs=5e-3)
    assert found["weight"].dtype == torch.float32 and found["count"] == STEPS
    stored = reconstruct(tmp_path, STEPS, "post-hoc 0.1", SHAPES, only=["weight"])
    half = torch.tensor(averages_of(0.1)[-1]).half().float()
    assert stored.keys() == {"weight"} and torch.allclose(stored["weight"], half, atol=1e-6)
    # At an earlier snapshot only those up to there count.
    before = reconstruct(tmp_path, 500, "post-hoc 0.05", SHAPES)
    assert before["weight"].tolist() == pytest.approx(averages_of(0.05)[499].tolist(), abs=5e-3)
    assert before["count"] == 500


def test_what_is_missing_damaged_or_of_another_network_is_said(tmp_path: Path) -> None:
    write(tmp_path, 100, 200)
    assert snapshots_for(tmp_path, 200) == (100, 200) and snapshots_for(tmp_path, 150) == ()
    with pytest.raises(PostHocError, match=r"do not give 'post-hoc 0\.02' at step 200"):
        reconstruct(tmp_path, 200, "post-hoc 0.02", SHAPES)
    with pytest.raises(PostHocError, match=r"step-00000100\.safetensors is not of this run's"):
        reconstruct(tmp_path, 200, "post-hoc 0.1", SHAPES | {"weight": (4,)})
    snapshot_path(tmp_path, 100).write_bytes(b"cut")
    with pytest.raises(PostHocError, match="cannot be read: it is damaged or cut short"):
        reconstruct(tmp_path, 200, "post-hoc 0.1", SHAPES)
    remove_after(tmp_path, 100)
    assert snapshots_for(tmp_path, 200) == () and snapshots_for(tmp_path, 100) == (100,)


def test_a_weight_that_float16_cannot_hold_stays_as_it_is(tmp_path: Path) -> None:
    large = {"weight": torch.tensor([1e6, 1.0, 2.0])}
    save_snapshot(tmp_path, 1, {length: {"weight": large["weight"] + 0} for length in STORED})
    found = reconstruct(tmp_path, 1, "post-hoc 0.05", {"weight": (3,)})
    assert torch.allclose(found["weight"], large["weight"])


def test_of_very_many_snapshots_some_are_used_and_the_last(tmp_path: Path) -> None:
    folder = snapshot_path(tmp_path, 1).parent
    folder.mkdir()
    for step in range(1, 2 * MOST + 2):
        snapshot_path(tmp_path, step).touch()
    steps = snapshots_for(tmp_path, 2 * MOST + 1)
    assert len(steps) <= MOST and steps[-1] == 2 * MOST + 1 and steps[0] < 4


# ---------------------------------------------------------------- a training


def test_a_run_with_snapshots_can_be_sampled_with_any_length(tmp_path: Path) -> None:
    config = tiny(average_snapshots=2, checkpoint_every=3, sample_every=0, validate_every=0)
    train(tmp_path / "run", config, device=DEVICE)
    run = load_run(tmp_path / "run")
    assert [path.name for path in sorted((run.path / "averages").iterdir())] == [
        f"step-{step:08d}.safetensors" for step in (2, 4, 6, 8)
    ]
    last, between = run.checkpoint(8), run.checkpoint(3)
    assert between.averages == ("main",) and not between.has_average("post-hoc 0.05")
    assert last.averages[:2] == ("main", "post-hoc 0.05")
    found = load_weights(last, "post-hoc 0.062")
    assert found.keys() == load_weights(last).keys()
    assert load_model(last, average="post-hoc 0.062").model is not None
    can = Capabilities.of(last)
    assert can.has_average("post-hoc 0.062") and not can.has_average("post-hoc 0.01")
    with pytest.raises(CheckpointError, match=r"called 'post-hoc 0\.01'; it has main, post-hoc"):
        load_weights(last, "post-hoc 0.01")
    # An archive with all weights has the snapshots too.
    export_archive(run, tmp_path / "run.zip", "all")
    imported = import_archive(tmp_path / "run.zip", tmp_path, "other").checkpoint(8)
    assert imported.averages == last.averages
    there, here = (load_weights(each, "post-hoc 0.1") for each in (last, imported))
    assert all(torch.equal(there[name], here[name]) for name in there)


def test_the_power_averages_follow_the_weights_of_every_step() -> None:
    model, average = torch.nn.Linear(3, 1, bias=False), torch.nn.Linear(3, 1, bias=False)
    for step, weights in enumerate(trajectory(), 1):
        model.weight.data.copy_(torch.tensor(weights))
        update_average(average, model, power_decay(step, 0.1))
    assert average.weight[0].tolist() == pytest.approx(averages_of(0.1)[-1].tolist(), abs=1e-5)
