"""Diffusion Lab's core: schedules, networks, samplers, training, run folders.

A library and a command line (`diffusion-lab`, or `python -m diffusion_core`). The names below are
loaded when they are first used, so that a process that only prepares training images does not
import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0.dev0"  # the one place; pyproject.toml reads it

_HOME = {
    "NoiseSchedule": "process.schedule",
    "SinusoidalPositionEmbeddings": "process.embedding",
    "Block": "models.unet",
    "SimpleUnet": "models.unet",
    "Unet": "models.unet",
    "build_model": "runs.presets",
    "preset": "runs.presets",
    "RunConfig": "runs.config",
    "sample": "sampling.sample",
    "sample_steps": "sampling.sample",
    "StepView": "sampling.sample",
    "Cancelled": "sampling.sample",
    "LECTURE_SAMPLING": "sampling.sample",
    "Run": "runs.run",
    "load_run": "runs.run",
    "list_runs": "runs.run",
    "load_model": "runs.checkpoint",
    "train": "training.trainer",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffusion_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"diffusion_core.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
