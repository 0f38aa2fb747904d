"""Home: what this is, the latest run and its newest samples, and the way to the other pages."""

from __future__ import annotations

import streamlit as st

from dashboard.services.cached import device
from dashboard.services.settings import Settings, get_settings
from dashboard.ui.images import read_strip, show_row
from dashboard.ui.navigation import SECTIONS, entry
from diffusion_core.data.decode import ImageError
from diffusion_core.device import describe
from diffusion_core.runs.run import Run, RunSnapshot, snapshots
from diffusion_core.runs.status import ACTIVE


def show_settings(run: RunSnapshot) -> None:
    if run.problem:
        st.warning(f"{run.name} cannot be read in full. {run.problem}")
    if config := run.config:
        st.caption(
            f"Preset {config.preset}, data {config.data}, {config.image_size}×{config.image_size} "
            f"pixels, batches of {config.batch_size}, seed {config.seed}."
        )


def show_samples(run: Run) -> None:
    samples = run.samples()
    if not samples:
        st.caption("No samples yet; the first are drawn after some steps of training.")
        return
    step, path = samples[-1]
    try:
        images = read_strip(path)
    except ImageError:
        st.warning(f"The samples in {path.name} cannot be read; the next ones replace them.")
        return
    words = f"Newest samples of {run.name}, at step {step:,}"
    show_row(images, alt=words, width=108)
    st.caption(words)


def show_latest_run(settings: Settings, was_active: bool) -> None:
    runs = snapshots(settings.runs_dir)
    if not runs:
        who = "Start one" if settings.may_operate else "The operator of this app starts one"
        st.info(
            f"There are no runs yet. {who} on the Training page; it goes on when the browser is "
            "closed, and its newest samples appear here."
        )
        return
    run, status = runs[0], runs[0].status
    if was_active and run.state not in ACTIVE:
        st.rerun()  # of the whole page, which stops asking
    step, total = status.step, status.total
    st.markdown(f"**{run.name}** is {run.state}, step {step:,} of {total:,}.")
    if run.state in ACTIVE and total:
        st.progress(min(1.0, step / total))
    show_settings(run)
    show_samples(run.run)
    with st.container(horizontal=True):
        for file, words in (("sampling.py", "Draw with it"), ("training.py", "See its curves")):
            page = entry(file)
            st.page_link(page.path, label=words, icon=page.icon, query_params={"run": run.name})


st.title("Diffusion Lab")
st.markdown(
    """
A diffusion model learns to draw by learning to remove noise. An image is buried in noise step by
step; a network learns to say what was added; then it starts from pure noise and goes the way back,
and a new image appears. Here you can look at each part of that, train a model and draw with it.
"""
)
settings = get_settings()
st.caption(f"This installation computes on: {describe(device())}.")

st.header("Latest run")
active = any(run.state in ACTIVE for run in snapshots(settings.runs_dir)[:1])
st.fragment(show_latest_run, run_every=1.0 if active else None)(settings, active)

for section, entries in SECTIONS.items():
    st.header(section)
    for column, page in zip(st.columns(4), entries, strict=False):
        with column, st.container(border=True, height="stretch"):
            st.page_link(page.path, label=f"**{page.title}**", icon=page.icon)
            st.write(page.summary)
