"""The weaker networks that can guide another one (autoguidance: Karras et al. 2024, 2406.02507).

A guide is a checkpoint of the same run or of one beside it, with one of the averages of its
weights. It must know the same classes, images and noise levels; its network and what it predicts
may differ.
"""

from __future__ import annotations

from pathlib import Path

from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.run import Run, list_runs, run_folders
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.levels import exact_tables
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
    other = Capabilities.of(guide)
    name = f"{cut(other.folder.name)} at step {guide.step:,}"
    if other.classes != can.classes:
        what = f"has other classes: {some(other.classes) or 'none'}"
    elif (other.image_size, other.channels) != (can.image_size, can.channels):
        kinds = {1: "grey", 3: "colour"}
        what = (
            f"generates {kinds.get(other.channels, other.channels)} images of "
            f"{other.image_size} pixels, not {kinds.get(can.channels, can.channels)} ones of "
            f"{can.image_size}"
        )
    elif other.flow != can.flow or exact_tables(other.schedule) != exact_tables(can.schedule):
        what = "was trained with another noise schedule"
    else:
        return ""
    return f"{name} cannot guide {cut(can.folder.name)}: it {what}."


def guides_for(can: Capabilities, step: int, average: str) -> dict[str, dict[int, Checkpoint]]:
    """What can guide the checkpoint of a step with an average of its weights: by run and step, the
    oldest first. The run itself has the empty name and comes first."""
    own = Run(can.folder)
    runs = {"": own} | {
        each.name: each for each in list_runs(can.folder.parent) if each.name != own.name
    }
    found = {}
    for name, run in runs.items():
        steps = {
            guide.step: guide
            for guide in run.checkpoints()[0]
            if not misfit(can, guide)
            and (name or guide.step != step or guide.averages != (average,))
        }
        if steps:
            found[name] = steps
    return found
