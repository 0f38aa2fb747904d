"""Sampling: draw pictures from a run's checkpoint and see them form out of noise."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard import drawing, resources
from dashboard.controls import pick_run
from dashboard.drawing import EACH_IN_TURN, Drawing, Look, Order, Snapshot
from dashboard.navigation import entry
from dashboard.pictures import read_strip, show_picture, show_row
from dashboard.run_words import duration
from dashboard.sampling_controls import link, pick_checkpoint, pick_order
from dashboard.sampling_words import explain_sampler, precise, sharing_sentence
from dashboard.settings import get_settings
from diffusion_core.checkpoint import Checkpoint
from diffusion_core.pictures import grid, png
from diffusion_core.runs import ACTIVE, Run, list_runs

X_T, X_0 = "the noisy x_t", "the predicted x_0"


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


def press_draw(order: Order, checkpoint: Checkpoint) -> None:
    """Draw is one button; while a drawing of this session is under way it waits."""
    under_way: Drawing | None = st.session_state.get("drawing")
    busy = under_way is not None and under_way.active
    queue = drawing.queue_of(resources.device())
    pressed = st.button(
        "Draw", type="primary", icon=":material/brush:", disabled=busy, width="stretch"
    )
    expected = queue.expected_seconds(order, checkpoint.config)
    if expected is not None and not busy:
        st.caption(f"Takes about {duration(max(1.0, expected))}, going by the last drawing.")
    if pressed:
        try:
            st.session_state["drawing"] = queue.submit(
                order, resources.model(checkpoint, order.average)
            )
        except (ValueError, RuntimeError, OSError) as error:
            st.error(drawing.explain(error))
            return
        st.rerun()


def show_newest_strip(run: Run) -> None:
    samples = run.samples()
    st.info("Press Draw, and the pictures form here out of noise.", icon=":material/brush:")
    if samples:
        step, path = samples[-1]
        try:
            pictures = read_strip(path)
        except OSError:
            st.caption(f"The samples in {path.name} cannot be read.")
            return
        st.caption(f"Until then, what {run.name} drew by itself at step {step:,} of its training:")
        show_row(pictures, f"Samples of {run.name} at step {step}", 96)


def show_progress(job: Drawing, seen: Snapshot) -> None:
    order = job.order
    if seen.state == "waiting":
        others = "another drawing" if seen.before == 1 else f"{seen.before} other drawings"
        waiting = f"Waiting for {others} on this device." if seen.before else "It is next."
        st.progress(0.0, waiting)
    elif seen.now is None:
        st.progress(0.0, f"The first of {order.steps} steps …")
    else:
        words = f"Step {seen.step} of {order.steps}, t = {seen.now.timestep:g}"
        if seen.seconds_left is not None:
            words += f", about {duration(seen.seconds_left)} left"
        st.progress(seen.step / order.steps, words)
    if seen.sentence:
        st.caption(seen.sentence)
    elif st.button("Cancel", icon=":material/close:"):
        job.cancel()
        st.rerun(scope="fragment")


def show_ending(order: Order, seen: Snapshot) -> None:
    if seen.state == "failed":
        st.error(seen.sentence)
    elif seen.state == "cancelled":
        where = f" It had taken {seen.step} of {order.steps} steps." if seen.step else ""
        st.warning(f"{seen.sentence}{where}")
    else:
        count = order.evaluations
        twice = " × 2, with the class and without" if order.guidance_scale != 1.0 else ""
        if order.sampler == "heun":
            twice = f", both ends of each step but the last{twice}"
        st.caption(
            f"{precise(seen.seconds)}, {count:,} evaluations of the network ({order.n} "
            f"picture{'s' if order.n > 1 else ''} × {order.steps} steps{twice}), "
            f"{1000 * seen.seconds / count:.1f} ms each."
        )


def show_grid(order: Order, pictures: np.ndarray) -> None:
    whole = grid(pictures, order.columns)
    across = whole.shape[1] // pictures.shape[2]
    width = min(768, 160 * across)
    show_picture(whole, f"{order.n} pictures by {order.words()}", width)
    if order.label == EACH_IN_TURN:
        way = "Columns from the left" if across == len(order.classes) else "In turn, row by row"
        st.caption(f"{way}: {', '.join(order.classes)}.")


def show_drawing(job: Drawing, was_active: bool) -> None:
    """The session's drawing, forming or finished, with the settings that it was made with."""
    seen = job.snapshot()
    if was_active and not seen.active:
        st.rerun()  # of the whole page, which stops asking
    order = job.order
    st.markdown(f"**{order.words()}**")
    if seen.active:
        show_progress(job, seen)
    else:
        show_ending(order, seen)
    if seen.now is None:
        return
    pictures = seen.now.x_t
    if seen.state != "done":
        what = st.segmented_control(
            "Show",
            [X_T, X_0],
            default=X_T,
            required=True,
            key="show",
            bind="query-params",
        )
        pictures = seen.now.x_t if what == X_T else seen.now.x_0
    show_grid(order, pictures)


def show_downloads(order: Order, pictures: np.ndarray) -> None:
    with st.container(horizontal=True):
        download("Grid as PNG", order, grid(pictures, order.columns), "grid")
        with st.popover("Link to this", icon=":material/link:"):
            st.caption("Whoever opens it and presses Draw gets the same pictures.")
            st.code(link(order), language=None, wrap_lines=True)


def download(label: str, order: Order, picture: np.ndarray, what: str) -> None:
    """In its real size, with what made it in the file."""
    text = {"Software": "Diffusion Lab", "Description": f"{order.words()} ({what})"}
    st.download_button(
        label,
        png(picture, text=text),
        file_name=f"{order.run}-step-{order.step}-seed-{order.seed}-{what.replace(' ', '-')}.png",
        mime="image/png",
        on_click="ignore",
        icon=":material/download:",
    )


def show_one(order: Order, looks: tuple[Look, ...]) -> None:
    """One of the pictures large, and how it came out of the noise."""
    st.subheader("One picture, out of noise")
    k = 1
    if order.n > 1:
        k = int(
            st.number_input("Picture", 1, order.n, width=160, key="picture", bind="query-params")
        )
    picture = looks[-1].x_t[k - 1]
    side = picture.shape[0]
    name = order.class_of(k - 1)
    caption = f"Picture {k}{f', {name}' if name else ''}, {side}×{side} pixels"
    show_picture(picture, f"Picture {k}, enlarged", 256, caption)
    download("This picture as PNG", order, picture, f"picture {k}")
    st.markdown(
        "As in the lecture the finished picture comes first, on the left, and the noise last. "
        r"Above: $x_t$ after the step that starts at $t$. Below: the clean picture $\hat x_0$ that "
        "the network expects there."
    )
    show_strip([(seen.timestep, seen.x_t[k - 1]) for seen in looks], f"x_t of picture {k}")
    show_strip([(seen.timestep, seen.x_0[k - 1]) for seen in looks], f"x_0 of picture {k}")


def show_strip(pictures: list[tuple[int, np.ndarray]], alt: str) -> None:
    """(timestep, picture) of each look, the newest on the left."""
    with st.container(horizontal=True, gap="xsmall"):
        for timestep, picture in reversed(pictures):
            show_picture(picture, f"{alt} at t = {timestep:g}", 54, f"t {timestep:.4g}")


st.title("Sampling")
st.markdown(
    "A picture is drawn by walking the noising backwards: start from pure noise $x_T$, let the "
    "network say what the clean picture might be, go a small step towards it, and ask again."
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
formula = st.container()
controls, results = st.columns([3, 7], gap="medium")
with controls:
    run = pick_run([run for run, _ in ready])
    _, usable, broken = found[run.name]
    if broken:
        st.warning(f"Skipped: {' '.join(broken)}")
    checkpoint = pick_checkpoint(run, usable)
    order = pick_order(run, checkpoint)
    sharing = sharing_sentence(resources.device(), [run for run, _, _ in found.values()])
    if sharing:
        st.caption(sharing)
    press_draw(order, checkpoint)
with formula:
    explain_sampler(order)

job: Drawing | None = st.session_state.get("drawing")
with results:
    if job is None:
        show_newest_strip(run)
    else:
        st.fragment(show_drawing, run_every=0.7 if job.active else None)(job, job.active)
        seen = job.snapshot()
        if seen.state == "done":
            show_downloads(job.order, seen.looks[-1].x_t)
            if job.order != order:
                st.caption("The settings have changed since; Draw uses the new ones.")
            show_one(job.order, seen.looks)
