"""The weaker networks that can guide another one (autoguidance: Karras et al. 2024, 2406.02507).

A guide is a checkpoint of the same run or of one beside it, with one of the averages of its
weights. It must know the same classes, images and noise levels; its network and what it predicts
may differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run, list_runs, run_folders
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.text import cut, some


def find_guide(folder: Path, run: str, step: int) -> Checkpoint:
    """The checkpoint of a step of the run `run` beside that in `folder`; an empty name is this
    run. Raises CheckpointError where there is none."""
    found = Run(folder)
    if run:
        # By its name among those that are there: what comes from outside may be any path.
        beside = {each.name: each for each in run_folders(folder.parent)}
        if run not in beside:
            raise CheckpointError(f"There is no run {cut(run)} that could guide {folder.name}.")
        found = beside[run]
    return found.checkpoint(step)


def misfit(can: Capabilities, guide: Checkpoint) -> str:
    """Why a checkpoint cannot guide one that can this, as a sentence; empty where it can."""
    config, kinds = guide.config, {1: "grey", 3: "colour"}
    if guide.classes != can.classes:
        what = f"has other classes: {some(guide.classes) or 'none'}"
    elif (config.image_size, config.channels) != (can.image_size, can.channels):
        what = (
            f"generates {kinds.get(config.channels, config.channels)} images of "
            f"{config.image_size} pixels, not {kinds.get(can.channels, can.channels)} ones of "
            f"{can.image_size}"
        )
    elif config.distilled != can.distilled:
        what = f"is {'' if config.distilled else 'not '}a distilled run"
    elif not same_levels(build_schedule(config), can.schedule):
        what = "was trained with another noise schedule"
    else:
        return ""
    name = f"{cut(guide.path.parent.parent.name)} at step {guide.step:,}"
    return f"{name} cannot guide {cut(can.folder.name)}: it {what}."


def same_levels(one: Schedule, other: Schedule) -> bool:
    return one.is_flow == other.is_flow and (
        np.array_equal(one.exact_signal, other.exact_signal)
        and np.array_equal(one.exact_spread, other.exact_spread)
    )


def guides_for(can: Capabilities, step: int, average: str) -> dict[str, dict[int, Checkpoint]]:
    """What can guide the checkpoint of a step with an average of its weights: by run and step, the
    oldest first. The run itself has the empty name and comes first."""
    own = Run(can.folder)
    runs = {"": own} | {
        each.name: each for each in list_runs(can.folder.parent) if each.name != own.name
    }
    found = {}
    for name, run in runs.items():
        steps, judged, fits = {}, None, False
        for guide in run.checkpoints()[0]:
            # Mostly all checkpoints of a run have the same settings.
            if judged is None or (judged.config, judged.classes) != (guide.config, guide.classes):
                judged, fits = guide, not misfit(can, guide)
            itself = not name and guide.step == step and guide.averages == (average,)
            if fits and not itself:
                steps[guide.step] = guide
        if steps:
            found[name] = steps
    return found
