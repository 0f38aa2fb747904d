"""What a run's network knows of real images at each timestep, beside what needs no network."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import streamlit as st
import torch

from dashboard.components.chart.chart import show_live
from dashboard.figures import schedule as figures
from dashboard.services import cached
from dashboard.services.sampling_tasks import Load, OnStep, Task
from dashboard.services.settings import get_settings
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import pick_run
from dashboard.ui.progress import answer_of
from diffusion_core.data.decode import ImageError
from diffusion_core.data.errors import DataError
from diffusion_core.data.store import to_grey
from diffusion_core.process.noise import image_noise
from diffusion_core.process.noising import image_to_x_0
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import list_runs
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.sampling.waste import LEAST_GAIN, Errors, measure_errors, measured_timesteps

IMAGES = 16  # real images that are noised
MEAN_OF = 64  # of which the mean image is
MOST_TIMESTEPS = 25


def show_waste() -> None:
    """For a run that is chosen: the errors of x_0 over t, and which share of t teaches little."""
    runs = [run for run in list_runs(get_settings().runs_dir) if run.latest_checkpoint()]
    if not runs:
        st.info("No run has a checkpoint yet. Train a model, and what it knows appears here.")
        return
    with st.container(width=220):
        run = pick_run(runs, last_first=True)
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    errors = _errors(run.name, checkpoint)
    if errors is None:
        return
    st.markdown(_sentence(errors))
    left, right = st.columns(2)
    with left:
        st.markdown("**Error of the predicted $x_0$**")
        show_live(
            figures.errors_figure(errors),
            "errors",
            "The root mean square error of x_0 over the timesteps, of the network and without one.",
        )
    with right:
        st.markdown("**Share of $x_0$ that is predicted**")
        show_live(
            figures.known_figure(errors),
            "known",
            "The share of the variance of x_0 that is predicted, over the timesteps.",
        )
    st.caption(
        f"{code(run.name)} at step {checkpoint.step:,}, on {IMAGES} images of its data at "
        f"{len(errors.t)} timesteps, with any class. Without a network: $x_0$ is the mean image; "
        r"$\epsilon = x_t$; $x_0 = x_t/\sqrt{\bar\alpha_t}$, which is $\epsilon = 0$. The share is "
        "of the variance around the mean image."
    )


def _sentence(errors: Errors) -> str:
    useful = errors.t[~errors.wasted]
    where = f" It learns from about t = {useful[0]:,} to {useful[-1]:,}." if len(useful) else ""
    return (
        f"At **{errors.wasted.mean():.0%}** of the timesteps the network is less than "
        f"{LEAST_GAIN:.0%} better than the best guess without one: training there teaches next to "
        f"nothing.{where}"
    )


def _errors(name: str, checkpoint: Checkpoint) -> Errors | None:
    """Computed once on the sampling queue; None while there is nothing, which is said here."""
    config = checkpoint.config
    key = ("waste", str(checkpoint.path), checkpoint.step)
    try:
        images = _images(config)
    except (DataError, ImageError) as error:
        st.warning(plain(error))
        return None
    return answer_of(key, lambda: _task(name, checkpoint, images))


@st.cache_data(max_entries=8, show_spinner="Reading the images …")
def _read(spec: str, size: int, channels: int) -> np.ndarray:
    """uint8 (N, size, size, C), spread over the set. Raises DataError and ImageError."""
    count = cached.image_count(spec)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MEAN_OF)).round().astype(int))
    images = np.stack([cached.image(spec, int(index), size)[0] for index in chosen])
    return images if channels == 3 else to_grey(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def _images(config: RunConfig) -> np.ndarray:
    return _read(config.data, config.image_size, config.channels)


def _task(name: str, checkpoint: Checkpoint, images: np.ndarray) -> Task:
    config = checkpoint.config
    x_0 = torch.cat([image_to_x_0(image) for image in images])
    mean = x_0.mean(0)
    x_0 = x_0[:: max(1, len(x_0) // IMAGES)][:IMAGES]
    timesteps = measured_timesteps(build_schedule(config).timesteps, MOST_TIMESTEPS)

    def work(load: Load, on_step: OnStep) -> Generator[int, None, Errors]:
        loaded = load(checkpoint, MAIN_AVERAGE, True)
        noise = image_noise(0, len(x_0), x_0.shape[1:])()
        return (yield from measure_errors(loaded, x_0, noise, mean, timesteps))

    return Task(
        SamplingSpec(run=name, step=checkpoint.step, n=1),
        f"{name} at step {checkpoint.step:,}: errors over the timesteps",
        len(timesteps),
        len(timesteps) * len(x_0),
        (f"errors {config.network} {config.network_args} {config.image_size}", len(x_0)),
        work,
    )
