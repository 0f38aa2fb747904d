"""A single step: the averages against PyTorch's own, and that nothing in it waits for a number."""

from __future__ import annotations

import copy
from typing import Any

import accelerate
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.metrics import BEHIND, LOW
from diffusion_core.training import context
from diffusion_core.training import step as training_step
from diffusion_core.training.context import (
    TrainingContext,
    make_context,
    prepare_images,
    settle_network,
)
from diffusion_core.training.distributed import ProcessGroup, joined
from diffusion_core.training.micro_batches import TogetherOutOfMemory
from diffusion_core.training.nan_report import first_layer
from diffusion_core.training.reasons import reason
from diffusion_core.training.shared_norm import share_norms
from diffusion_core.training.step import one_step, update_average
from tests.tiny_runs import DEVICE, LECTURE, tiny

# What they return, or how long it is, has to come to the host first.
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique", "equal")


def prepared(config: RunConfig) -> TrainingContext:
    store = prepare_images(config, lambda ready, count: None)
    return make_context(settle_network(config, store), store, DEVICE)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3))
        self.register_buffer("scale", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("count", torch.tensor([7, 1000]))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_averages_are_those_of_pytorch_to_the_last_bit(memory_format: Any) -> None:
    model = Network().to(DEVICE).to(memory_format=memory_format)
    ours, theirs = copy.deepcopy(model), AveragedModel(model, use_buffers=True)
    for decay in (0.0, 0.25, 0.9, 0.9995):
        for tensor in model.state_dict().values():
            tensor.copy_(tensor + 3 * torch.randn(tensor.shape, device=DEVICE))
        theirs.multi_avg_fn = get_ema_multi_avg_fn(decay)
        theirs.update_parameters(model)
        update_average(ours, model, decay)
        wanted = theirs.module.state_dict()
        for name, tensor in ours.state_dict().items():
            assert tensor.dtype == wanted[name].dtype
            assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": "lecture", "network_args": {"widths": [4, 8, 8, 8, 8]}, "image_size": 32},
        {"ema_decays": {"short": 0.5}, "micro_batch": 3, "gradient_clip": 0.0},
        {"class_conditional": True, "min_snr_gamma": 5.0, "random_flip": True},
        {"prediction_type": "flow_prediction"},
        {
            "prediction_type": "flow_x_0",
            "loss_on": "v",
            "learned_weighting": True,
            "augment": 0.5,
            "average_snapshots": 10,
        },
    ],
)
def test_no_number_of_a_step_is_waited_for(settings: dict[str, Any]) -> None:
    """A GPU would stand still meanwhile. Fused kernels alone count the steps on the device."""
    asked: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            by_mask = name == "index" and any(
                each is not None and each.dtype == torch.bool for each in args[1]
            )
            if by_mask or name in WAITING:
                asked.append(str(function))
            return function(*args, **(kwargs or {}))

    config: RunConfig = tiny(**settings)
    with joined(DEVICE):
        training = prepared(config)
        one_step(training, 1)
        with Watch():
            one_step(training, 2)
            one_step(training, 20)  # which measures the ratio of update and weights
    assert asked == []


def test_all_of_a_training_knows_the_number_of_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads would take a device without one for the first card."""
    monkeypatch.setattr(context, "with_number", lambda device: torch.device(device.type, 0))
    with joined(DEVICE):
        assert prepared(tiny()).device == torch.device(DEVICE.type, 0)


def test_the_layer_with_nan_is_searched_for_without_the_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A BatchNorm of all would wait for their statistics for ever."""
    with joined(DEVICE):
        training = prepared(LECTURE.replace(data="cars:48", batch_size=4, validation_count=4))
        share_norms(training.model)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
        assert first_layer(training, 1) == "the sum over the batch"
        with torch.no_grad():
            training.model.get_parameter("downs.1.bnorm2.weight")[0] = float("nan")
        assert first_layer(training, 1) == "the weights of the layer downs.1.bnorm2"
        monkeypatch.undo()


def test_of_several_processes_none_takes_other_parts_than_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would wait for each other at different layers."""

    def objective(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training_step, "objective", objective)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with joined(DEVICE):
        training = prepared(tiny())
        with pytest.raises(TogetherOutOfMemory, match="with 2 images at once") as got:
            one_step(training, 1)
    assert reason(got.value) == str(got.value)

    group = ProcessGroup(False)
    assert group.least(8) == 8
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda mine: [*mine, 4])
    group.several = True
    assert group.least(8) == 4


def test_validation_says_how_far_the_average_is_behind_the_raw_weights() -> None:
    # 150 held-out images in batches of 4: each second one is compared, also across batches.
    made = prepared(tiny(data="digits", channels=1, validation_count=150, min_snr_gamma=0.0))
    same = training_step.validate(made)
    assert same[BEHIND] == 0 == same[BEHIND + LOW]
    before = [parameter.detach().clone() for parameter in made.bare_model.parameters()]
    for parameter in made.average.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.5)
    found = training_step.validate(made)
    assert found[BEHIND] > found[BEHIND + LOW] > 0.05
    # About the share of the losses of all held-out images.
    assert found["validation_loss"] / same["validation_loss"] - 1 == pytest.approx(
        found[BEHIND].item(), rel=0.3
    )
    assert made.bare_model.training
    assert all(map(torch.equal, before, made.bare_model.parameters()))
    made.validation_index = made.validation_index[:1]  # of one image there is no interval
    assert training_step.validate(made).keys() == {"validation_loss"}
