"""A checkpoint as a file for the engine in the browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import Checkpoint, load_weights, read_checkpoint, save_weights
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import preset
from diffusion_core.sampling.browser_model import (
    BrowserModel,
    BrowserModelError,
    browser_model,
    why_not_in_browser,
)
from tests.tiny_runs import CLASSES, LECTURE, TINY, tiny, write_checkpoint


def checkpoint_of(folder: Path, config: RunConfig = TINY) -> Checkpoint:
    return read_checkpoint(write_checkpoint(folder, 7, config))


def read(data: bytes) -> tuple[BrowserModel, dict[str, torch.Tensor]]:
    length = int.from_bytes(data[:8], "little")
    said = json.loads(data[8 : 8 + length])["__metadata__"]["model"]
    return BrowserModel.model_validate_json(said), safetensors.torch.load(data)


def test_the_file_has_the_weights_in_half_precision_and_the_schedule(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path)
    _, tensors = read(browser_model(checkpoint))
    alpha, sigma = tensors.pop("schedule.alpha"), tensors.pop("schedule.sigma")
    schedule = NoiseSchedule("cosine", 20)
    np.testing.assert_array_equal(alpha, schedule.exact_signal)
    np.testing.assert_array_equal(sigma, schedule.exact_spread)
    weights = load_weights(checkpoint)
    assert tensors.keys() == weights.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, weights[name].half())


def test_the_file_says_what_the_engine_must_know(tmp_path: Path) -> None:
    args = {"widths": [8, 128], "blocks": 1, "attention_levels": [1], "num_classes": 3}
    config = tiny(network_args=args | {"patch": 4}, image_size=32, label_dropout=0.0)
    model, _ = read(browser_model(checkpoint_of(tmp_path, config)))
    assert (model.step, model.image_size, model.channels, model.patch) == (7, 32, 3, 4)
    assert (model.classes, model.any_class) == (CLASSES, False)
    assert model.embedding == 8
    assert model.groups["norm"] == 2 and model.groups["middle.0.attention.norm"] == 32
    assert set(model.heads.values()) == {2}
    assert list(model.samplers) == ["dpmpp_2m", "ddim", "consistency"]


@pytest.mark.parametrize(
    ("settings", "samplers"),
    [
        ({"prediction_type": "flow_prediction", "schedule": {"timesteps": 20}}, ["euler"]),
        # DPM-Solver++ cannot start where nothing of the image is left.
        ({"schedule": {"timesteps": 20, "rescale_zero_terminal_snr": True}}, ["ddim"]),
    ],
    ids=["flow", "pure noise"],
)
def test_only_samplers_that_fit_are_offered(
    settings: dict[str, Any], samplers: list[str], tmp_path: Path
) -> None:
    model, _ = read(browser_model(checkpoint_of(tmp_path, tiny(**settings))))
    assert list(model.samplers) == [*samplers, "consistency"]
    assert model.samplers["consistency"] == "Predict and add noise"


@pytest.mark.parametrize("prediction_type", ["v_prediction", "flow_x_0"])
def test_a_distilled_run_has_its_own_sampler_alone(prediction_type: str, tmp_path: Path) -> None:
    settings = {"objective": "consistency", "init_from": "teacher", "min_snr_gamma": 0.0}
    config = tiny(prediction_type=prediction_type, schedule={"timesteps": 20}, **settings)
    model, _ = read(browser_model(checkpoint_of(tmp_path, config)))
    assert model.samplers == {"consistency": "Consistency"}
    assert model.usual_steps == 2


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (TINY, ""),
        (preset("tiny"), ""),
        (LECTURE, "does not have the layers of the network lecture"),
        (preset("small"), "64 pixels a side; in the browser at most 32"),
        (
            tiny(network_args={"widths": [128, 256], "attention_levels": []}),
            "parameters; in the browser at most 2,500,000",
        ),
    ],
    ids=["tiny", "preset tiny", "lecture", "large images", "large network"],
)
def test_what_does_not_fit_says_why(config: RunConfig, why: str) -> None:
    found = why_not_in_browser(config)
    assert (why in found) if why else not found


def test_a_network_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrowserModelError, match="the network lecture"):
        browser_model(checkpoint_of(tmp_path, LECTURE))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_weights_without_a_half_are_refused(value: float, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path)
    weights = load_weights(checkpoint)
    weights["stem.bias"][0] = value
    save_weights(tmp_path, 7, weights, TINY, CLASSES)
    with pytest.raises(BrowserModelError, match=r"stem\.bias that are not finite or too large"):
        browser_model(checkpoint)
