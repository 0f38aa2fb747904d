"""Sampling, mode Generate: images from noise, as they form, large and to download."""

from __future__ import annotations

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.components.gallery.gallery import Row, Tile, address_of, show_gallery
from dashboard.sampling.choose import Chosen, show_warning
from dashboard.sampling.decided import show_decided
from dashboard.sampling.history import Result, face_of, keep
from dashboard.sampling.immediate import offer_immediate
from dashboard.sampling.sharing import offer_link
from dashboard.sampling.trajectory import X_0, X_T, file_name, image_name, show_trajectory
from dashboard.services.sampling_job import SamplingJob, Snapshot
from dashboard.services.sampling_tasks import sample_task
from dashboard.ui.controls import Choice
from dashboard.ui.images import offer_png, read_strip, show_image, show_row
from dashboard.ui.outside import code
from dashboard.ui.progress import precise, press, session_job, show_expected, show_state, watch
from diffusion_core.data.decode import ImageError
from diffusion_core.media.images import grid, png
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.metadata import Made, entries
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.spec import EACH_IN_TURN, SamplingSpec

KEY = "generate"
SIDE = 160  # screen pixels of an image
MOST_NAMED = 100  # classes that a caption lists
SHOW = Choice(key="show", label="Show", options=(X_T, X_0), default=X_T, segmented=True)


def show(
    chosen: Chosen, bar: DeltaGenerator, controls: DeltaGenerator, results: DeltaGenerator
) -> None:
    spec, checkpoint = chosen.spec, chosen.checkpoint
    with controls:
        show_warning(spec, chosen.can)
    with bar:
        press("Generate", lambda: sample_task(spec.checked(chosen.can), checkpoint), KEY)
        config = checkpoint.config
        show_expected(spec, config, spec.evaluations(build_schedule(config)))
    with results:
        offer_immediate(spec, checkpoint, chosen.can)
        job = session_job(KEY)
        if job is None:
            show_newest_strip(chosen.run)
            return
        watch(job, show_job)
        seen = job.snapshot()
        if seen.state == "done":
            show_downloads(job.spec, job.result.images)
            if job.spec != spec:
                st.caption("The settings have changed since. Press Generate to use them.")
            number = show_trajectory(job.spec, job.result)
            show_decided(job.spec, chosen.runs, number)


def show_newest_strip(run: Run) -> None:
    samples = run.samples()
    st.info(
        "Press Generate to see images form from noise. Sampling reverses the noising: it starts "
        "from pure noise $x_T$, lets the network predict the clean image, takes a small step "
        "towards it, and repeats.",
        icon=":material/brush:",
    )
    if samples:
        step, path = samples[-1]
        try:
            images = read_strip(path)
        except ImageError:
            st.caption(f"The samples in {code(path.name)} cannot be read.")
            return
        st.caption(f"The latest samples of {code(run.name)}, from step {step:,} of its training:")
        show_row(images, f"Samples of {run.name} at step {step}", 96)


def show_forming(spec: SamplingSpec, images: np.ndarray) -> None:
    across = min(spec.n, spec.columns())
    alt = f"{spec.n} images by {spec.describe()}"
    show_image(grid(images, across), alt, SIDE * across, stretch=across > 2)
    say_classes(spec)


def result_of(job: SamplingJob) -> Result:
    spec, images = job.spec, job.result.images
    tiles = tuple(
        Tile(
            address_of(png(image, text=entries(spec, k))),
            f"Image {image_name(spec, k + 1)}",
            file_name(spec, f"image-{k + 1}.png"),
        )
        for k, image in enumerate(images)
    )
    row = Row(tiles, images.shape[1], SIDE, min(spec.n, spec.columns()))
    return Result(Made(spec), job.task.text, (row,), face_of(images[0]))


def say_classes(spec: SamplingSpec) -> None:
    across = min(spec.n, spec.columns())
    if spec.label == EACH_IN_TURN:
        names = spec.classes[: spec.n]
        more = " …" if len(names) > MOST_NAMED else ""
        where = "Columns from the left" if across == len(spec.classes) else "In turn, row by row"
        st.caption(f"{where}: {', '.join(map(code, names[:MOST_NAMED]))}{more}.")


def show_job(job: SamplingJob, seen: Snapshot) -> None:
    """The session's job, running or done, with the settings that it has."""
    if show_state(job, seen):
        st.caption(cost_text(job, seen))
    if seen.now is None:
        return
    if seen.state == "done":
        show_gallery(keep(job, lambda: result_of(job)).rows, job.task.text, "generated")
        say_classes(job.spec)
    else:
        show_forming(job.spec, seen.now.x_t if SHOW.ask() == X_T else seen.now.x_0)


def cost_text(job: SamplingJob, seen: Snapshot) -> str:
    spec, count = job.spec, job.task.evaluations
    other = code(spec.negative) if spec.negative else "without"
    pair = "by the network and its guide" if spec.autoguided else f"with the class and {other}"
    twice = f" × 2, {pair}" if spec.guidance_scale != 1.0 else ""
    if spec.guidance_interval is not None:
        twice = f", {pair} where it is guided"
    if sampler_of(spec.method, spec.flow).evaluations == 2:
        twice = f", both ends of each step but the last{twice}"
    return (
        f"{precise(seen.seconds)}, {count:,} network evaluations ({spec.n} "
        f"image{'s' if spec.n > 1 else ''} × {spec.steps} steps{twice}), "
        f"{1000 * seen.seconds / count:.1f} ms each."
    )


def show_downloads(spec: SamplingSpec, images: np.ndarray) -> None:
    with st.container(horizontal=True):
        whole = png(grid(images, spec.columns()), text=entries(spec))
        offer_png("Grid as PNG", whole, f"{file_name(spec, 'grid')}.png")
        offer_link(spec)
