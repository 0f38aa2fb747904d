"""A run that resumes, also from and to the CPU, equals one that was not interrupted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.gpu_blocks.report import Report, Setting
from benchmarks.gpu_blocks.steps import CPU, same_batches, settings, shrunk
from diffusion_core.runs import checkpoint
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.jobs import request
from diffusion_core.runs.run import load_run
from diffusion_core.training.trainer import train

LARGEST = 0.02  # relative difference of the loss, as in `correctness`


def check(setting: Setting, report: Report) -> None:
    device, cut = setting.device, setting.choose(10, 2)
    pairs = dict.fromkeys([(device, device), (CPU, device), (device, CPU)])
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tiny", "lecture"):
            config = settings(name, steps=2 * cut, batch_size=4, mixed_precision="no")
            config = shrunk(config, setting)
            whole = Path(folder) / f"{name}-whole"
            with report.part(name), same_batches():
                train(whole, config, device=CPU)
                for number, pair in enumerate(pairs):
                    path = Path(folder) / f"{name}-{number}"
                    apart = difference(whole, path, config, cut, *pair)
                    report(
                        f"{name}, {pair[0].type} to {pair[1].type}",
                        f"loss differs by {apart:.1e} at most",
                        good=apart < LARGEST,
                    )
        with report.part("checkpoint beside training"):
            beside(Path(folder), setting, report)


def difference(
    whole: Path, path: Path, config: RunConfig, cut: int, first: torch.device, second: torch.device
) -> float:
    """The largest relative one of the losses."""

    def stop(step: int, steps: int, loss: float | None) -> None:
        if step == cut:
            request(load_run(path), "stop")

    train(path, config, device=first, on_step=stop)
    train(path, resume=True, device=second)
    ours, theirs = (torch.from_numpy(load_run(p).curve("loss")["value"]) for p in (path, whole))
    return float(((ours - theirs).abs() / theirs).max())


def beside(folder: Path, setting: Setting, report: Report) -> None:
    """A checkpoint that is written while the training goes on has the weights of its own step."""
    step = setting.choose(20, 2)
    config = shrunk(settings("small", steps=step, batch_size=4), setting)
    train(folder / "alone", config, device=setting.device)
    config = config.replace(steps=2 * step, checkpoint_every=step)
    train(folder / "beside", config, device=setting.device)
    alone, written = (
        checkpoint.load_weights(load_run(folder / name).checkpoint(step))
        for name in ("alone", "beside")
    )
    apart = max(float((alone[name] - written[name]).abs().max()) for name in alone)
    # Of a later step they would be as far apart as an update is large.
    report("a checkpoint beside training", f"weights differ by {apart:.1e}", good=apart < 1e-4)
