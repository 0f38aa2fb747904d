"""Sampling: generate images with a run's checkpoint and see them form from noise."""

from __future__ import annotations

import streamlit as st

from dashboard.sampling import (
    MODE,
    MODES,
    Chosen,
    explain_sampler,
    follow_mode,
    offer_advanced,
    offer_restoring,
    pick_checkpoint,
    pick_spec,
    sharing_sentence,
    show_history,
    show_suggestion,
    update_address,
)
from dashboard.services import cached
from dashboard.services.roles import may_train
from dashboard.services.settings import get_settings
from dashboard.ui.navigation import entry
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import pick_run
from dashboard.ui.progress import show_budget, show_running
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status import ACTIVE
from diffusion_core.sampling.capabilities import Capabilities


def say_how_to_begin(runs: list[Run]) -> None:
    active = [run for run in runs if run.state in ACTIVE]
    if active:
        st.info(
            f"{code(active[0].name)} is {active[0].state}. Its first checkpoint appears here as "
            "soon as it is saved."
        )
        st.fragment(wait_for_checkpoint, run_every=3.0)(active)
        return
    who = "Start one" if may_train() else "The app's operator starts one"
    st.info(
        f"No run has a checkpoint yet. {who} on the Training page; the first checkpoint is saved "
        "within minutes."
    )
    page = entry("training.py")
    st.page_link(page.path, label=page.title, icon=page.icon)


def wait_for_checkpoint(runs: list[Run]) -> None:
    if any(run.latest_checkpoint() or run.state not in ACTIVE for run in runs):
        st.rerun()  # the whole page


update_address()
st.title("Sampling")
st.markdown("Generate images from a checkpoint and watch them form from noise.")
settings = get_settings()
found = {run.name: (run, *run.checkpoints()) for run in list_runs(settings.runs_dir)}
ready = [(run, usable) for run, usable, _ in found.values() if usable]
for run, usable, broken in found.values():
    if broken and not usable:
        st.warning(f"{code(run.name)} has no usable checkpoint. {plain(' '.join(broken))}")
if not ready:
    say_how_to_begin([run for run, _, _ in found.values()])
    st.stop()

ready.sort(key=lambda pair: max(checkpoint.time for checkpoint in pair[1]), reverse=True)
# dashboard/style.css keeps the bar and the controls in view.
bar = st.container(horizontal=True, vertical_alignment="center", key="sampling-bar")
left, results = st.columns([3, 7], gap="medium")
with bar:
    mode = MODES[MODE.ask(on_change=follow_mode, label_visibility="collapsed", wrap=False)]
with left, st.container(key="sampling-controls"):
    st.caption(mode.about)
    basic, controls = st.container(), st.container()
    advanced = offer_advanced()
    show_budget()
    offer_restoring()
with basic:
    run = pick_run([run for run, _ in ready])
    _, usable, broken = found[run.name]
    if broken:
        st.warning(f"Skipped: {plain(' '.join(broken))}")
    checkpoint = pick_checkpoint(run, usable, advanced)
    can = Capabilities.of(checkpoint)
    spec = pick_spec(
        run,
        checkpoint,
        mode.usable(can),
        advanced,
        count=not mode.own_count,
        labels=mode.labels(can),
    )
    for sentence in can.unusable:
        st.caption(f"Learned timesteps skipped: {plain(sentence)}")
    show_suggestion(run, checkpoint, mode.usable(can), spec)
    sharing = sharing_sentence(cached.device(), [run for run, _, _ in found.values()])
    if sharing:
        st.caption(sharing)
earlier = results.container()
mode.show(Chosen(run, checkpoint, can, spec, [run for run, _ in ready]), bar, controls, results)
with earlier:
    show_history(mode.name)
with bar:
    show_running()
with results:
    explain_sampler(spec)
