"""A device computes what the CPU does, no step waits for it, and NaN is named."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gpu_blocks.report import Report, Setting
from benchmarks.gpu_blocks.steps import CPU, same_batches, settings, shrunk, training
from diffusion_core.runs.config import RunConfig
from diffusion_core.training import step as training_step
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.step import RATIO_EVERY, one_step, validate
from diffusion_core.training.trainer import TrainingError, train

# Relative differences of the loss in float32: of the first step, which no update has changed, and
# of all. Adam's first updates are as large for a gradient that is all rounding.
FIRST, LATER = 1e-4, 0.05
CASES = {
    "tiny": settings(),
    "grey": settings(channels=1),
    "without classes": settings(class_conditional=False),
    "flow": settings(prediction_type="flow_prediction"),
    "micro-batch 3": settings(micro_batch=3),
    "small": settings("small"),
    "base": settings("base"),
    "lecture": settings("lecture"),
}


def check(setting: Setting, report: Report) -> None:
    for name, config in CASES.items():
        with report.part(name):
            large = config.preset in ("base", "lecture")
            steps = setting.choose(10 if large else 30, 2)
            config = config.replace(
                batch_size=4 if large or setting.quick else 16, mixed_precision="no"
            )
            compare(shrunk(config, setting), steps, name, setting, report)
    for name in ("tiny", "small", "lecture"):
        with report.part(f"{name}: waiting"):
            config = settings(name, batch_size=setting.choose(32, 4), validation_count=4)
            waits_nowhere(shrunk(config, setting), name, setting, report)
    with report.part("NaN"):
        nan_is_named(setting, report)


def compare(config: RunConfig, steps: int, name: str, setting: Setting, report: Report) -> None:
    losses = {}
    for device in (CPU, setting.device):
        with same_batches(), training(config, device) as context:
            losses[device] = [one_step(context, k + 1).loss.item() for k in range(steps)]
            odd = odd_strides(context)
    ours, theirs = (torch.tensor(losses[device]) for device in (setting.device, CPU))
    apart = ((ours - theirs).abs() / theirs).tolist()
    report(
        f"{name}, {steps} steps in float32 against the CPU",
        f"loss differs by {apart[0]:.1e} at first, {max(apart):.1e} at most",
        good=apart[0] < FIRST and max(apart) < LATER,
    )
    if odd:
        report(f"{name}: memory order", f"differs from the weights': {odd[0]}", good=False)


def odd_strides(context: TrainingContext) -> list[str]:
    """What does not lie in memory as the weights do: the fused kernels read it so. Muon's momentum
    lies as the gradients that it follows."""
    weights = dict(context.bare_model.named_parameters())
    averages = dict(context.average.named_parameters())
    found = [name for name, weight in weights.items() if averages[name].stride() != weight.stride()]
    for name, weight in weights.items():
        state = context.optimizer.state[weight]
        found += [
            f"{key} of {name}"
            for key, value in state.items()
            if key not in ("step", "momentum") and value.stride() != weight.stride()
        ]
    return found


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Waiting for a GPU raises."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def waits_nowhere(config: RunConfig, name: str, setting: Setting, report: Report) -> None:
    """Both with the images on the device and without."""
    with training(config, setting.device) as context:
        on_device = [] if context.resident is None else [context.resident]
        for resident in (*on_device, None):
            context.resident = resident
            one_step(context, 1)
            where, why = "", ""
            try:
                with no_waiting(setting.device):
                    one_step(context, 2)
                    one_step(context, RATIO_EVERY)
                    validate(context)
            except RuntimeError as error:
                frame = next(
                    each
                    for each in reversed(traceback.extract_tb(error.__traceback__))
                    if "diffusion_core" in each.filename
                )
                where, why = f"{Path(frame.filename).name}:{frame.lineno}", str(error)
            kind = "on the device" if resident is not None else "on the host"
            report(
                f"{name}, images {kind}: a step waits",
                f"at {where}: {why.splitlines()[0]}" if where else "nowhere",
                "nowhere",
                good=not where if setting.device.type == "cuda" else None,
            )


def nan_is_named(setting: Setting, report: Report) -> None:
    """An infinite rate makes the weights of step 3 infinite."""
    usual = training_step.learning_rate

    def rate(config: RunConfig, step: int) -> float:
        return float("inf") if step == 3 else usual(config, step)

    config = settings(steps=8, batch_size=4)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(training_step, "learning_rate", rate),
    ):
        said = "nothing"
        try:
            train(Path(folder) / "run", config, device=setting.device)
        except TrainingError as error:
            said = str(error)
    good = said.startswith("The loss of step 4 is not a number. It shows first in the weights of")
    report("a rate of infinity at step 3", said, good=good)
