"""The newest run, as Home shows it."""

from __future__ import annotations

import streamlit as st

from dashboard.services.roles import may_train
from dashboard.services.settings import Settings
from dashboard.services.shared_look import keep_pace, look_anew, pace, recent, runs_of
from dashboard.ui import keys, run_wording
from dashboard.ui.images import read_strip, show_row
from dashboard.ui.navigation import entry
from dashboard.ui.outside import code, plain
from diffusion_core.data.decode import ImageError
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import ACTIVE


def show_latest_run(settings: Settings) -> None:
    """Its state, newest samples and the links to it, updated every second while it is active."""
    look_anew()
    runs = runs_of(settings)
    active = any(run.state in ACTIVE for run in runs[:1])
    seconds = pace(st.session_state.get(keys.PACE)) if active else None
    st.session_state[keys.PACE] = seconds
    st.fragment(_show, run_every=seconds)(settings, seconds, [runs])


def _show(settings: Settings, seconds: float | None, seen: list[list[RunSnapshot]]) -> None:
    """The fragment. `seen`: what the page has just read; its first run takes it."""
    runs = seen.pop() if seen else runs_of(settings)
    if not runs:
        who = "Start one" if may_train() else "The operator of this app can start one"
        st.info(
            f"There are no runs yet. {who} on the Training page. It keeps running if the browser "
            "is closed, and its newest samples appear here."
        )
        return
    run, status = runs[0], runs[0].status
    if seconds is not None:
        if run.state not in ACTIVE:
            st.rerun()  # of the whole page, which stops the updates
        keep_pace(seconds)
    st.markdown(run_wording.headline(run))
    if run.state in ACTIVE and status.total:
        st.progress(min(1.0, status.step / status.total))
    if run.problem:
        st.warning(f"{code(run.name)} cannot be read in full. {plain(run.problem)}")
    if run.config is not None:
        st.caption(run_wording.settings_line(run.config))
    _show_samples(run)
    with st.container(horizontal=True):
        for file, label in (
            ("sampling.py", "Generate with this model"),
            ("training.py", "View training"),
        ):
            page = entry(file)
            st.page_link(page.path, label=label, icon=page.icon, query_params={"run": run.name})


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
