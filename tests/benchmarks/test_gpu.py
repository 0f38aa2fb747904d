"""The script of `make gpu`: its blocks cannot stop each other, and its table has what they find."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_blocks.correctness import odd_strides
from benchmarks.gpu_blocks.report import Finding, Report, Setting, read_findings, table
from benchmarks.gpu_blocks.speed import busy
from benchmarks.gpu_blocks.steps import same_batches, settings, training, training_flops
from diffusion_core.runs.presets import preset
from diffusion_core.training.step import batch_of, one_step

CPU = torch.device("cpu")


def test_a_block_without_an_end_is_ended_and_said(capfd: pytest.CaptureFixture[str]) -> None:
    before = psutil.Process().children()
    [found] = gpu.run_block("nccl", Setting(CPU, quick=True), 0.01)
    assert (found.block, found.good) == ("nccl", False)
    assert found.value.startswith("no end after")
    assert psutil.Process().children() == before


def test_findings_are_kept_and_an_error_is_one(tmp_path: Path) -> None:
    report = Report("rate", tmp_path / "findings")
    report("speed", "3 images/s | 1 step/s", "5 images/s")
    with report.part("a part"):
        raise RuntimeError("CUDA error: of no words\nand a trace")
    report("right", "yes", good=True)
    found = read_findings(tmp_path / "findings")
    assert found[1] == Finding(
        "rate", "a part", "RuntimeError: CUDA error: of no words", good=False
    )
    assert table(found, "NVIDIA H100, 79 GiB").splitlines() == [
        "NVIDIA H100, 79 GiB",
        "",
        "| block | what | found | goal | right |",
        "|---|---|---|---|---|",
        "| rate | speed | 3 images/s / 1 step/s | 5 images/s |  |",
        "| rate | a part | RuntimeError: CUDA error: of no words |  | **no** |",
        "| rate | right | yes |  | yes |",
    ]
    assert read_findings(tmp_path / "none") == []


def test_the_time_in_which_something_ran_counts_overlaps_once() -> None:
    assert busy([(10, 20), (12, 14), (0, 4), (18, 24), (30, 40)]) == (0.7, [6, 6])
    assert busy([]) == (0.0, [])


def test_batches_are_the_same_on_every_device_and_the_strides_those_of_the_weights() -> None:
    config = settings(batch_size=4, data="cars:48", validation_count=4)
    with training(config, CPU) as context:
        one_step(context, 1)
        assert odd_strides(context) == []
        usual = batch_of(context, 2)
        with same_batches():
            again = batch_of(context, 2)
        for ours, theirs in zip(again, usual, strict=True):
            if ours is None or theirs is None:  # nothing was augmented
                assert ours is theirs
            else:
                assert torch.equal(ours, theirs)
        weight = context.bare_model.get_parameter("stem.weight")
        state = context.optimizer.state[weight]
        state["exp_avg"] = state["exp_avg"].to(memory_format=torch.channels_last)
        assert odd_strides(context) == ["exp_avg of stem.weight"]


def test_the_work_of_a_step_is_counted() -> None:
    assert training_flops(preset("lecture")) == pytest.approx(34.4e9, rel=0.01)
