"""Runs that are small enough for a test: settings to train, random networks to draw with."""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.runs.checkpoint import save_weights
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.post_hoc import STORED, save_snapshot
from diffusion_core.runs.presets import build_network

# What the tests of training compute on: `TEST_DEVICE=cuda python -m pytest tests/core/training`.
DEVICE = torch.device(os.environ.get("TEST_DEVICE", "cpu"))

TINY = RunConfig(
    network_args={"widths": [8], "blocks": 1, "attention_levels": [0], "num_classes": 3},
    schedule={"kind": "cosine", "timesteps": 20},
    image_size=16,
    steps=40,
)
CLASSES = ("van", "bus", "coupé")
LECTURE = RunConfig(
    preset="lecture",
    network="lecture",
    network_args={"widths": [4, 8, 8, 8, 8]},
    schedule={"timesteps": 6},
    prediction_type="epsilon",
    image_size=32,
    steps=40,
)


def tiny(**changes: Any) -> RunConfig:
    """Settings that a slow core trains at many steps a second."""
    settings = {
        "network_args": {"widths": [8, 16], "blocks": 1, "attention_levels": [1], "patch": 2},
        "schedule": {"kind": "cosine", "timesteps": 20},
        "data": "cars:48",
        "image_size": 16,
        "validation_count": 4,
        "steps": 8,
        "batch_size": 4,
        "mixed_precision": "no",
        "num_workers": 0,
        "warmup_steps": 2,
        "checkpoint_every": 4,
        "sample_every": 4,
        "sample_count": 2,
        "sample_steps": 3,
        "validate_every": 4,
    }
    return RunConfig(**{**settings, **changes})


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, on a GPU to rounding: each process chooses its kernels again."""
    values = torch.as_tensor(one), torch.as_tensor(other)
    if DEVICE.type == "cpu":
        return torch.equal(*values)
    return torch.allclose(*values, rtol=1e-3, atol=1e-4)


def create(path: Path, config: RunConfig) -> Path:
    """The folder of a run that has not begun, for `train --run PATH`."""
    path.mkdir(parents=True, exist_ok=True)
    write_config_file(path, config)
    return path


def write_checkpoint(
    run: Path,
    step: int,
    config: RunConfig = TINY,
    mean: float = 0.0,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    weights = _weights_of(config, step, mean)
    learned = classes if config.network_args.get("num_classes") else ()
    return save_weights(run, step, weights, config, learned)


def write_snapshot(run: Path, step: int, config: RunConfig = TINY) -> Path:
    """Of averages of any length; `config` needs `average_snapshots`."""
    found = {length: _weights_of(config, step + k, 0.0) for k, length in enumerate(STORED)}
    return save_snapshot(run, step, found)


def _weights_of(config: RunConfig, seed: int, mean: float) -> dict[str, Tensor]:
    return _weights(config.network, json.dumps(dict(config.network_args)), seed, mean)


@functools.cache
def _weights(network: str, network_args: str, seed: int, mean: float) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    built = build_network(network, json.loads(network_args))
    for parameter in built.parameters():  # its output starts at zero
        nn.init.normal_(parameter, mean, 0.1)
    return built.state_dict()


def write_run(
    runs_dir: Path, name: str, *steps: int, config: RunConfig = TINY, **status: object
) -> Path:
    run = runs_dir / name
    run.mkdir()
    record = {"state": "finished", "step": 40, "total": 40, "created": time.time()} | status
    (run / "status.json").write_text(json.dumps(record))
    write_config_file(run, config, {})
    for step in steps:
        write_checkpoint(run, step, config)
    return run


def set_running(run: Path) -> None:
    """As if this process, which is alive, were training it."""
    record = json.loads((run / "status.json").read_text())
    here = {"pid": os.getpid(), "host": socket.gethostname(), "device": "cpu"}
    (run / "status.json").write_text(json.dumps(record | here | {"state": "running"}))
