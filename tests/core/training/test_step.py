"""A single step: the averages against PyTorch's own, and that nothing in it waits for a number."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_core.runs.config import RunConfig
from diffusion_core.training import context
from diffusion_core.training.context import (
    TrainingContext,
    make_context,
    prepare_images,
    settle_network,
)
from diffusion_core.training.distributed import joined
from diffusion_core.training.step import one_step, update_average
from tests.tiny_runs import tiny

CPU = torch.device("cpu")
# What they return, or how long it is, has to come to the host first.
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique", "equal")


def prepared(config: RunConfig) -> TrainingContext:
    store = prepare_images(config, lambda ready, count: None)
    return make_context(settle_network(config, store), store, CPU)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3))
        self.register_buffer("scale", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("count", torch.tensor([7, 1000]))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_averages_are_those_of_pytorch_to_the_last_bit(memory_format: Any) -> None:
    model = Network().to(memory_format=memory_format)
    ours, theirs = copy.deepcopy(model), AveragedModel(model, use_buffers=True)
    for decay in (0.0, 0.25, 0.9, 0.9995):
        for tensor in model.state_dict().values():
            tensor.copy_(tensor + 3 * torch.randn(tensor.shape))
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
    with joined(CPU):
        training = prepared(config)
        one_step(training, 1)
        with Watch():
            one_step(training, 2)
            one_step(training, 20)  # which measures the ratio of update and weights
    assert asked == []


def test_all_of_a_training_knows_the_number_of_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads would take a device without one for the first card."""
    monkeypatch.setattr(context, "with_number", lambda device: torch.device(device.type, 0))
    with joined(CPU):
        assert prepared(tiny()).device == torch.device("cpu", 0)
