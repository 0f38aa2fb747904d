"""Augmentation: what is done to images is what is told of them, and nothing of it is sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_core.data.store import build_store
from diffusion_core.models.unet import Unet
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs import checkpoint
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.origin import load_origin
from diffusion_core.runs.run import load_run
from diffusion_core.training.augmentation import DIMENSIONS, change_images, draw_changes
from diffusion_core.training.batches import Batch, make_batch
from diffusion_core.training.trainer import train
from tests.tiny_runs import DEVICE, tiny, write_run

UNITS = {name: k for k, name in enumerate(("x", "y", "cos", "sin", "scale", "angle", "right"))}


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def told(**values: float) -> torch.Tensor:
    changes = torch.zeros(1, DIMENSIONS)
    for name, value in values.items():
        changes[0, UNITS[name]] = value
    return changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (told(), image()),
        (told(x=1), image().flip(-1)),
        (told(y=1), image().flip(-2)),
        (told(cos=-2), image().rot90(2, (-2, -1))),
        (told(cos=-1, sin=1), image().rot90(-1, (-2, -1))),  # clockwise on a screen
        (told(x=1, cos=-1, sin=-1), image().flip(-1).rot90(1, (-2, -1))),
    ],
)
def test_flips_and_quarter_turns_move_pixels_and_change_none(
    changes: torch.Tensor, expected: torch.Tensor
) -> None:
    assert change_images(image(), changes).allclose(expected, atol=1e-4)


def test_an_image_moves_by_an_eighth_a_unit_and_mirrors_what_comes_in() -> None:
    found = change_images(image(), told(right=1))  # two of sixteen pixels
    assert found[..., 2:].allclose(image()[..., :-2], atol=1e-4)
    assert found[..., :2].allclose(image()[..., :2].flip(-1), atol=1e-4)


def test_an_image_grows_around_its_centre_and_turns_by_at_most_15_degrees() -> None:
    ramp = torch.linspace(-0.5, 0.5, 17)[:-1] + 1 / 32
    x = ramp.expand(1, 3, 16, 16)
    larger = change_images(x, told(scale=5))  # 2 ** (0.2 * 5)
    assert larger[0, 0, 8, 4:12].allclose(x[0, 0, 8, 4:12] / 2, atol=6e-3)
    turned = change_images(x, told(angle=1))[0, 0, 6:10, 6:10]
    slopes = turned.diff(dim=1).mean(), turned.diff(dim=0).mean()
    assert float(torch.atan2(slopes[1], slopes[0])) == pytest.approx(np.pi / 12, abs=0.02)


def test_an_image_that_is_not_changed_stays_as_it_is_to_the_last_bit() -> None:
    both = torch.cat([image(1), image(2)])
    found = change_images(both, torch.cat([told(), told(angle=0.5)]))
    assert torch.equal(found[0], both[0]) and not torch.equal(found[1], both[1])
    assert found.abs().max() <= 1


def test_every_change_comes_as_often_as_asked() -> None:
    drawn = draw_changes(20_000, 0.3, torch.Generator().manual_seed(0))
    shares = (drawn != 0).float().mean(0).tolist()
    # Of a flip half, of quarter turns a quarter are none; two turns have no sine.
    wanted = [0.15, 0.15, 0.3 * 3 / 4, 0.3 / 2, 0.3, 0.3, 0.3, 0.3]
    assert shares == pytest.approx(wanted, abs=0.012)
    assert drawn[:, 4].square().mean() == pytest.approx(0.3, abs=0.02)
    assert drawn[:, 5].abs().max() <= 1
    assert not draw_changes(50, 0.0, torch.Generator()).any()


def batch(config: RunConfig, **how: Any) -> Batch:
    store = build_store("cars:48", 16, 3, workers=0)
    device = torch.device("cpu")
    schedule = NoiseSchedule("cosine", 20)
    return make_batch(config, store, np.arange(48), 3, schedule=schedule, device=device, **how)


def test_a_batch_says_what_was_done_to_its_images_and_is_else_the_one_without() -> None:
    plain, changed = batch(tiny(batch_size=8)), batch(tiny(batch_size=8, augment=0.2))
    assert plain.augment is None and changed.augment is not None
    assert torch.equal(plain.t, changed.t) and torch.equal(plain.noise, changed.noise)
    told = (changed.augment != 0).any(1)
    assert 0 < told.sum() < 8
    different = (plain.x_0 != changed.x_0).flatten(1).any(1)
    assert torch.equal(told, different)
    assert torch.equal(changed.part(2, 3).augment, changed.augment[2:5])


@pytest.mark.parametrize("immiscible", [False, True])
def test_several_processes_share_the_changes_of_one(immiscible: bool) -> None:
    config = tiny(batch_size=8, augment=0.5, immiscible=immiscible)
    whole = batch(config)
    for k in range(2):
        share = batch(config, process=k, processes=2)
        assert torch.equal(share.augment, whole.augment[k::2])
        assert share.x_0.allclose(whole.x_0[k::2], atol=1e-6)
        assert torch.equal(share.noise, whole.noise[k::2])


def test_of_an_unchanged_image_the_network_answers_as_one_that_is_told_nothing() -> None:
    torch.manual_seed(0)
    plain = Unet(widths=[8], blocks=1, attention_levels=[0], patch=1)
    torch.manual_seed(0)
    network = Unet(widths=[8], blocks=1, attention_levels=[0], patch=1, augment_dim=DIMENSIONS)
    both = plain.state_dict()
    assert network.state_dict().keys() - both.keys() == {"augment_embedding.weight"}
    assert all(torch.equal(network.state_dict()[name], both[name]) for name in both)
    for name, parameter in network.named_parameters():
        if "augment" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    t = torch.zeros(1, dtype=torch.long)
    bare = network(image(), t)
    assert torch.equal(network(image(), t, augment=told()), network(image(), t))
    assert torch.equal(network(image(), t), bare)
    assert not network(image(), t, augment=told(x=1)).allclose(bare, atol=1e-3)


def test_a_run_learns_what_it_is_told_and_starts_from_one_that_was_not(tmp_path: Path) -> None:
    small = {"widths": [8], "blocks": 1, "attention_levels": [0]}
    write_run(tmp_path, "before", 4, config=tiny(network_args=small))
    config = tiny(network_args=small, augment=0.5, steps=4, sample_every=0, init_from="before")
    config = config.replace(class_conditional=False)
    train(tmp_path / "run", config, device=DEVICE)
    found = load_run(tmp_path / "run").checkpoint(4)
    assert found.config.network_args["augment_dim"] == DIMENSIONS
    weights = checkpoint.load_weights(found)
    begun = load_origin(tmp_path / "run", (), DIMENSIONS)["augment_embedding.weight"]
    assert begun.std() > 0.5  # heard from the first step
    assert (weights["augment_embedding.weight"] - begun).abs().max() > 0
    # And back: what it was told is left out.
    back = config.replace(augment=0.0, init_from="run", steps=1)
    train(tmp_path / "back", back, device=DEVICE)
    now = checkpoint.load_weights(load_run(tmp_path / "back").checkpoint(1))
    assert "augment_embedding.weight" not in now


def test_the_lectures_network_cannot_be_told() -> None:
    with pytest.raises(ConfigError, match="augment needs the network unet"):
        RunConfig(network="lecture", augment=0.1)
