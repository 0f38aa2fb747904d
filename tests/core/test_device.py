"""How much memory is left, as the machine and its container say."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffusion_core import device
from diffusion_core.device import (
    Utilisation,
    cards_of,
    free_memory,
    in_batches,
    is_out_of_memory,
    memory_in_use,
    peak_memory,
    with_number,
)

CPU = torch.device("cpu")


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_and_its_cached_files_are_free(
    tmp_path: Path, version: int
) -> None:
    if version == 2:
        write(
            tmp_path, memory__max="1000", memory__current="700", memory__stat="anon 400\nfile 250"
        )
    else:
        write(
            tmp_path / "memory",
            memory__limit_in_bytes="1000",
            memory__usage_in_bytes="700",
            memory__stat="cache 1\ntotal_cache 250",
        )
    assert device._left_of_container(tmp_path) == 550


def test_without_a_limit_the_machine_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, memory__max="max", memory__current="700", memory__stat="file 1")
    left = device._left_of_container
    assert left(tmp_path) > 2**50
    assert 0 < free_memory(CPU) < 2**50
    monkeypatch.setattr(device, "_left_of_container", lambda: 5)
    assert free_memory(CPU) == 5


def test_free_blocks_of_the_cache_of_a_card_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"mem_get_info": (50, 100), "memory_reserved": 40, "memory_allocated": 10}
    for name, found in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda card, found=found: found)
    assert free_memory(torch.device("cuda")) == 80


def test_memory_and_utilisation_of_this_process_are_plausible() -> None:
    assert peak_memory(CPU) >= memory_in_use(CPU) > 2**20
    busy = Utilisation(CPU)
    sum(range(2_000_000))
    assert busy() > 0


def test_the_cards_of_a_run_have_names_that_hold_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"GPU-{number}")
    )
    assert cards_of(torch.device("cuda"), 2) == ("GPU-0", "GPU-1")
    assert cards_of(torch.device("cuda:2"), 2) == ("GPU-2",)
    assert cards_of(CPU, 2) == ()


@pytest.mark.parametrize("missing", [ModuleNotFoundError, RuntimeError, None])
def test_a_card_that_does_not_say_how_busy_it_is_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, missing: type[Exception] | None
) -> None:
    class NVMLError(Exception):
        """As NVIDIA's: not a RuntimeError."""

    def utilization(card: torch.device) -> int:
        raise (missing or NVMLError)("Not Supported")

    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(device, "NVMLError", NVMLError)
    assert Utilisation(torch.device("cuda"))() is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.OutOfMemoryError("of any words"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_all_words_for_too_little_memory_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))


def test_a_card_is_called_by_its_number_which_holds_in_every_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert with_number(torch.device("cuda")) == torch.device("cuda:2")
    assert with_number(torch.device("cuda:1")) == torch.device("cuda:1")
    assert with_number(CPU) == CPU


def test_work_is_halved_down_to_one_image_and_only_where_memory_is_short() -> None:
    def work(first: int, count: int, most: int = 4, error: Exception | None = None) -> int:
        asked.append((first, count))
        if count > most:
            raise error or MemoryError
        return count

    asked: list[tuple[int, int]] = []
    assert list(in_batches(9, 12, work)) == [(4, 4), (8, 4), (9, 1)]
    assert asked == [(0, 9), (0, 4), (4, 4), (8, 1)]
    asked.clear()
    with pytest.raises(MemoryError):
        list(in_batches(9, 12, partial(work, most=0)))
    assert asked == [(0, 9), (0, 4), (0, 2), (0, 1)]
    asked.clear()
    with pytest.raises(RuntimeError, match="another"):
        list(in_batches(9, 12, partial(work, error=RuntimeError("another"))))
    assert asked == [(0, 9)]
