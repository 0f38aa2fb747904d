"""The run that Home shows: one that is training, else the best finished one."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import streamlit as st

from dashboard.services.roles import may_train
from dashboard.services.settings import Settings
from dashboard.services.shared_look import keep_pace, look_anew, pace, recent, runs_of
from dashboard.ui import keys, run_wording
from dashboard.ui.images import read_strip, show_row
from dashboard.ui.navigation import entry
from dashboard.ui.outside import code, plain
from diffusion_core.data.decode import ImageError
from diffusion_core.evaluation.results import Result, read_results
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import ACTIVE, AT_WORK, RunState

# Metrics; the first that a result has counts.
RANKED_BY = ("frechet", "frechet_general", "sliced_wasserstein")


class Featured(NamedTuple):
    run: RunSnapshot
    heading: str
    why: str = ""  # a sentence, where there was a choice


def show_featured_run(settings: Settings) -> None:
    """Its state, newest samples and the ways on, updated every second while a run is active."""
    look_anew()
    runs = runs_of(settings)
    active = any(run.state in ACTIVE for run in runs)
    seconds = pace(st.session_state.get(keys.PACE)) if active else None
    st.session_state[keys.PACE] = seconds
    st.fragment(_show, run_every=seconds)(settings, seconds, [runs])


def featured(runs: list[RunSnapshot]) -> Featured:
    """Of at least one run, newest first: the newest at work, else the newest in the queue, else
    the best finished one, else the one with the most steps.

    The best is the one whose images were measured nearest to real ones; where none was measured,
    the one with the most steps. Losses of different data and targets cannot be compared.
    """
    for states, heading in ((AT_WORK, "Training now"), (ACTIVE, "Next to train")):
        for run in runs:
            if run.state in states:
                return Featured(run, heading)
    finished = [run for run in runs if run.state == RunState.FINISHED]
    if not finished:
        return Featured(max(runs, key=lambda run: run.status.step), "Longest run")
    distances = {run.name: distance_to_real(run) for run in finished}
    best = min(finished, key=lambda run: (distances[run.name], -run.status.step))
    if len(finished) == 1:
        return Featured(best, "Finished run")
    reason = "its images were measured nearest to real ones"
    if distances[best.name] == math.inf:
        reason = "it has the most steps, and none has been measured"
    return Featured(best, "Best run", f"Out of {len(finished)} finished runs: {reason}.")


def distance_to_real(run: RunSnapshot) -> float:
    """How far a run's best measured images are from real ones: 0 as real images that were not
    trained on, 1 as noise; infinite where it was not measured."""
    results, _ = recent(("results", run.path), functools.partial(read_results, run.path))
    return min(map(_distance, results), default=math.inf)


def _distance(result: Result) -> float:
    found = (result.metrics, result.floor, result.ceiling)
    for name in RANKED_BY:
        if all(name in estimates for estimates in found):
            value, floor, ceiling = (estimates[name].value for estimates in found)
            return (value - floor) / (ceiling - floor) if ceiling > floor else math.inf
    return math.inf


def _show(settings: Settings, seconds: float | None, seen: list[list[RunSnapshot]]) -> None:
    """The fragment. `seen`: what the page has just read; its first run takes it."""
    runs = seen.pop() if seen else runs_of(settings)
    if not runs:
        _show_how_to_begin()
        return
    run, heading, why = featured(runs)
    if seconds is not None:
        if run.state not in ACTIVE:
            st.rerun()  # of the whole page, which stops the updates
        keep_pace(seconds)
    st.header(heading)
    st.markdown(run_wording.headline(run))
    if run.state in ACTIVE and run.status.total:
        st.progress(min(1.0, run.status.step / run.status.total))
    if run.problem:
        st.warning(f"{code(run.name)} cannot be read in full. {plain(run.problem)}")
    _show_ways_on(run)
    if run.config is not None:
        st.caption(" ".join(filter(None, [why, f"{run_wording.settings_line(run.config)}."])))
    _show_samples(run)


def _show_how_to_begin() -> None:
    st.header("No runs yet")
    if not may_train():
        st.info("The operator of this app can start a run on the Training page.")
        return
    st.info(
        "Start a run on the Training page. It keeps running if you close the browser, and its "
        "newest samples appear here."
    )
    page = entry("training.py")
    if st.button("Start a training run", type="primary", icon=page.icon):
        st.switch_page(page.path)


def _show_ways_on(run: RunSnapshot) -> None:
    sampling, training = entry("sampling.py"), entry("training.py")
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Generate images", type="primary", icon=sampling.icon):
            # Without a checkpoint of this run the page opens with another run's, or says when.
            link = {"run": run.name} if run.run.latest_checkpoint() else None
            st.switch_page(sampling.path, query_params=link)
        st.page_link(
            training.path,
            label="View training",
            icon=training.icon,
            query_params={"run": run.name},
        )


def _show_samples(run: RunSnapshot) -> None:
    samples = recent(("samples", run.path), run.run.samples)
    if not samples:
        st.caption(run_wording.no_samples(run))
        return
    step, path = samples[-1]
    try:
        images = read_strip(path)
    except ImageError:
        st.warning(f"The samples in {code(path.name)} cannot be read. The next ones replace them.")
        return
    show_row(images, alt=f"Newest samples of {run.name}, at step {step:,}", width=108)
    st.caption(f"Newest samples of {code(run.name)}, at step {step:,}")
