"""Below a finished drawing: at which step of its way an image was decided."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import streamlit as st

from dashboard.figures.sampling import decided_figure
from dashboard.figures.theme import show
from dashboard.sampling.wording import adds_noise, name_of, precise
from dashboard.services import cached
from dashboard.services.sampling_queue import SamplingJob, Snapshot, Task, pace_key
from dashboard.ui.images import show_row
from dashboard.ui.progress import has_result, press, session_job, watch
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.run import Run
from diffusion_core.sampling.branching import Parting, branch, partings
from diffusion_core.sampling.spec import SamplingSpec

KEY = "decided"
BRANCHES, PARTINGS = 8, 7
SHOWN = 3  # branches that are seen of each parting
SIDE = 78  # screen pixels of one


def show_decided(spec: SamplingSpec, runs: Sequence[Run], number: int) -> None:
    """About image `number`, from 1; `runs`: where its checkpoint is looked for."""
    st.subheader("Where is the image decided?")
    st.markdown(
        "Draw the image several times, with the same noise down to some timestep and with other "
        "noise from there on. How much these branches still differ in the end says how much of "
        "the image was open at that timestep."
    )
    asked = stochastic(spec)
    if asked is None:
        st.caption(
            f"{name_of(spec)} adds no noise in its steps: the start $x_T$ decides the whole "
            "image. A flow has no sampler that adds any."
        )
        return
    label = "Find out"
    if asked is not spec:
        st.caption(
            f"{name_of(spec)} added no noise in its steps: the start $x_T$ decides the whole "
            "image. DDIM with η = 1 adds fresh noise in every step, and there it can be seen."
        )
        label = "Find out with DDIM, η = 1"
    press(
        label,
        lambda: decided_task(asked, find_checkpoint(spec, runs), number - 1),
        KEY,
        icon=":material/alt_route:",
    )
    job = session_job(KEY)
    if job is not None and job.task.words == task_words(asked, number - 1):  # not of another one
        watch(job, show_partings)


def stochastic(spec: SamplingSpec) -> SamplingSpec | None:
    """The order itself where its steps add noise, else the same by DDIM with eta 1; None where no
    sampler does."""
    if adds_noise(spec):
        return spec
    return None if spec.flow else spec.replace(sampler="ddim", eta=1.0)


def find_checkpoint(spec: SamplingSpec, runs: Sequence[Run]) -> Checkpoint:
    """Raises ValueError where it is gone."""
    for run in runs:
        if run.name == spec.run:
            for checkpoint in run.checkpoints()[0]:
                if checkpoint.step == spec.step:
                    return checkpoint
    raise ValueError(f"The checkpoint of {spec.run} at step {spec.step:,} is no longer there.")


def decided_task(spec: SamplingSpec, checkpoint: Checkpoint, k: int) -> Task:
    """Its result is the list of `branch`; `k`: the image, from 0."""
    loaded: LoadedModel = cached.model(checkpoint, spec.average)
    _, schedule, config = loaded
    one = branches(spec, k)
    count = len(partings(spec.steps, PARTINGS))
    return Task(
        one,
        task_words(spec, k),
        count * spec.steps,
        count * one.evaluations(schedule),
        pace_key(spec, config),
        lambda on_step: branch(spec, loaded, k, PARTINGS, BRANCHES, on_step),
    )


def branches(spec: SamplingSpec, k: int) -> SamplingSpec:
    """Of image k."""
    return spec.replace(n=BRANCHES, label=spec.class_of(k) or spec.label)


def task_words(spec: SamplingSpec, k: int) -> str:
    count = len(partings(spec.steps, PARTINGS))
    return (
        f"{spec.run} at step {spec.step:,}: image {k + 1} in {BRANCHES} branches from each of "
        f"{count} places, {', '.join(branches(spec, k).parts()[1:])}"
    )


def show_partings(job: SamplingJob, seen: Snapshot) -> None:
    if not has_result(job, seen):
        return
    found: list[Parting] = job.result
    st.caption(f"{precise(seen.seconds)}, {job.task.evaluations:,} evaluations of the network.")
    if found[0].variance == 0:
        st.info("All branches are the same image, whatever their noise is.")
    elif len(found) > 1:
        show(decided_figure(found), "decided", "Variance left against where the branches part")
        st.markdown(verdict(found))
    most = max(one.deviation.max() for one in found) or 1.0
    columns = [column(one, most) for one in found]
    captions = ["nothing shared", *(f"t {one.timestep:.4g}" for one in found[1:])]
    show_row(columns, "Branches, their mean and their spread", SIDE, captions)
    st.caption(
        f"Under the timestep at which they part, from the top: {SHOWN} of the {BRANCHES} branches, "
        "the mean of all, and how far they lie apart, pixel by pixel (standard deviation, the "
        "largest of all white)."
    )


def column(one: Parting, most: float) -> np.ndarray:
    """Some branches, the mean and the deviation below each other; `most` is white."""
    apart = (255 * one.deviation / most).round().astype(np.uint8)
    shown = [*one.images[:SHOWN], one.mean, np.repeat(apart[..., None], one.mean.shape[-1], -1)]
    return np.concatenate(shown)


def verdict(found: Sequence[Parting]) -> str:
    alone, first, *_ = found
    share = first.variance / alone.variance
    start = f"With $x_T$ alone shared, {share:.0%} of the variance is left"
    for before, after in pairwise(found[1:]):
        if after.variance < alone.variance / 2 <= before.variance:
            return (
                f"{start}; it falls below half between t = {before.timestep:.4g} and "
                f"t = {after.timestep:.4g}."
            )
    return f"{start}."
