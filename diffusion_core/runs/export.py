"""Export a run: a folder for diffusers, or its metrics as CSV or Parquet.

The scheduler is written as diffusers reads it; diffusers itself is not needed. The network is our
own, so the folder contains its definition as a file that needs PyTorch alone.
"""

from __future__ import annotations

import inspect
import io
import json
import shutil
from pathlib import Path
from typing import Any, cast

import safetensors.torch

from diffusion_core.files import building_folder, check_regular, listing
from diffusion_core.models import unet
from diffusion_core.process.embedding import SinusoidalPositionEmbeddings
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import SCHEDULE_KINDS
from diffusion_core.runs.archive import LEARNED
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.metrics import read_all
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run

FORMATS = ("diffusers", "onnx", "csv", "parquet")
SCRIPT = Path(__file__).with_name("sample_with_diffusers.py")


class ExportError(ValueError):
    """An export that cannot be made; the message says why."""


def metrics_table(run: Run, format: str) -> bytes:
    """All numbers of a run, not thinned, as the bytes of a `csv` or a `parquet` file.

    One row a step, one column a curve, empty where a curve has no value at that step: the form
    that pandas and spreadsheets plot without further work. `wall_time` is when the step was taken,
    in seconds since 1970. Raises ExportError where there are none, MetricsError where they cannot
    be read.
    """
    import pandas as pd  # takes 160 MB: not before it is used

    rows = read_all(run.path / "metrics.sqlite")
    if not rows:
        raise ExportError(f"{run.name} has no metrics yet; train it for a few steps first.")
    long = pd.DataFrame(rows, columns=["step", "name", "value", "wall_time"])
    table = long.pivot(index="step", columns="name", values="value").rename_axis(columns=None)
    # What is measured after a step (the validation loss) comes later than the step itself.
    table.insert(0, "wall_time", long.groupby("step")["wall_time"].min())
    if format == "csv":
        return table.to_csv().encode()
    if format == "parquet":
        file = io.BytesIO()
        table.reset_index().to_parquet(file, index=False)
        return file.getvalue()
    raise ValueError(f"Unknown format {format!r}; choose csv or parquet.")


def scheduler_config(config: RunConfig) -> dict[str, Any]:
    """The run's noise schedule as diffusers' `scheduler_config.json` has it.

    DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler and their relatives all read it; of a
    flow FlowMatchEulerDiscreteScheduler does.
    """
    schedule = build_schedule(config)
    common = {"num_train_timesteps": schedule.timesteps}
    if not isinstance(schedule, NoiseSchedule):
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", **common, "shift": 1.0}
    kind = SCHEDULE_KINDS[schedule.kind].diffusers
    if kind is not None and not schedule.exact.shift_size:
        betas: dict[str, Any] = {
            "beta_schedule": kind,
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
        }
    else:
        # Rescaled ones are not changed by diffusers' rescaling, which its solvers must know of.
        betas = {"trained_betas": schedule.betas.tolist()}
    return {
        "_class_name": "DDIMScheduler",
        **common,
        **betas,
        "prediction_type": PREDICTION_TYPES[config.prediction_type].diffusers,
        "rescale_betas_zero_snr": schedule.rescale_zero_terminal_snr,
        "timestep_spacing": "trailing",
        "clip_sample": True,
        "clip_sample_range": 1.0,
    }


def write_diffusers(run: Run, checkpoint: Checkpoint, out: Path) -> None:
    """Write the folder `out` for diffusers: scheduler, network, weights, a script and a README.

    Nothing in it imports Diffusion Lab. It appears whole or not at all. Raises ExportError if
    `out` exists, CheckpointError, DiskFull.
    """
    kind = PREDICTION_TYPES[checkpoint.config.prediction_type]
    if checkpoint.config.distilled:
        raise ExportError(
            f"diffusers has no scheduler for {run.name}, which is a distilled run. Export it in "
            "another format, or the run that it was distilled from."
        )
    if kind.flow and kind.v_scale is not None:
        raise ExportError(
            f"diffusers' flow takes a network that predicts its direction; {run.name} predicts "
            f"{kind.title}. Export it in another format."
        )
    if out.exists():
        raise ExportError(f"{out} already exists; choose another folder with --out or remove it.")
    model, _, config = load_model(checkpoint, exact=True)
    channels = cast(int, model.channels)
    scheduler = scheduler_config(config)
    network = {
        "_class_name": type(model).__name__,
        "network": config.network,
        "network_args": {**config.network_args, "channels": channels},
        "image_size": config.image_size,
        "channels": channels,
        "class_names": list(checkpoint.classes),
        # diffusers counts the timesteps of a flow from 1, those of all else from 0, as we do.
        "first_timestep": int(PREDICTION_TYPES[config.prediction_type].flow),
    }
    with building_folder(out) as folder:
        for name, values in (("scheduler/scheduler_config", scheduler), ("unet/config", network)):
            path = folder / f"{name}.json"
            path.parent.mkdir()
            path.write_text(
                json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        path.write_bytes(safetensors.torch.save(weights, {"format": "pt"}))
        text = _readme(run, checkpoint, type(model).__name__, scheduler["_class_name"])
        (folder / "README.md").write_text(text, encoding="utf-8")
        for path in listing(run.path / LEARNED, f"step-{checkpoint.step:08d}-*.json"):
            (folder / LEARNED).mkdir(exist_ok=True)
            check_regular(path)
            shutil.copyfile(path, folder / LEARNED / path.name)
        (folder / "network.py").write_text(network_source(), encoding="utf-8")
        (folder / SCRIPT.name).write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")


def network_source() -> str:
    """The definition of both networks as one Python file that imports PyTorch alone."""
    layer = SinusoidalPositionEmbeddings
    before, after = inspect.getsource(unet).split(
        f"from {layer.__module__} import {layer.__name__}\n"
    )
    return f"{before.rstrip()}\n\nimport math\n\n\n{inspect.getsource(layer)}{after}"


def _readme(run: Run, checkpoint: Checkpoint, kind: str, scheduler: str) -> str:
    config, step = checkpoint.config, checkpoint.step
    flow = PREDICTION_TYPES[config.prediction_type].flow
    classes = ", ".join(f"{number} {name}" for number, name in enumerate(checkpoint.classes))
    return f"""# {run.name}, step {step}

An image diffusion model of the preset `{config.preset}`, trained on `{config.data}` at \
{config.image_size}×{config.image_size} pixels. Its network predicts `{config.prediction_type}`. \
Written by Diffusion Lab with

    python -m diffusion_core export {run.name} --format diffusers --step {step}

- `scheduler/` is read by diffusers: `{scheduler}.from_pretrained(folder, subfolder="scheduler")`.
- `unet/` holds the averaged (EMA) weights. `network.py` defines the network: build it with \
`network.{kind}(**network_args)`, the arguments from `unet/config.json`.
- `model(x, t)` takes images in [-1, 1] and timesteps counted from 0\
{": diffusers' timestep minus 1." if flow else ", as diffusers counts them."}
- `{LEARNED}/`, where it is, holds timesteps that were learned for a sampler and a number of steps.
{f"- `model(x, t, labels)` takes classes: {classes}." if classes else "- It has no classes."}

`python {SCRIPT.name} images.png` generates four images; it needs torch, diffusers and safetensors.
"""
