"""What the benchmarks share: contenders that take turns, and a description of the machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.benchmark import Timer

from diffusion_core.device import describe, has_fast_bfloat16

Name = TypeVar("Name", bound=Hashable)


def in_turns(rounds: int, contenders: dict[Name, Callable[[], float]]) -> dict[Name, float]:
    """The median of what each contender returns; a round runs all of them, one after the other.

    A machine that becomes slower or faster meanwhile does so for all alike.
    """
    found: dict[Name, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large product of matrices."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / median_seconds("a @ a", {"a": a})


def median_seconds(statement: str, values: dict[str, Any]) -> float:
    """That a statement takes with these names, on the device too."""
    timer = Timer(statement, globals=values, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=1.0).median


def machine(device: torch.device) -> str:
    """The machine in one line."""
    flags = cpu_line("flags").split()
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    return (
        f"{describe(device)}; {cpu_line('model name') or 'unknown CPU'}, {os.cpu_count()} cores, "
        f"bfloat16 on the CPU by {' and '.join(fast) or 'nothing'}, used on this device: "
        f"{'yes' if has_fast_bfloat16(device) else 'no'}; torch {torch.__version__}"
    )


def cpu_line(name: str, text: str | None = None) -> str:
    """What /proc/cpuinfo says behind `name` of the first core; empty where it says nothing."""
    if text is None:
        source = Path("/proc/cpuinfo")
        text = source.read_text() if source.exists() else ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
