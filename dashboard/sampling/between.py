"""Sampling, mode Between two: a film of the images between two noises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator
from torch import Tensor

from dashboard.components.flipbook.flipbook import Book, show_flipbook
from dashboard.sampling.controls import Chosen, max_images
from dashboard.sampling.film_files import offer_film
from dashboard.sampling.wording import adds_noise, name_of, precise
from dashboard.services import cached
from dashboard.services.sampling_queue import OnStep, SamplingJob, Snapshot, Task, pace_key
from dashboard.ui.images import offer_png, show_row
from dashboard.ui.progress import (
    has_result,
    press,
    say_expected,
    session_job,
    watch,
)
from diffusion_core.device import device_of
from diffusion_core.media.images import png, strip, to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.edits import slerp
from diffusion_core.sampling.metadata import Kind, entries
from diffusion_core.sampling.solvers import Noise
from diffusion_core.sampling.spec import (
    ANY_CLASS,
    EACH_IN_TURN,
    MAX_SEED,
    MOST_IMAGES,
    SamplingSpec,
)

KEY = "between"
MOST_FRAMES = 64
USUAL_FRAMES = 16
SIDE = 112  # screen pixels of a frame in the row


@dataclass(frozen=True)
class End:
    """One end of the film: image `number`, from 1, of a seed."""

    seed: int
    number: int

    def words(self) -> str:
        return f"image {self.number:,} of seed {self.seed}"

    def source(self, shape: tuple[int, int, int]) -> Noise:
        """Its noises, (1, C, H, W): the first is the x_T that the mode Draw starts from too."""
        return image_noise(self.seed, 1, shape, first=self.number - 1)


@dataclass(frozen=True, eq=False)
class Between:
    """What came of it."""

    ends: tuple[End, End]
    frames: np.ndarray  # uint8 (k, H, W, C)


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    config = chosen.checkpoint.config
    with controls:
        st.divider()
        ends, count = pick_ends(chosen.spec.seed)
        spec = one_class(chosen.spec.replace(n=count), config)
        if chosen.spec.label == EACH_IN_TURN:
            st.caption(f"One class holds for the whole film: {spec.label}. Choose it under Class.")
        if adds_noise(spec):
            st.caption(
                f"{name_of(spec)} adds noise in its steps. All frames get the same, that of the "
                "first end, so that only the start differs."
            )

        def make_task() -> Task:
            return film_task(spec, cached.model(chosen.checkpoint, spec.average), ends)

        press("Draw the film", make_task, KEY, icon=":material/movie:", disabled=ends[0] == ends[1])
        if ends[0] == ends[1]:
            st.caption("The two ends are the same image; choose another number or seed for one.")
        else:
            say_expected(spec, config, spec.evaluations(build_schedule(config)))
    with results:
        job = session_job(KEY)
        if job is None:
            st.info(
                "Choose two ends and press Draw the film. The noises in between lie on the great "
                "circle from one to the other (slerp): a straight line would pass through noise "
                "that is too weak, which the network has never seen.",
                icon=":material/movie:",
            )
            return
        watch(job, show_film)


def pick_ends(seed: int) -> tuple[tuple[End, End], int]:
    """The two, and how many frames."""
    with st.container(horizontal=True):
        first = st.number_input(
            "From image",
            1,
            MOST_IMAGES,
            1,
            help="Its number under the seed above, as Draw numbers them.",
            key="from_picture",
            bind="query-params",
        )
        last = st.number_input("To image", 1, MOST_IMAGES, 2, key="to_picture", bind="query-params")
    other = st.number_input(
        "To seed",
        0,
        MAX_SEED,
        None,
        placeholder=f"{seed}, the same",
        help="The seed of the last frame. Left empty: the seed above.",
        key="to_seed",
        bind="query-params",
    )
    frames = st.slider("Frames", 2, MOST_FRAMES, USUAL_FRAMES, key="frames", bind="query-params")
    ends = End(seed, int(first)), End(seed if other is None else int(other), int(last))
    return ends, int(frames)


def one_class(spec: SamplingSpec, config: RunConfig) -> SamplingSpec:
    """A film shows one class: any, or where the network never learned that the first."""
    if spec.label != EACH_IN_TURN:
        return spec
    if config.label_dropout > 0:
        return spec.replace(
            label=ANY_CLASS, guidance_scale=1.0, negative="", guidance_interval=None
        )
    return spec.replace(label=spec.classes[0])


def film_task(spec: SamplingSpec, loaded: LoadedModel, ends: tuple[End, End]) -> Task:
    """Its result is a `Between`."""
    _, schedule, config = loaded
    batches = -(-spec.n // max_images(config.image_size))
    return Task(
        spec,
        f"{spec.words()}; from {ends[0].words()} to {ends[1].words()}",
        spec.steps * batches,
        spec.evaluations(schedule),
        pace_key(spec, config),
        lambda on_step: Between(ends, to_uint8(sample_frames(spec, loaded, ends, on_step))),
    )


def sample_frames(
    spec: SamplingSpec, loaded: LoadedModel, ends: tuple[End, End], on_step: OnStep
) -> Tensor:
    """The frames of the film, (order.n, C, H, W) in [-1, 1]."""
    model, _, config = loaded
    device = device_of(model)
    shape = (config.channels, config.image_size, config.image_size)
    first, last = (end.source(shape)()[0] for end in ends)
    starts = slerp(first, last, torch.linspace(0, 1, spec.n))
    most = max_images(config.image_size)
    made = []
    for begin in range(0, spec.n, most):
        part = starts[begin : begin + most]
        noise = shared_noise(ends[0], len(part), shape, device)
        made.append(spec.make(loaded, on_step, begin, len(part), x_T=part, noise=noise).cpu())
    return torch.cat(made)


def settings(made: Between) -> dict[str, str | int | float]:
    """Of the page's address."""
    first, last = made.ends
    return {
        "mode": "Between two",
        "from_picture": first.number,
        "to_picture": last.number,
        "to_seed": last.seed,
        "frames": len(made.frames),
    }


def shared_noise(end: End, n: int, shape: tuple[int, int, int], device: torch.device) -> Noise:
    """The noises of an end, each for n images alike."""
    draw = end.source(shape)
    return lambda: draw().expand(n, *shape).to(device)


def show_film(job: SamplingJob, seen: Snapshot) -> None:
    if not has_result(job, seen):
        if seen.active and seen.now is not None:
            show_row(list(seen.now.x_t), "A frame as it forms", SIDE)
        return
    made: Between = job.result
    st.caption(f"{precise(seen.seconds)}, {job.task.evaluations:,} evaluations of the network.")
    count = len(made.frames)
    captions = [f"frame {k + 1} of {count}" for k in range(count)]
    sent = show_flipbook(
        made, lambda: Book({"The film": made.frames[:, None]}, captions, ["1"]), "between-frames"
    )
    if sent.frames < count:
        st.caption(f"{sent.frames} of the {count} frames are shown; the files have all of them.")
    download(job.spec, made)


def download(spec: SamplingSpec, made: Between) -> None:
    what = f"film from {made.ends[0].words()} to {made.ends[1].words()}"
    text = entries(spec, what=what, page=settings(made), kind=Kind.FILM)
    name = f"{spec.run}-step-{spec.step}-film"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        offer_film(lambda: made.frames, name, text, made.frames.shape[1], key="between")
        offer_png("All frames as PNG", png(strip(made.frames), text=text), f"{name}.png")
