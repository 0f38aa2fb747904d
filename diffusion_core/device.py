"""Which device computes, what it is called, what it is good at, and how much memory is in use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import torch


def pick_device(name: str | None = None) -> torch.device:
    """`name` where it is given, else `cuda`, then `mps`, then `cpu`.

    Raises ValueError with a sentence where the named device is not on this machine.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device; use auto, cpu, cuda, cuda:N or mps.") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ValueError(f"There is no device {name!r} on this machine; use auto or cpu.")
    return device


def describe(device: torch.device) -> str:
    """The device in words, for example "CPU, 2 threads" or "NVIDIA H200, 139 GiB"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 (and does not only emulate it)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(
            torch.cpu._is_amx_tile_supported()
            or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        )
    return False


def memory_in_use(device: torch.device) -> int:
    """Bytes: the device's own on CUDA, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity and, in a container, its quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return cores
