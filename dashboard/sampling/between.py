"""Sampling, mode Between two: a film of the pictures between two noises."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator
from torch import Tensor

from dashboard.components.flipbook.flipbook import Book, show_flipbook
from dashboard.sampling.controls import Chosen, max_pictures
from dashboard.sampling.film_files import offer_film
from dashboard.sampling.wording import adds_noise, name_of, precise
from dashboard.services import cached
from dashboard.services.sampling_queue import Drawing, OnStep, Snapshot, Task, pace_key
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
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.edits import slerp
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.sample import picture_noise
from diffusion_core.sampling.solvers import Noise
from diffusion_core.sampling.spec import (
    ANY_CLASS,
    EACH_IN_TURN,
    MAX_SEED,
    MOST_PICTURES,
    Loaded,
    Order,
)

KEY = "between"
MOST_FRAMES = 64
USUAL_FRAMES = 16
SIDE = 112  # screen pixels of a frame in the row


@dataclass(frozen=True)
class End:
    """One end of the film: picture `number`, from 1, of a seed."""

    seed: int
    number: int

    def words(self) -> str:
        return f"picture {self.number:,} of seed {self.seed}"

    def source(self, shape: tuple[int, int, int]) -> Noise:
        """Its noises, (1, C, H, W): the first is the x_T that the mode Draw starts from too."""
        return picture_noise(self.seed, 1, shape, first=self.number - 1)


@dataclass(frozen=True, eq=False)
class Between:
    """What came of it."""

    ends: tuple[End, End]
    frames: np.ndarray  # uint8 (k, H, W, C)


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    config = chosen.checkpoint.config
    with controls:
        st.divider()
        ends, count = pick_ends(chosen.order.seed)
        order = one_class(replace(chosen.order, n=count), config)
        if chosen.order.label == EACH_IN_TURN:
            st.caption(f"One class holds for the whole film: {order.label}. Choose it under Class.")
        if adds_noise(order):
            st.caption(
                f"{name_of(order)} adds noise in its steps. All frames get the same, that of the "
                "first end, so that only the start differs."
            )

        def make_task() -> Task:
            return film_task(order, cached.model(chosen.checkpoint, order.average), ends)

        press("Draw the film", make_task, KEY, icon=":material/movie:", disabled=ends[0] == ends[1])
        if ends[0] == ends[1]:
            st.caption("The two ends are the same picture; choose another number or seed for one.")
        else:
            say_expected(order, config, order.evaluations(build_schedule(config)))
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
            "From picture",
            1,
            MOST_PICTURES,
            1,
            help="Its number under the seed above, as Draw numbers them.",
            key="from_picture",
            bind="query-params",
        )
        last = st.number_input(
            "To picture", 1, MOST_PICTURES, 2, key="to_picture", bind="query-params"
        )
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


def one_class(order: Order, config: RunConfig) -> Order:
    """A film shows one class: any, or where the network never learned that the first."""
    if order.label != EACH_IN_TURN:
        return order
    if config.label_dropout > 0:
        return replace(
            order, label=ANY_CLASS, guidance_scale=1.0, negative="", guidance_interval=None
        )
    return replace(order, label=order.classes[0])


def film_task(order: Order, loaded: Loaded, ends: tuple[End, End]) -> Task:
    """Its result is a `Between`."""
    _, schedule, config = loaded
    batches = -(-order.n // max_pictures(config.image_size))
    return Task(
        order,
        f"{order.words()}; from {ends[0].words()} to {ends[1].words()}",
        order.steps * batches,
        order.evaluations(schedule),
        pace_key(order, config),
        lambda on_step: Between(ends, to_uint8(draw_frames(order, loaded, ends, on_step))),
    )


def draw_frames(order: Order, loaded: Loaded, ends: tuple[End, End], on_step: OnStep) -> Tensor:
    """The frames of the film, (order.n, C, H, W) in [-1, 1]."""
    model, _, config = loaded
    device = device_of(model)
    shape = (config.channels, config.image_size, config.image_size)
    first, last = (end.source(shape)()[0] for end in ends)
    starts = slerp(first, last, torch.linspace(0, 1, order.n))
    most = max_pictures(config.image_size)
    made = []
    for begin in range(0, order.n, most):
        part = starts[begin : begin + most]
        noise = shared_noise(ends[0], len(part), shape, device)
        made.append(order.make(loaded, on_step, begin, len(part), x_T=part, noise=noise).cpu())
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
    """The noises of an end, each for n pictures alike."""
    draw = end.source(shape)
    return lambda: draw().expand(n, *shape).to(device)


def show_film(job: Drawing, seen: Snapshot) -> None:
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
    download(job.order, made)


def download(order: Order, made: Between) -> None:
    what = f"film from {made.ends[0].words()} to {made.ends[1].words()}"
    text = entries(order, what=what, page=settings(made))
    name = f"{order.run}-step-{order.step}-film"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        offer_film(lambda: made.frames, name, text, made.frames.shape[1], key="between")
        offer_png("All frames as PNG", png(strip(made.frames), text=text), f"{name}.png")
