"""What the entries of the Training page's form come to. Knows nothing of how they are asked for."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from dashboard.services.settings import Settings
from dashboard.ui.run_wording import count, duration, place
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.presets import PRESETS, preset
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import ACTIVE, StatusRecord

AS_RUN = "as "  # before the name of a run whose settings another starts with
# What the words of the form mean in the settings.
TARGETS = {
    "noise": "epsilon",
    "picture": "x_0",
    "velocity": "v_prediction",
    "flow": "flow_prediction",
}
LOSS_WORDS = {"L1": "l1", "L2": "l2", "Huber": "huber"}
OPTIMIZERS = {"Adam": "adam", "AdamW": "adamw"}
CHANNELS = {"colour": 3, "grey": 1}
PRECISIONS = {"automatic": "auto", "bfloat16": "bf16", "float32": "no"}
# Those of `NoiseSchedule`.
SCHEDULE_DEFAULTS = {"kind": "linear", "timesteps": 300, "rescale_zero_terminal_snr": False}
# Of fewer steps the first ones, which are slow, make up too much.
ENOUGH_STEPS = 20


def data_spec(kind: str, detail: str) -> str:
    """A data set as the core names it; raises DataError where a folder or name is missing."""
    detail = detail.strip()
    if not detail and SOURCES[kind].missing:
        raise DataError(SOURCES[kind].missing)
    return f"{kind}:{detail}" if detail else kind


def suggested_size(kind: str) -> int:
    """The side in pixels that suits a kind of data."""
    return SOURCES[kind].size


def suggested_name(runs_dir: Path, start: str, kind: str) -> str:
    """A free name for a run that starts from the preset, or as the run, `start`."""
    stem = start.removeprefix(AS_RUN) if start.startswith(AS_RUN) else f"{start}-{kind}"
    return jobs.free_name(runs_dir, stem)


def starts(runs: list[RunSnapshot]) -> list[str]:
    """What a run can start from: the presets, and every other run."""
    return [*PRESETS, *(AS_RUN + run.name for run in runs)]


def start_config(start: str, runs_dir: Path) -> RunConfig:
    """The settings of one of `starts`. Raises ConfigError where a run has none."""
    if not start.startswith(AS_RUN):
        return preset(start)
    run = Run(runs_dir / start.removeprefix(AS_RUN))
    config = run.config
    if config is None:
        raise ConfigError(f"{run.name} has left no settings; start from a preset.")
    return config


def entries_of(config: RunConfig, max_steps: int | None) -> dict[str, Any]:
    """The entries of the form, by their keys, that come to these settings.

    None: an entry that goes by another one.
    """
    kind, _, detail = config.data.partition(":")
    as_preset = config == PRESETS.get(config.preset)
    every = config.sample_every
    schedule = SCHEDULE_DEFAULTS | config.schedule
    return {
        "data": kind,
        **({kind: int(detail) if detail.isdecimal() else detail} if detail else {}),
        "steps": min(config.steps, max_steps or config.steps),
        "batch": config.batch_size,
        "lr": config.learning_rate,
        "size": config.image_size,
        "seed": config.seed,
        "every": every,
        "target": _word_for(config.prediction_type, TARGETS),
        "loss": _word_for(config.loss, LOSS_WORDS),
        "snr": config.min_snr_gamma,
        "schedule": schedule["kind"],
        "T": schedule["timesteps"],
        "zero_snr": schedule["rescale_zero_terminal_snr"],
        "optimizer": _word_for(config.optimizer, OPTIMIZERS),
        "warmup": None if as_preset else config.warmup_steps,
        "ema": config.ema_decay,
        "ema_short": config.ema_decays.get("short", 0.0),
        "ema_long": config.ema_decays.get("long", 0.0),
        "labels": config.class_conditional,
        "dropout": config.label_dropout,
        "channels": _word_for(config.channels, CHANNELS),
        "precision": _word_for(config.mixed_precision, PRECISIONS),
        "checkpoints": None if config.checkpoint_every == every else config.checkpoint_every,
        "validations": None if config.validate_every == every else config.validate_every,
        "keep": config.keep_checkpoints,
        "keep_every": config.keep_every,
        "keep_best": config.keep_best,
        "tensorboard": config.tensorboard,
    }


def make_config(
    start: RunConfig, data: str, entries: dict[str, Any], max_steps: int | None
) -> RunConfig:
    """The settings of `start` with the form's entries; what has no entry stays as it is there.

    Where the warm-up goes by the steps it is that of `start`, at most a tenth of them. Raises
    ConfigError.
    """
    steps, every = entries["steps"], entries["every"]
    if max_steps is not None and steps > max_steps:
        raise ConfigError(f"This installation allows {max_steps:,} steps; ask for no more.")
    warmup = entries["warmup"]
    averages = {**start.ema_decays, "short": entries["ema_short"], "long": entries["ema_long"]}
    schedule = {
        "kind": entries["schedule"],
        "timesteps": entries["T"],
        "rescale_zero_terminal_snr": entries["zero_snr"],
    }
    known = SCHEDULE_DEFAULTS | start.schedule
    schedule = {name: value for name, value in schedule.items() if value != known[name]}
    return start.replace(
        data=data,
        steps=steps,
        batch_size=entries["batch"],
        learning_rate=entries["lr"],
        seed=entries["seed"],
        image_size=entries["size"],
        sample_every=every,
        checkpoint_every=every if entries["checkpoints"] is None else entries["checkpoints"],
        validate_every=every if entries["validations"] is None else entries["validations"],
        prediction_type=TARGETS[entries["target"]],
        loss=LOSS_WORDS[entries["loss"]],
        min_snr_gamma=entries["snr"],
        schedule={**start.schedule, **schedule},
        optimizer=OPTIMIZERS[entries["optimizer"]],
        warmup_steps=min(start.warmup_steps, steps // 10) if warmup is None else warmup,
        ema_decay=entries["ema"],
        ema_decays={name: decay for name, decay in averages.items() if decay},
        class_conditional=entries["labels"],
        label_dropout=entries["dropout"],
        channels=CHANNELS[entries["channels"]],
        mixed_precision=PRECISIONS[entries["precision"]],
        keep_checkpoints=entries["keep"],
        keep_every=entries["keep_every"],
        keep_best=entries["keep_best"],
        tensorboard=entries["tensorboard"],
    )


def _word_for(value: Any, words: dict[str, Any]) -> str:
    return next(word for word, meant in words.items() if meant == value)


def start_run(settings: Settings, name: str, config: RunConfig) -> Run:
    """Look at everything that can be wrong, then start. Raises ConfigError, DataError, JobError."""
    jobs.check_name(name)
    jobs.check_data(config)
    return jobs.start(settings.runs_dir, name, config, settings.device)


def estimate(runs: list[RunSnapshot], config: RunConfig, device: str) -> str:
    """How long a run would take by the newest one of its kind on this machine; "" if unknown."""
    for run in runs:
        status, known = run.status, run.config
        speed = status.images_per_second or 0
        if (
            known is not None
            and (known.preset, known.image_size) == (config.preset, config.image_size)
            and place(status) == here(device)
            and status.step >= ENOUGH_STEPS
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
    return place(StatusRecord(host=socket.gethostname(), device=device))


def queue_note(runs: list[RunSnapshot], device: str) -> str:
    """Whether a run that is started now would wait."""
    before = [run for run in runs if run.state in ACTIVE and place(run.status) == here(device)]
    busy = [run.name for run in before if run.state != "queued"]
    waiting = f"{count(len(before) - len(busy), 'run')} already in the queue"
    if busy and len(before) == len(busy):
        return f"{busy[0]} uses the device; a new run waits until it is free."
    if busy:
        return f"{busy[0]} uses the device; a new run waits for its turn, with {waiting}."
    return f"A new run waits for its turn, with {waiting}." if before else ""
