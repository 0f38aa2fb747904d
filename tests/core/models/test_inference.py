"""The form of a network that draws fastest: the same numbers, to its precision."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diffusion_core.device import has_fast_bfloat16
from diffusion_core.models import inference
from diffusion_core.models.inference import (
    CastConvolution,
    PackedConvolution,
    for_sampling,
    memory_of,
)
from diffusion_core.models.trace import trace
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import load_model, read_checkpoint
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_network
from diffusion_core.sampling.sample import LECTURE_SAMPLING, sample
from tests.tiny_runs import LECTURE, TINY, write_run

UNET = RunConfig(
    network_args={"widths": [8, 16], "blocks": 1, "attention_levels": [1], "num_classes": 2},
    image_size=16,
)
IMAGE = UNET.image_shape


def network(config: RunConfig) -> SimpleUnet | Unet:
    made = build_network(config.network, config.network_args)
    for parameter in made.parameters():  # some layers start at zero
        nn.init.normal_(parameter, std=0.1)
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.running_var.uniform_(0.5, 2)
            nn.init.ones_(norm.weight)
    return made.eval()


@pytest.fixture(params=["as torch has it", "without packing"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether convolutions are packed in bfloat16.

    Without packing: what a GPU gets, and a torch whose operations are others.
    """
    if request.param == "without packing":
        monkeypatch.setattr(inference, "can_pack", lambda dtype: False)
    return inference.can_pack(torch.bfloat16)


@pytest.mark.parametrize("config", [UNET, LECTURE], ids=["unet", "lecture"])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 0.03)])
@torch.inference_mode()
def test_it_predicts_what_the_plain_network_does(
    config: RunConfig, half: bool, tolerance: float, packing: bool
) -> None:
    plain = network(config)
    fast = for_sampling(copy.deepcopy(plain), half, IMAGE)
    for n in (1, 3):  # any batch and any size of image
        x, t = torch.randn(n, 3, 16 * n, 32), torch.randint(0, 6, (n,))
        labels = [torch.zeros(n, dtype=torch.long)] if config is UNET else []
        wanted = plain(x, t, *labels)
        found = fast(x, t, *labels)
        assert (found - wanted).abs().max() < tolerance * wanted.abs().max()


def test_convolutions_alone_are_kept_in_bfloat16(packing: bool) -> None:
    fast = for_sampling(network(UNET), half=True, image=IMAGE)
    convolutions = [m for m in fast.modules() if isinstance(m, nn.Conv2d | PackedConvolution)]
    assert {m.weight.dtype for m in convolutions} == {torch.bfloat16}
    others = [m for m in fast.modules() if isinstance(m, nn.Linear | nn.GroupNorm | nn.Embedding)]
    assert {m.weight.dtype for m in others} == {torch.float32}
    assert len(convolutions) > 10
    assert len(others) > 10
    assert any(isinstance(m, PackedConvolution) for m in convolutions) == packing


@pytest.mark.parametrize("config", [UNET, LECTURE], ids=["unet", "lecture"])
def test_weights_are_reordered_for_the_images_that_each_layer_gets(config: RunConfig) -> None:
    """In another order oneDNN would reorder them at every call."""
    plain = network(config)
    sizes = {row.name: row.inputs[0] for row in trace(plain, 16).rows}
    weights = {name: weight for name, weight in plain.named_parameters() if weight.ndim == 4}
    seen = 0
    for name, layer in for_sampling(plain, False, IMAGE).named_modules():
        if isinstance(layer, PackedConvolution):
            describe = torch.ops.mkldnn._get_mkldnn_serialized_md
            transposed = "transpose" in str(layer.compute)
            found = describe(layer.weight)
            for count in inference.COUNTS:
                size = (count, *sizes[name][1:])
                weight = weights[f"{name}.weight"]
                wanted = inference.in_order(weight, transposed, layer.options, size)
                assert torch.equal(found, describe(wanted)), (name, size)
            seen += 1
    assert seen or not inference.can_pack()


@pytest.mark.parametrize("half", [False, True])
@torch.inference_mode()
def test_layers_without_one_order_for_few_images_and_many_stay_plain(
    half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "has_one_order", lambda layer, *_: layer.kernel_size == (1, 1))
    plain = network(UNET)
    fast = for_sampling(copy.deepcopy(plain), half, IMAGE)
    wide = fast.get_submodule("stem")
    assert isinstance(wide, CastConvolution if half else nn.Conv2d)
    [stem] = (m for m in wide.modules() if isinstance(m, nn.Conv2d))
    assert stem.weight.is_contiguous(memory_format=torch.channels_last)
    packs = inference.can_pack(torch.bfloat16 if half else torch.float32)
    narrow = fast.get_submodule("middle.0.attention.qkv")
    assert isinstance(narrow, PackedConvolution) == packs
    x, t = torch.randn(3, 3, 16, 16), torch.randint(0, 6, (3,))
    wanted = plain(x, t)
    assert (fast(x, t) - wanted).abs().max() < (0.03 if half else 1e-5) * wanted.abs().max()


@pytest.mark.parametrize(("half", "part"), [(False, 1.0), (True, 0.5)])
def test_in_bfloat16_it_takes_half_of_the_memory(half: bool, part: float) -> None:
    plain = build_network("lecture", {"widths": [16, 32, 64]})
    before = memory_of(plain)
    assert memory_of(for_sampling(plain, half, IMAGE)) == pytest.approx(part * before, rel=0.05)


@pytest.mark.parametrize("half", [False, True])
def test_the_lecture_s_own_sampling_still_takes_the_statistics_of_each_image(
    half: bool, packing: bool
) -> None:
    plain = network(LECTURE)
    fast = for_sampling(copy.deepcopy(plain), half, IMAGE)
    statistics = {name: b.clone() for name, b in fast.named_buffers() if "running" in name}
    schedule = NoiseSchedule("linear", 6, 0.1, 0.5)
    how = LECTURE_SAMPLING | {"shape": (3, 32, 32)}
    wanted = sample(plain, schedule, 2, **how)
    found = sample(fast, schedule, 2, **how)
    in_evaluation = sample(plain, schedule, 2, **how | {"training_mode": False})
    apart = (in_evaluation - wanted).abs().mean()
    assert apart > 0.01
    assert (found - wanted).abs().mean() < apart / (10 if half else 1000)
    kept = dict(fast.named_buffers())
    assert statistics
    assert all(torch.equal(kept[name], b) for name, b in statistics.items())
    assert not any(module.training for module in fast.modules())


def test_a_torch_without_the_operations_draws_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nothing:
        pass

    inference.can_pack.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Nothing())
    assert not inference.can_pack()
    fast = for_sampling(network(UNET), half=False, image=IMAGE)
    assert not any(isinstance(m, PackedConvolution) for m in fast.modules())
    monkeypatch.undo()
    inference.can_pack.cache_clear()


def test_a_torch_that_computes_otherwise_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    inference.can_pack.cache_clear()
    monkeypatch.setattr(PackedConvolution, "forward", lambda self, x: x)
    assert not inference.can_pack()
    monkeypatch.undo()
    inference.can_pack.cache_clear()


def test_asking_whether_it_packs_leaves_the_random_numbers_alone() -> None:
    inference.can_pack.cache_clear()
    before = torch.get_rng_state()
    inference.can_pack()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_loaded_in_it_unless_its_exact_weights_are_asked_for(tmp_path: Path) -> None:
    path = next((write_run(tmp_path, "run", 20) / "weights").iterdir())
    found = read_checkpoint(path)
    exact, schedule, _ = load_model(found, exact=True)
    fast, _, _ = load_model(found)
    assert {p.dtype for p in exact.parameters()} == {torch.float32}
    assert any(p.numel() and n == "stem.weight" for n, p in exact.named_parameters())
    half = has_fast_bfloat16(torch.device("cpu"))
    assert memory_of(fast) < memory_of(exact) or not half
    how: dict[str, Any] = {
        "n": 2,
        "sampler": "dpmpp_2m",
        "steps": 5,
        "prediction_type": TINY.prediction_type,
        "shape": (3, 16, 16),
        "labels": torch.tensor([0, 2]),
    }
    difference = 127.5 * (sample(exact, schedule, **how) - sample(fast, schedule, **how)).abs()
    assert difference.mean() < (1.0 if half else 0.01)  # of 255
