"""Below generated images: at which step of its trajectory an image was decided."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import streamlit as st

from dashboard.figures.sampling import decided_figure
from dashboard.figures.theme import show
from dashboard.sampling.formula import title_of
from dashboard.services.sampling_job import SamplingJob, Snapshot
from dashboard.services.sampling_tasks import Load, OnStep, Task, load_guide, pace_key
from dashboard.ui.images import show_row
from dashboard.ui.progress import press, session_job, show_cost, show_state, watch
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.branching import Parting, branch, partings
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.spec import SamplingSpec

KEY = "decided"
BRANCHES, PARTINGS = 8, 7
SHOWN = 3  # branches of each parting
SIDE = 78  # screen pixels of one


def show_decided(spec: SamplingSpec, runs: Sequence[Run], number: int) -> None:
    """About image `number`, from 1; `runs`: where its checkpoint is looked for."""
    st.subheader("Where is the image decided?")
    st.markdown(
        "Generate the image several times, with the same noise down to some timestep and other "
        "noise below it. The more these branches differ in the end, the more of the image was "
        "open at that timestep."
    )
    branching = stochastic(spec)
    if branching is None:
        st.caption(
            f"{title_of(spec)} adds no noise in its steps: the start $x_T$ decides the whole "
            "image. No sampler for flows adds any."
        )
        return
    label = "Find out"
    if branching is not spec:
        st.caption(
            f"{title_of(spec)} adds no noise in its steps: the start $x_T$ decides the whole "
            "image. DDIM with η = 1 adds noise in every step, which shows it."
        )
        label = "Find out with DDIM, η = 1"
    press(
        label,
        lambda: decided_task(branching, find_checkpoint(spec, runs), number - 1),
        KEY,
        icon=":material/alt_route:",
    )
    job = session_job(KEY)
    # Not that of another image.
    if job is not None and (job.spec, job.task.image) == (
        branches(branching, number - 1),
        number - 1,
    ):
        watch(job, show_partings)


def stochastic(spec: SamplingSpec) -> SamplingSpec | None:
    """The spec itself if its steps add noise, else the same with DDIM, eta 1; None for a flow,
    whose samplers add none."""
    if sampler_of(spec.method, spec.flow).adds_noise_with(spec.eta):
        return spec
    return None if spec.flow else spec.replace(sampler="ddim", eta=1.0)


def find_checkpoint(spec: SamplingSpec, runs: Sequence[Run]) -> Checkpoint:
    """Raises CheckpointError if it is gone."""
    for run in runs:
        if run.name == spec.run:
            for checkpoint in run.checkpoints()[0]:
                if checkpoint.step == spec.step:
                    return checkpoint
    raise CheckpointError(f"The checkpoint of {spec.run} at step {spec.step:,} no longer exists.")


def decided_task(spec: SamplingSpec, checkpoint: Checkpoint, k: int) -> Task:
    """The result is what `branch` returns; `k`: the image, from 0."""
    one = branches(spec, k)
    details = ", ".join(text for field, text in one.details().items() if field != "n")
    count = len(partings(spec.steps, PARTINGS))

    def work(load: Load, on_step: OnStep) -> list[Parting]:
        loaded = load(checkpoint, spec.average, spec.exact)
        guide = load_guide(load, spec, checkpoint)
        return branch(spec, loaded, k, PARTINGS, BRANCHES, on_step, guide)

    return Task(
        one,
        f"{spec.run} at step {spec.step:,}: image {k + 1} in {BRANCHES} branches from each of "
        f"{count} timesteps, {details}",
        count * spec.steps,
        count * one.evaluations(build_schedule(checkpoint.config)),
        pace_key(spec, checkpoint.config),
        work,
        image=k,
    )


def branches(spec: SamplingSpec, k: int) -> SamplingSpec:
    """Of image k."""
    return spec.replace(n=BRANCHES, label=spec.class_of(k) or spec.label)


def show_partings(job: SamplingJob, seen: Snapshot) -> None:
    if not show_state(job, seen):
        return
    found: list[Parting] = job.result
    show_cost(job, seen)
    if found[0].variance == 0:
        st.info("All branches are the same image, whatever their noise.")
    elif len(found) > 1:
        show(
            decided_figure(found),
            "decided",
            "Variance left against the timestep at which the branches part",
        )
        st.markdown(verdict(found))
    most = max(one.deviation.max() for one in found) or 1.0
    columns = [column(one, most) for one in found]
    captions = ["no shared noise", *(f"t {one.timestep:.4g}" for one in found[1:])]
    show_row(columns, "Branches, their mean and their spread", SIDE, captions)
    st.caption(
        f"Above the timestep at which they part, from the top: {SHOWN} of the {BRANCHES} branches, "
        "their mean, and their standard deviation per pixel (white is the largest of all)."
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
