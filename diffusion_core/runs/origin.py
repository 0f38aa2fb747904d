"""Starting a run from the weights of another, on other images if wanted.

The setting `init_from` names them: RUN or RUN@STEP, RUN a folder or a name beside the new run. They
are copied into the new run's folder when it is made, so that what becomes of the other run no
longer matters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_core.models.unet import with_augment_dim, with_classes
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.runs.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_weights,
    read_checkpoint,
    write_weights,
)
from diffusion_core.runs.config import (
    FOLLOWING,
    MAIN_AVERAGE,
    ConfigError,
    RunConfig,
    split_origin,
)
from diffusion_core.runs.presets import network_settings, schedule_settings
from diffusion_core.runs.run import load_run
from diffusion_core.text import cut, shown

FILE = "origin.safetensors"  # in the folder of the new run


def origin_title(config: RunConfig) -> str:
    """The run and step that a run started from, without their folder: "cars, step 5,000"."""
    run, step = split_origin(config.init_from)
    title = cut(Path(run).name) + ("" if step is None else f", step {step:,}")
    main = config.init_average == MAIN_AVERAGE
    return title if main else f"{title}, average {cut(config.init_average)}"


def find_origin(config: RunConfig, runs_dir: Path) -> Checkpoint:
    """The checkpoint that `init_from` names, the latest usable one without a step.

    `runs_dir`: where a run is looked for by its name. Raises ConfigError.
    """
    name, step = split_origin(config.init_from)
    try:
        run = load_run(runs_dir / os.path.expanduser(name))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no run {cut(name)} whose weights could be used.") from error
    try:
        checkpoint = run.latest_checkpoint() if step is None else run.checkpoint(step)
    except CheckpointError as error:
        there = ", ".join(f"{step:,}" for step, _ in run.weights()[-5:]) or "none"
        raise ConfigError(f"{error} The latest steps with weights: {there}.") from error
    if checkpoint is None:
        raise ConfigError(f"{run.name} has no usable weights to start from.")
    if not checkpoint.has_average(config.init_average):
        raise ConfigError(
            f"{run.name} has no averaged weights called {shown(config.init_average)}; "
            f"init_average can be {' or '.join(checkpoint.averages)}."
        )
    return checkpoint


def settle_origin(config: RunConfig, runs_dir: Path) -> RunConfig:
    """`config` with the exact step in `init_from`, for a new run in `runs_dir`.

    Raises ConfigError where there are no such weights or they do not fit the network.
    """
    if not config.init_from:
        if config.init_average != MAIN_AVERAGE:
            raise ConfigError(
                f"init_average is {shown(config.init_average)}, averaged weights of another run; "
                f"name that run with init_from."
            )
        return config
    checkpoint = find_origin(config, runs_dir)
    folder = checkpoint.path.parent.parent
    check_fits(config, checkpoint, folder.name)
    beside = folder.resolve().parent == runs_dir.resolve()
    name = folder.name if beside else str(folder.absolute())
    return config.replace(init_from=f"{name}@{checkpoint.step}")


def check_fits(config: RunConfig, checkpoint: Checkpoint, name: str) -> None:
    """Raises ConfigError where the weights, of a run `name`, are those of another network.

    What the network learned may differ: images, classes, size, objective and schedule.
    """
    ours, theirs = _layout(config), _layout(checkpoint.config)
    for what in theirs:
        if ours.get(what) != theirs[what]:
            there, here = theirs[what] or "none", ours.get(what) or "none"
            raise ConfigError(
                f"The weights of {cut(name)} do not fit this run: {what} is {there} there and "
                f"{here} here. Start from the settings of {cut(name)}."
            )
    if config.distilled:
        other = checkpoint.config
        paths = [(each.prediction_type, schedule_settings(each)) for each in (config, other)]
        if paths[0] != paths[1]:
            raise ConfigError(
                f"A distillation keeps the schedule and the prediction_type of its run; start from "
                f"the settings of {cut(name)}."
            )
        if config.learns_from_paths and other.distilled:
            raise ConfigError(
                f"{cut(name)} is a distilled run, which samples along no path; distil "
                f"{origin_title(other)}, or set consistency_by to tuning."
            )


def distillation(teacher: RunConfig, init_from: str) -> RunConfig:
    """The settings for a run that distils another, which `init_from` names, into one that samples
    in one or two steps; `teacher`: its settings.

    Network, schedule, batches and optimizer stay. L1 made better images in one step than L2. A
    network that predicts epsilon says next to nothing about the first step's image, which matching
    is about.
    """
    learns = PREDICTION_TYPES[teacher.prediction_type].learns_pure_noise
    objective = {"loss": "l1", "loss_on": "prediction", "min_snr_gamma": 0.0}
    images = {"timestep_sampling": "uniform", "immiscible": False, "augment": 0.0}
    return teacher.alone().replace(
        **objective,
        **images,
        learned_weighting=False,
        init_average=MAIN_AVERAGE,
        objective="consistency",
        consistency_by="paths",
        matching_share=0.25 if learns else 0.0,
        init_from=init_from,
        steps=max(1, teacher.steps // 2),
        learning_rate_decay="cosine",
        warmup_steps=min(100, teacher.warmup_steps),
        sample_steps=1,
        evaluate_steps=1,
    )


def _layout(config: RunConfig) -> dict[str, Any]:
    """What the shapes of a network's weights follow from, apart from its classes."""
    layout: dict[str, Any] = {"network": config.network, "channels": config.channels}
    for name, value in network_settings(config.network, config.network_args).items():
        if name not in FOLLOWING:
            listed = isinstance(value, (list, tuple))
            layout[f"network_args.{name}"] = ", ".join(map(str, value)) if listed else value
    return layout


def keep_origin(run: Path, config: RunConfig) -> None:
    """Copy the weights that `init_from` names into the folder of a new run, once.

    Raises ConfigError, DiskFull, OSError.
    """
    if not config.init_from or (run / FILE).exists():
        return
    found = find_origin(config, run.parent)
    check_fits(config, found, found.path.parent.parent.name)
    try:
        tensors = load_weights(found, config.init_average)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    write_weights(run / FILE, found.step, tensors, found.config, found.classes)


def load_origin(run: Path, classes: Sequence[str], augment_dim: int = 0) -> dict[str, Tensor]:
    """The weights that a run starts from, for a network that is to learn these classes and to be
    told so much of an augmentation.

    Raises ConfigError.
    """
    try:
        found = read_checkpoint(run / FILE)
        tensors = load_weights(found)
    except CheckpointError as error:
        raise ConfigError(f"The weights to start from cannot be used: {error}") from error
    if found.config.network != "unet":
        return tensors
    tensors = with_classes(tensors, found.classes, classes, found.config.label_dropout > 0)
    return with_augment_dim(tensors, augment_dim)
