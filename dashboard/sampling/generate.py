"""Sampling, mode Draw: pictures out of noise, as they form, large and to keep."""

from __future__ import annotations

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.sampling.controls import Chosen, link
from dashboard.sampling.decided import show_decided
from dashboard.sampling.trajectory import file_name, show_trajectory
from dashboard.sampling.wording import precise
from dashboard.services import cached
from dashboard.services.sampling_queue import Drawing, Snapshot, draw_task
from dashboard.ui.images import offer_png, read_strip, show_picture, show_row
from dashboard.ui.progress import (
    has_result,
    press,
    say_expected,
    session_job,
    watch,
)
from diffusion_core.data.decode import PictureError
from diffusion_core.media.images import grid, png
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.spec import EACH_IN_TURN, Order

KEY = "draw"
X_T, X_0 = "the noisy x_t", "the predicted x_0"


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    order, checkpoint = chosen.order, chosen.checkpoint
    with controls:
        press("Draw", lambda: draw_task(order, cached.model(checkpoint, order.average)), key=KEY)
        config = checkpoint.config
        say_expected(order, config, order.evaluations(build_schedule(config)))
    with results:
        job = session_job(KEY)
        if job is None:
            show_newest_strip(chosen.run)
            return
        watch(job, show_drawing)
        seen = job.snapshot()
        if seen.state == "done":
            show_downloads(job.order, job.result.pictures)
            if job.order != order:
                st.caption("The settings have changed since; Draw uses the new ones.")
            number = show_trajectory(job.order, job.result)
            show_decided(job.order, chosen.runs, number)


def show_newest_strip(run: Run) -> None:
    samples = run.samples()
    st.info("Press Draw, and the pictures form here out of noise.", icon=":material/brush:")
    if samples:
        step, path = samples[-1]
        try:
            pictures = read_strip(path)
        except PictureError:
            st.caption(f"The samples in {path.name} cannot be read.")
            return
        st.caption(f"Until then, what {run.name} drew by itself at step {step:,} of its training:")
        show_row(pictures, f"Samples of {run.name} at step {step}", 96)


def show_grid(order: Order, pictures: np.ndarray) -> None:
    whole = grid(pictures, order.columns())
    across = whole.shape[1] // pictures.shape[2]
    width = min(768, 160 * across)
    show_picture(whole, f"{order.n} pictures by {order.words()}", width)
    if order.label == EACH_IN_TURN:
        way = "Columns from the left" if across == len(order.classes) else "In turn, row by row"
        st.caption(f"{way}: {', '.join(order.classes)}.")


def show_drawing(job: Drawing, seen: Snapshot) -> None:
    """The session's drawing, forming or finished, with the settings that it was made with."""
    if has_result(job, seen):
        st.caption(cost_words(job, seen))
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
    show_grid(job.order, pictures)


def cost_words(job: Drawing, seen: Snapshot) -> str:
    order, count = job.order, job.task.evaluations
    other = order.negative or "without"
    twice = f" × 2, with the class and {other}" if order.guidance_scale != 1.0 else ""
    if order.guidance_interval is not None:
        twice = f", with the class and {other} where it is guided"
    if order.method == "heun":
        twice = f", both ends of each step but the last{twice}"
    return (
        f"{precise(seen.seconds)}, {count:,} evaluations of the network ({order.n} "
        f"picture{'s' if order.n > 1 else ''} × {order.steps} steps{twice}), "
        f"{1000 * seen.seconds / count:.1f} ms each."
    )


def show_downloads(order: Order, pictures: np.ndarray) -> None:
    with st.container(horizontal=True):
        whole = png(grid(pictures, order.columns()), text=entries(order))
        offer_png("Grid as PNG", whole, f"{file_name(order, 'grid')}.png")
        with st.popover("Link to this", icon=":material/link:"):
            st.caption("Whoever opens it and presses Draw gets the same pictures.")
            st.code(link(order), language=None, wrap_lines=True)
