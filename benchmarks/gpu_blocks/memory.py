"""What stays in memory, and what happens where there is too little."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.gpu_blocks.report import Report, Setting
from benchmarks.gpu_blocks.speed import network_for
from benchmarks.gpu_blocks.steps import sampling_options, settings, shrunk, training
from diffusion_core.device import memory_in_use
from diffusion_core.runs import checkpoint
from diffusion_core.runs.presets import build_schedule, preset
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.sample import sample
from diffusion_core.training import step as training_step
from diffusion_core.training.background import Background, snapshot
from diffusion_core.training.batches import Batch
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.step import one_step
from diffusion_core.training.trainer import train

GROWTH = 2**26  # bytes that background jobs may leave


def taken(setting: Setting) -> int:
    """Bytes, on CUDA with the cache of PyTorch."""
    if setting.device.type == "cuda":
        return torch.cuda.memory_reserved(setting.device)
    return memory_in_use(setting.device)


def megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def measure(setting: Setting, report: Report) -> None:
    with report.part("sampling"):
        report("before", megabytes(taken(setting)))
        config = shrunk(preset("lecture"), setting)
        network = network_for(config, setting.device)
        report("the lecture's network loaded", megabytes(taken(setting)))
        schedule = build_schedule(config).to(setting.device)
        n, steps = setting.choose(256, 2), setting.choose(20, 1)
        sample(network, schedule, n, "ddim", steps, **sampling_options(config))
        report(f"after {n} images", megabytes(taken(setting)))
        del network
        gc.collect()
        torch.cuda.empty_cache()
        report("after it is evicted", megabytes(taken(setting)))
    with report.part("background jobs"):
        background_jobs(setting, report)


def background_jobs(setting: Setting, report: Report) -> None:
    """As the strips of a long run, each with tensors of its own."""
    worker = Background("benchmark", setting.device)
    counts = (setting.choose(5, 2), setting.choose(40, 4))
    found = []

    def job() -> None:
        a = torch.randn(1024, 1024, device=setting.device)
        images = torch.randn(8, 64, 32, 32, device=setting.device)
        weight = torch.randn(64, 64, 3, 3, device=setting.device)
        (a @ a).sum().item()
        torch.nn.functional.conv2d(images, weight).sum().item()

    done = 0
    for count in counts:
        for _ in range(count - done):
            worker.submit(job)
        worker.wait()
        done = count
        found.append(taken(setting))
    worker.close()
    grown = found[1] - found[0]
    report(
        f"{counts[1]} background jobs after {counts[0]}",
        f"{megabytes(grown)} more",
        good=grown < GROWTH if setting.device.type == "cuda" else None,
    )


def shortage(setting: Setting, report: Report) -> None:
    with report.part("a batch that does not fit"), tempfile.TemporaryDirectory() as folder:
        a_batch_too_large(Path(folder) / "run", setting, report)
    if setting.device.type == "cuda":
        with report.part("a snapshot that does not fit"):
            a_snapshot_too_large(setting, report)


def a_batch_too_large(run: Path, setting: Setting, report: Report) -> None:
    """On CUDA with a small part of the card; the CPU plays a device with room for 2 images."""
    batch = setting.choose(256, 8)
    config = settings(
        "small", batch_size=batch, micro_batch=batch, steps=3, data="cars:512", image_size=32
    )
    config = shrunk(config, setting)
    usual = training_step.objective

    def objective(context: TrainingContext, model: nn.Module, part: Batch) -> tuple[Tensor, Tensor]:
        if len(part.t) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return usual(context, model, part)

    if setting.device.type == "cuda":
        whole = torch.cuda.get_device_properties(setting.device).total_memory
        torch.cuda.set_per_process_memory_fraction(2**30 / whole, setting.device)
        train(run, config, device=setting.device)
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
    else:
        with mock.patch.object(training_step, "objective", objective):
            train(run, config, device=setting.device)
    state, fitted = load_run(run).state, checkpoint.load_state(run, config.steps)["micro_batch"]
    report(
        f"a batch of {batch} in too little memory",
        f"{state}, in parts of {fitted}",
        good=state == "finished" and fitted < batch,
    )


def a_snapshot_too_large(setting: Setting, report: Report) -> None:
    """It goes to the CPU."""
    with training(settings("lecture", batch_size=4), setting.device) as context:
        one_step(context, 1)
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(setting.device).total_memory
        room = torch.cuda.memory_reserved(setting.device) + 2**27  # its moments take 500 MB
        torch.cuda.set_per_process_memory_fraction(room / whole, setting.device)
        tensor = snapshot(context.optimizer.state_dict())["state"][0]["exp_avg"]
    report("a snapshot that does not fit", f"on {tensor.device}", good=tensor.device.type == "cpu")
