"""Training steps for the blocks: without the loop, and the same batches on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_blocks.report import Setting
from diffusion_core.runs.config import RunConfig, with_settings
from diffusion_core.runs.presets import build_network, preset
from diffusion_core.training import step as training_step
from diffusion_core.training.batches import Batch, make_batch
from diffusion_core.training.context import (
    TrainingContext,
    make_context,
    prepare_images,
    settle_network,
)
from diffusion_core.training.distributed import joined

CPU = torch.device("cpu")


def settings(name: str = "tiny", **changes: Any) -> RunConfig:
    """A preset on a few images, of which nothing is written."""
    usual = {
        "data": "cars:256",
        "validation_count": 16,
        "checkpoint_every": 0,
        "sample_every": 0,
        "validate_every": 0,
        "warmup_steps": 0,
    }
    return with_settings(preset(name), usual | changes)


def shrunk(config: RunConfig, setting: Setting) -> RunConfig:
    """A narrow network and small images, where there is to be little work."""
    if not setting.quick:
        return config
    args: dict[str, Any] = {"widths": [8, 8, 16, 16, 16]}
    if config.network == "unet":
        args = {"widths": [16, 32], "blocks": 1, "attention_levels": [1]}
    return config.replace(network_args=args, image_size=32)


@contextmanager
def training(config: RunConfig, device: torch.device) -> Iterator[TrainingContext]:
    with joined(device):
        store = prepare_images(config, lambda ready, count: None)
        yield make_context(settle_network(config, store), store, device)


@contextmanager
def same_batches() -> Iterator[None]:
    """Timesteps and noise are those of the CPU; each device has a generator of its own."""

    def made(*given: Any, device: torch.device, resident: Any = None, **more: Any) -> Batch:
        made = make_batch(*given, device=CPU, **more)
        there = {name: part for name, part in made._asdict().items() if part is not None}
        return made._replace(**{name: part.to(device) for name, part in there.items()})

    with mock.patch.object(training_step, "make_batch", made):
        yield


def training_flops(config: RunConfig) -> int:
    """Of one image in a training step; counted, not computed."""
    with torch.device("meta"):
        network = build_network(config.network, config.network_args)
        x, t = torch.empty(1, *config.image_shape), torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        network(x, t).sum().backward()
    return counter.get_total_flops()


def sampling_options(config: RunConfig) -> dict[str, Any]:
    """What `sample` has to know of a run."""
    return {"prediction_type": config.prediction_type, "shape": config.image_shape}
