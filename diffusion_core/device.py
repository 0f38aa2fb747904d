"""Which device computes, what it is called, what it is good at, and how much memory is in use."""

from __future__ import annotations

import functools
import itertools
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import nn

from diffusion_core.cores import take_share, usable_cores
from diffusion_core.text import shown

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

try:
    from pynvml import NVMLError
except ImportError:
    NVMLError = RuntimeError

Found = TypeVar("Found")

# In the messages of errors that have no type of their own.
OUT_OF_MEMORY = (
    "out of memory",  # CUDA outside PyTorch's allocator, MPS
    "can't allocate memory",  # the CPU
    "ALLOC_FAILED",  # cuBLAS and cuDNN
    "unable to find an engine",  # cuDNN, whose engines need room to work in
)


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
        raise ValueError(
            f"{shown(name)} is no device; use auto, cpu, cuda, cuda:N or mps."
        ) from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ValueError(f"There is no device {shown(name)} on this machine; use auto or cpu.")
    return device


def with_number(device: torch.device) -> torch.device:
    """The device with the number of its card: `cuda` alone is another one in another thread."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def device_count(name: str) -> int:
    """How many devices a name means here: `cuda` all the cards, any other name one."""
    return max(1, torch.cuda.device_count()) if name == "cuda" else 1


def cards_of(device: torch.device, count: int) -> tuple[str, ...]:
    """What `count` cards from this one on are called whatever CUDA_VISIBLE_DEVICES is; empty for
    other devices."""
    if device.type != "cuda":
        return ()
    first = device.index or 0
    numbers = range(first, min(first + count, torch.cuda.device_count()))
    return tuple(str(torch.cuda.get_device_properties(number).uuid) for number in numbers)


def describe(device: torch.device) -> str:
    """A description, for example "CPU, 2 threads" or "NVIDIA H200, 139 GiB"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def compute_in_float32() -> None:
    """Let float32 convolutions on CUDA be float32, in this process from here on.

    PyTorch lets cuDNN round their inputs to 10 bits (TF32) unless told otherwise.
    """
    torch.backends.cudnn.allow_tf32 = False


def kind_of(device: torch.device) -> str:
    """A name that devices with the same memory share: the card's, else that of its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 (and does not only emulate it)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        hardware = (
            torch.cpu._is_amx_tile_supported()
            or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        )
        # oneDNN may be held to an older instruction set by ONEDNN_MAX_CPU_ISA.
        return bool(hardware and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def memory_in_use(device: torch.device) -> int:
    """Bytes: the device's own on CUDA, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def peak_memory(device: torch.device) -> int:
    """The most bytes since the process began: the device's own on CUDA, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    memory = psutil.Process().memory_info()
    if resource is None:  # Windows
        return getattr(memory, "peak_wset", memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(memory.rss, peak if sys.platform == "darwin" else peak * 1024)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had: of the device on CUDA, else of the machine or its container.

    On CUDA PyTorch's cache holds free blocks, which the driver counts as used.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(psutil.virtual_memory().available, _left_of_container())


def device_of(model: nn.Module) -> torch.device:
    """Where its weights are, packed ones (`inference.py`) included; the CPU if it has none."""
    weights = itertools.chain(model.parameters(), model.buffers())
    return next((weight.device for weight in weights), torch.device("cpu"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had not enough memory for a computation."""
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return memory or any(words in str(error) for words in OUT_OF_MEMORY)


def halving(work: Callable[[int], Found], batch: int) -> tuple[Found, int]:
    """What `work(batch)` returns, and the batch that fitted: half as many each time there is
    not enough memory. Raises what `work` raises, also where not even 1 fits."""
    while True:
        try:
            return work(batch), batch
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        # After the error is gone, which held on to the tensors of the attempt.
        batch //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_batches(
    n: int, batch: int, work: Callable[[int, int], Found]
) -> Iterator[tuple[int, Found]]:
    """What `work(first, count)` returns for all of n images, with how many are done by then.

    At most `batch` at once, and fewer from where there is not enough memory on.
    """
    first = 0
    while first < n:
        take_share()
        found, batch = halving(functools.partial(work, first), min(batch, n - first))
        first += batch
        yield first, found


def _left_of_container(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes below the container's limit, cached files counted as free; without a limit, very many.

    Control groups have two versions with other names for the same numbers.
    """
    for folder, most, used, cached in (
        (groups, "memory.max", "memory.current", "file"),
        (groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
    ):
        limit = folder / most
        if limit.exists() and (text := limit.read_text().strip()) != "max":
            lines = (folder / "memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
            in_use = int((folder / used).read_text()) - int(stat.get(cached, 0))
            return max(0, int(text) - in_use)
    return 2**63


class Utilisation:
    """How busy the device was since the last question, 0 to 1; None where nobody can tell."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.process = psutil.Process()
        self.process.cpu_percent()  # the first answer has nothing to compare with

    def __call__(self) -> float | None:
        if self.device.type == "cpu":
            return self.process.cpu_percent() / 100 / usable_cores()
        if self.device.type != "cuda":
            return None
        try:
            return torch.cuda.utilization(self.device) / 100
        except (ModuleNotFoundError, RuntimeError, NVMLError):
            return None  # without NVIDIA's management library, or a part of a card (MIG)
