"""What is best within a number of network evaluations, from the quality that was measured of this
checkpoint; nothing is said where nothing was measured."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import streamlit as st

from dashboard.sampling.controls import LABEL, controls_for
from dashboard.sampling.spacing import set_timesteps
from dashboard.services.shared_look import recent
from dashboard.ui import keys
from dashboard.ui.outside import plain
from diffusion_core.evaluation.metrics import METRICS, Metric
from diffusion_core.evaluation.results import Result, read_results
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.metrics import COMPARED_BY
from diffusion_core.runs.run import Run
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.spec import SamplingSpec

# What is taken of the best: all that decides how, and not what, is sampled.
TAKEN = (
    *("sampler", "steps", "spacing", "timesteps", "average", "eta", "variance", "as_lecture"),
    *("guidance_scale", "guidance", "guide_run", "guide_step", "guide_average"),
    *("negative", "guidance_interval", "exact"),
)


def show_suggestion(
    run: Run, checkpoint: Checkpoint, can: Capabilities, spec: SamplingSpec
) -> None:
    """The best measured way to sample that costs at most as much as `spec`, with a button."""
    results, _ = recent(("results", run.path), functools.partial(read_results, run.path))
    if spec.problems(can):
        return
    budget = round(spec.evaluations(can.schedule) / spec.n)
    comparable, metric = measured(results, checkpoint, can, budget)
    if metric is None:
        return
    best = min(comparable, key=lambda result: result.metrics[metric.name].value)
    figure = metric.format_estimate(best.metrics[metric.name])
    within = f"{budget:,} network evaluation{'s' if budget > 1 else ''}"
    text = (
        f"Best measured of this checkpoint within {within}: {best.way()} ({metric.title} {figure}; "
        f"{best.spec.n:,} images, {len(comparable):,} measured)."
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(plain(text), width="stretch")
        if any(getattr(best.spec, name) != getattr(spec, name) for name in TAKEN):
            st.button("Use it", key="use-best", on_click=use, args=(best.spec, spec, can))


def measured(
    results: Sequence[Result], checkpoint: Checkpoint, can: Capabilities, budget: int
) -> tuple[list[Result], Metric | None]:
    """Results of a checkpoint that cost at most `budget` evaluations an image and can be compared:
    of the same data and number of images, that of which most were measured, by one metric. None
    where there are none."""
    usable = [
        result
        for result in results
        if result.evaluations <= budget
        and not result.spec.problems(can)
        and holds(result, checkpoint)
    ]
    for name in COMPARED_BY:
        found = [result for result in usable if name in result.metrics]
        groups = Counter((result.spec.n, result.fingerprint) for result in found)
        if groups:
            largest = max(groups, key=lambda group: (groups[group], group[0]))
            alike = [each for each in found if (each.spec.n, each.fingerprint) == largest]
            return alike, METRICS[name]
    return [], None


def holds(result: Result, checkpoint: Checkpoint) -> bool:
    """Whether a result is of these very files of a checkpoint and its guide."""
    try:
        found = checkpoint.step, checkpoint.time, result.spec.guide_time(checkpoint)
    except CheckpointError:
        return False
    return (result.spec.step, result.checkpoint_time, result.guide_time) == found


def use(best: SamplingSpec, spec: SamplingSpec, can: Capabilities) -> None:
    """Callback: set the controls as `best` says, and leave what is sampled as it is."""
    wanted = spec.replace(**{name: getattr(best, name) for name in TAKEN})
    if wanted.guidance_scale != 1 and not wanted.autoguided and wanted.label == ANY_CLASS:
        wanted = wanted.replace(label=EACH_IN_TURN)  # guidance by class needs one
        st.session_state[LABEL.key] = EACH_IN_TURN
    for control in controls_for(can, dict(wanted)):
        if control.field in TAKEN:
            value = control.of_field(getattr(wanted, control.field))
            st.session_state[control.key] = value
    learned = can.learned.get((wanted.average, wanted.sampler, wanted.steps))
    own = learned is not None and learned.timesteps == wanted.timesteps
    set_timesteps(() if own else wanted.timesteps)
    for key in (keys.DEFAULTS, keys.USUAL_SPACING):  # it follows no other control
        st.session_state.pop(key, None)
