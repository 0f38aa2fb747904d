"""Diffusion Lab's core: schedules, networks, samplers, training, run folders.

Good alone as a library and as a command line (`python -m diffusion_core`). The names below are
loaded when they are first used, so that a process that only draws training pictures does not
pay for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "NoiseSchedule": "schedule",
    "SinusoidalPositionEmbeddings": "embedding",
    "Block": "unet",
    "SimpleUnet": "unet",
    "Unet": "unet",
    "build_model": "presets",
    "preset": "presets",
    "RunConfig": "config",
    "sample": "samplers",
    "sample_steps": "samplers",
    "StepView": "samplers",
    "Cancelled": "samplers",
    "LECTURE_SAMPLING": "samplers",
    "Run": "runs",
    "load_run": "runs",
    "list_runs": "runs",
    "load_model": "checkpoint",
    "train": "trainer",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffusion_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f"diffusion_core.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
