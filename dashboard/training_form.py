"""What the entries of the Training page's form come to. Knows nothing of how they are asked for."""

from __future__ import annotations

import socket
from pathlib import Path

from dashboard.run_words import duration, place
from dashboard.settings import Settings
from diffusion_core import jobs
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.data.store import DataError
from diffusion_core.presets import preset
from diffusion_core.runs import ACTIVE, Run

DATA = ("cars", "digits", "folder", "torchvision")
# Of fewer steps the first ones, which are slow, make up too much.
ENOUGH_STEPS = 20


def data_spec(kind: str, detail: str) -> str:
    """A data set as the core names it; raises DataError where a folder or name is missing."""
    detail = detail.strip()
    if kind == "folder" and not detail:
        raise DataError("Give the folder that holds the pictures.")
    if kind == "torchvision" and not detail:
        raise DataError("Give the data set's name in torchvision, for example CIFAR10.")
    return f"{kind}:{detail}" if detail else kind


def suggested_size(kind: str) -> int:
    """The side in pixels that suits a kind of data."""
    return 32 if kind in ("digits", "torchvision") else 64


def suggested_name(runs_dir: Path, preset_name: str, kind: str) -> str:
    return jobs.free_name(runs_dir, f"{preset_name}-{kind}")


def make_config(
    preset_name: str,
    data: str,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    image_size: int,
    every: int,
    max_steps: int | None,
) -> RunConfig:
    """The settings of a run; `every`: samples, checkpoint and validation come every so many steps.

    The learning rate rises over at most the first tenth of the steps. Raises ConfigError.
    """
    if max_steps is not None and steps > max_steps:
        raise ConfigError(f"This installation allows {max_steps:,} steps; ask for no more.")
    start = preset(preset_name)
    return start.replace(
        data=data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        image_size=image_size,
        warmup_steps=min(start.warmup_steps, steps // 10),
        checkpoint_every=every,
        sample_every=every,
        validate_every=every,
    )


def start_run(settings: Settings, name: str, config: RunConfig) -> Run:
    """Look at everything that can be wrong, then start. Raises ConfigError, DataError, JobError."""
    jobs.check_name(name)
    jobs.check_data(config)
    return jobs.start(settings.runs_dir, name, config, settings.device)


def estimate(runs: list[Run], config: RunConfig, device: str) -> str:
    """How long a run would take by the newest one of its kind on this machine; "" if unknown."""
    for run in runs:
        status = run.status
        try:
            known = run.config
        except ConfigError:
            continue
        speed = status.get("images_per_second", 0)
        if (
            known is not None
            and (known.preset, known.image_size) == (config.preset, config.image_size)
            and place(status) == here(device)
            and status.get("step", 0) >= ENOUGH_STEPS
            and speed > 0
        ):
            seconds = config.steps * config.batch_size / speed
            return (
                f"About {duration(seconds)}, at the {speed:.1f} images a second of {run.name}, "
                "the last of this kind here."
            )
    return ""


def here(device: str) -> tuple[str, str]:
    """`run_words.place` of a device of this machine."""
    return place({"host": socket.gethostname(), "device": device})


def queue_note(runs: list[Run], device: str) -> str:
    """Whether a run that is started now would wait."""
    busy = [run.name for run in runs if run.state in ACTIVE and place(run.status) == here(device)]
    return f"{busy[0]} uses the device; a new run waits until it is free." if busy else ""
