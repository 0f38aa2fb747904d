"""Export a checkpoint as ONNX: one file that many programs run, with all that sampling needs.

The folder holds `model.onnx`, a script that samples with it without PyTorch, and a README. Needs
the optional package `onnx`; where `onnxruntime` is installed too, the file is held against the
network before it is handed out.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_core.files import building_folder
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.runs.checkpoint import Checkpoint, load_weights, network_of
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.runs.export import ExportError
from diffusion_core.runs.presets import build_schedule, schedule_settings
from diffusion_core.runs.run import Run

REQUIREMENTS = "requirements-onnx.txt"
MODEL = "model.onnx"
SCRIPT = Path(__file__).with_name("sample_with_onnx.py")
# Of the largest predicted value. Rounding makes a thousandth of it, a wrong layer far more.
MOST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Check:
    """How far the predictions of the file are from the network's; None: not compared."""

    difference: float | None = None  # the largest
    scale: float = 1.0  # the largest value predicted

    @property
    def text(self) -> str:
        if self.difference is None:
            return f"Not checked: onnxruntime is not installed; {REQUIREMENTS} has it."
        return (
            f"Checked with onnxruntime: differs from PyTorch by at most {self.difference:.1e}, "
            f"in predictions of up to {self.scale:.1f}."
        )


def write_onnx(
    run: Run,
    checkpoint: Checkpoint,
    out: Path,
    average: str = MAIN_AVERAGE,
    float16: bool = False,
) -> Check:
    """Write the folder `out`. It appears whole or not at all, and only where the check is passed.

    `float16`: kernels and matrices are rounded to half precision, for half the size; what is
    computed with them stays float32. Raises ExportError, CheckpointError, DiskFull.
    """
    if out.exists():
        raise ExportError(f"{out} already exists; choose another folder with --out or remove it.")
    try:
        from diffusion_core.models.onnx_graph import is_large, write_graph
    except ImportError as error:
        raise ExportError(
            "ONNX files are written with the package onnx, which is not installed. Install it "
            f"with: pip install -r {REQUIREMENTS}"
        ) from error
    config = checkpoint.config
    network = network_of(config, load_weights(checkpoint, average), "cpu")
    assert isinstance(network, (SimpleUnet, Unet))
    if float16:
        for weight in filter(is_large, network.parameters()):
            weight.copy_(weight.half())
    facts = {name: json.dumps(value) for name, value in _facts(run, checkpoint, average).items()}
    try:
        written = write_graph(network, config.image_size, facts, float16)
    except ValueError as error:
        raise ExportError(f"{run.name} cannot be exported as ONNX. {error}") from error
    with building_folder(out) as folder:
        (folder / MODEL).write_bytes(written)
        del written  # before another one is read
        check = Check()
        if importlib.util.find_spec("onnxruntime") is not None:
            check = compare(folder / MODEL, network, config.image_size)
        text = _readme(run, checkpoint, average, float16, check)
        (folder / "README.md").write_text(text, encoding="utf-8")
        (folder / SCRIPT.name).write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    return check


def _facts(run: Run, checkpoint: Checkpoint, average: str) -> dict[str, Any]:
    """What sampling needs to know, and where the weights are from."""
    config = checkpoint.config
    schedule = build_schedule(config)
    kind = {"kind": "flow"} if schedule.is_flow else {}
    return {
        "run": run.name,
        "step": checkpoint.step,
        "average": average,
        "prediction_type": config.prediction_type,
        "image_size": config.image_size,
        "channels": config.channels,
        "classes": checkpoint.classes,
        "any_class": checkpoint.any_class,
        "distilled": config.distilled,
        "timesteps": schedule.timesteps,
        "schedule": kind | schedule_settings(config),
        "signal": schedule.exact_signal.tolist(),
        "spread": schedule.exact_spread.tolist(),
    }


@torch.inference_mode()
def compare(path: Path, network: SimpleUnet | Unet, image_size: int) -> Check:
    """Hold the file against the network, on a batch of three at fractions of timesteps too.

    Raises ExportError where they do not agree.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = torch.randn(
        *(3, network.channels, image_size, image_size), generator=torch.Generator().manual_seed(0)
    )
    inputs = {"x": x, "t": torch.tensor([0.0, 7.25, 500.5])}
    if isinstance(network, Unet) and network.num_classes:
        inputs["labels"] = torch.tensor([0, network.num_classes - 1, network.num_classes])
    expected = network(*inputs.values())
    [found] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    scale = float(expected.abs().max())
    difference = float((expected - torch.from_numpy(found)).abs().max())
    if not torch.isfinite(expected).all():
        raise ExportError(
            "The network predicts NaN or infinite values; choose another checkpoint with --step."
        )
    if not difference <= MOST_DIFFERENCE * max(1.0, scale):
        raise ExportError(
            f"The ONNX file does not compute what the network does: its predictions differ by "
            f"{difference:.2g}, in values of up to {scale:.2g}. Nothing was written."
        )
    return Check(difference, scale)


def _readme(run: Run, checkpoint: Checkpoint, average: str, float16: bool, check: Check) -> str:
    config, step = checkpoint.config, checkpoint.step
    classes = ", ".join(f"{number} {name}" for number, name in enumerate(checkpoint.classes))
    what = ", distilled for one or two steps" if config.distilled else ""
    command = f"python -m diffusion_core export {run.name} --format onnx --step {step}"
    command += f" --average {average}" if average != MAIN_AVERAGE else ""
    command += " --float16" if float16 else ""
    any_class = f"; {len(checkpoint.classes)} stands for any class" if checkpoint.any_class else ""
    return f"""# {run.name}, step {step}

An image diffusion model of the preset `{config.preset}`{what}, trained on `{config.data}` at \
{config.image_size}×{config.image_size} pixels. Its network predicts \
`{config.prediction_type}`. Written by Diffusion Lab with

    {command}

`{MODEL}` is the network with its averaged (EMA) weights:

- input `x`, float32 (batch, {config.channels}, {config.image_size}, {config.image_size}): images \
in [-1, 1] with noise
- input `t`, float32 (batch,): timesteps from 0, fractions too
{f"- input `labels`, int64 (batch,): classes, {classes}{any_class}" if classes else "- no classes"}
- output `prediction`, in the shape of `x`

Its metadata, each entry as JSON, say what sampling needs: `prediction_type`, `timesteps`, and by \
timestep `signal` and `spread`, with x_t = signal x_0 + spread ε; `schedule` has the arguments \
that made them. {check.text}

`python {SCRIPT.name} images.png` generates four images; it needs numpy and onnxruntime.
"""
