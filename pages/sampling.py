"""Sampling: draw images from a run's checkpoint and see them form out of noise."""

from __future__ import annotations

import streamlit as st

from dashboard.sampling import batch, between, compare, edit, generate, restore
from dashboard.sampling.controls import Chosen, pick_checkpoint, pick_spec
from dashboard.sampling.wording import explain_sampler, sharing_sentence
from dashboard.services import cached
from dashboard.services.settings import get_settings
from dashboard.ui.navigation import entry
from dashboard.ui.pickers import pick_run
from dashboard.ui.progress import watching_all
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status import ACTIVE

# Each mode's module, and what it is for; its controls and results stand where the page says.
MODES = {
    "Draw": (generate, "Images out of pure noise, as they form."),
    "From a picture": (
        edit,
        "An image varied, repainted in part, or led back to the noise that draws it.",
    ),
    "Between two": (between, "A film of the images between two noises."),
    "Side by side": (compare, "The same noises drawn in two to six ways."),
    "Many": (batch, "Up to 4,096 images in the background, kept with the run."),
}
# These ask for a number of images of their own.
OWN_COUNT = ("From a picture", "Between two", "Side by side", "Many")


def say_how_to_begin(runs: list[Run], may_operate: bool) -> None:
    active = [run for run in runs if run.state in ACTIVE]
    if active:
        st.info(
            f"{active[0].name} is {active[0].state}. It can be drawn from as soon as its first "
            "checkpoint is written; this page shows it then."
        )
        st.fragment(wait_for_checkpoint, run_every=3.0)(active)
        return
    who = "Start one" if may_operate else "The operator of this app starts one"
    st.info(
        f"There is no run with a checkpoint to draw from yet. {who} on the Training page; the "
        "first checkpoint comes within minutes."
    )
    page = entry("training.py")
    st.page_link(page.path, label=page.title, icon=page.icon)


def wait_for_checkpoint(runs: list[Run]) -> None:
    if any(run.latest_checkpoint() or run.state not in ACTIVE for run in runs):
        st.rerun()  # of the whole page


st.title("Sampling")
st.markdown(
    "An image is drawn by walking the noising backwards: start from pure noise $x_T$, let the "
    "network say what the clean image might be, go a small step towards it, and ask again."
)
settings = get_settings()
found = {run.name: (run, *run.checkpoints()) for run in list_runs(settings.runs_dir)}
ready = [(run, usable) for run, usable, _ in found.values() if usable]
for run, usable, broken in found.values():
    if broken and not usable:
        st.warning(f"{run.name} has no checkpoint that can be used. {' '.join(broken)}")
if not ready:
    say_how_to_begin([run for run, _, _ in found.values()], settings.may_operate)
    st.stop()

ready.sort(key=lambda pair: max(checkpoint.time for checkpoint in pair[1]), reverse=True)
mode = st.segmented_control(
    "What to do", list(MODES), default="Draw", required=True, key="mode", bind="query-params"
)
module, what_for = MODES[mode]
st.caption(what_for)
restore.offer()
formula, elsewhere = st.container(), st.container()
controls, results = st.columns([3, 7], gap="medium")
with controls:
    run = pick_run([run for run, _ in ready])
    _, usable, broken = found[run.name]
    if broken:
        st.warning(f"Skipped: {' '.join(broken)}")
    checkpoint = pick_checkpoint(run, usable)
    spec = pick_spec(run, checkpoint, count=mode not in OWN_COUNT)
    sharing = sharing_sentence(cached.device(), [run for run, _, _ in found.values()])
    if sharing:
        st.caption(sharing)
with formula:
    explain_sampler(spec)
with watching_all(elsewhere):
    module.show(Chosen(run, checkpoint, spec, [run for run, _ in ready]), controls, results)
