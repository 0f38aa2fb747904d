"""Sampling, mode Interpolate: a film of the images between two noises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator
from torch import Tensor

from dashboard.components.flipbook.flipbook import Book, show_flipbook
from dashboard.components.gallery.gallery import Row, Tile, address_of, show_gallery
from dashboard.sampling.choose import Chosen, show_warning
from dashboard.sampling.controls import SEED, max_images
from dashboard.sampling.film_files import offer_film
from dashboard.sampling.formula import title_of
from dashboard.sampling.history import Result, face_of, keep
from dashboard.sampling.sharing import offer_link
from dashboard.services.sampling_job import SamplingJob, Snapshot
from dashboard.services.sampling_tasks import Load, OnStep, Task, load_guide, pace_key
from dashboard.ui.controls import Number
from dashboard.ui.images import offer_png, show_row
from dashboard.ui.progress import press, session_job, show_cost, show_expected, show_state, watch
from diffusion_core.device import device_of
from diffusion_core.media.images import png, strip, to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.edits import slerp
from diffusion_core.sampling.metadata import Kind, Made, entries
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.solvers import Noise
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec
from diffusion_core.sampling.trajectory import spread

KEY = "interpolate"
SIDE = 112  # screen pixels of a frame in the row
LOOKS = 8  # frames in the strip

FROM_IMAGE = Number(
    key="from_picture",
    label="From image",
    low=1,
    high=MOST_IMAGES,
    default=1,
    help="Its number among the images of the seed, as in the mode Generate.",
)
TO_IMAGE = Number(key="to_picture", label="To image", low=1, high=MOST_IMAGES, default=2)
TO_SEED = Number(
    key="to_seed",
    label="To seed",
    low=SEED.low,
    high=SEED.high,
    follows=True,
    help="The seed of the last frame. The default is the seed above.",
)
FRAMES = Number(key="frames", label="Frames", low=2, high=64, default=16, slider=True)
CONTROLS = (FROM_IMAGE, TO_IMAGE, TO_SEED, FRAMES)


@dataclass(frozen=True)
class End:
    """One end of the film: image `number`, from 1, of a seed."""

    seed: int
    number: int

    def text(self) -> str:
        return f"image {self.number:,} of seed {self.seed}"

    def source(self, shape: tuple[int, int, int]) -> Noise:
        """Its noises, (1, C, H, W): the first is the x_T that the mode Generate starts from too."""
        return image_noise(self.seed, 1, shape, first=self.number - 1)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """The result."""

    ends: tuple[End, End]
    frames: np.ndarray  # uint8 (k, H, W, C)


def show(
    chosen: Chosen, bar: DeltaGenerator, controls: DeltaGenerator, results: DeltaGenerator
) -> None:
    with controls:
        st.divider()
        ends, count = pick_ends(chosen.spec.seed)
        spec = chosen.spec.replace(n=count)
        if sampler_of(spec.method, spec.flow).adds_noise_with(spec.eta):
            st.caption(
                f"{title_of(spec)} adds noise in its steps. All frames use the noise of the first "
                "end, so that only the start differs."
            )
        show_warning(spec, chosen.can)
        same = ends[0] == ends[1]
        if same:
            st.caption("Both ends are the same image; choose another image or seed for one.")
    with bar:
        press(
            "Generate film",
            lambda: film_task(spec.checked(chosen.can), chosen.checkpoint, ends),
            KEY,
            icon=":material/movie:",
            disabled=same,
        )
        if not same:
            config = chosen.checkpoint.config
            show_expected(spec, config, spec.evaluations(build_schedule(config)))
    with results:
        job = session_job(KEY)
        if job is None:
            st.info(
                "Choose two images and press Generate film. The noise of the frames in between is "
                "interpolated along a great circle (slerp): on a straight line it would be weaker "
                "than any the network was trained on.",
                icon=":material/movie:",
            )
            return
        watch(job, show_film)


def labels(can: Capabilities) -> tuple[str, ...]:
    """The classes to choose from: the whole film has one."""
    return can.labels[1:]


def pick_ends(seed: int) -> tuple[tuple[End, End], int]:
    """The two, and the number of frames."""
    with st.container(horizontal=True):
        first, last = FROM_IMAGE.ask(), TO_IMAGE.ask()
    to_seed = TO_SEED.now(default=seed).ask()
    return (End(seed, first), End(to_seed, last)), FRAMES.ask()


def film_task(spec: SamplingSpec, checkpoint: Checkpoint, ends: tuple[End, End]) -> Task:
    """The result is an `Interpolation`."""
    config = checkpoint.config
    batches = -(-spec.n // max_images(config.image_size))

    def work(load: Load, on_step: OnStep) -> Interpolation:
        loaded = load(checkpoint, spec.average, spec.exact)
        guide = load_guide(load, spec, checkpoint)
        frames = sample_frames(spec, loaded, ends, on_step, guide)
        return Interpolation(ends, to_uint8(frames))

    return Task(
        spec,
        f"{spec.describe()}; from {ends[0].text()} to {ends[1].text()}",
        spec.steps * batches,
        spec.evaluations(build_schedule(config)),
        pace_key(spec, config),
        work,
    )


def sample_frames(
    spec: SamplingSpec,
    loaded: LoadedModel,
    ends: tuple[End, End],
    on_step: OnStep,
    guide: LoadedModel | None = None,
) -> Tensor:
    """The frames of the film, (spec.n, C, H, W) in [-1, 1]."""
    model, _, config = loaded
    device = device_of(model)
    shape = config.image_shape
    first, last = (end.source(shape)()[0] for end in ends)
    starts = slerp(first, last, torch.linspace(0, 1, spec.n))
    most = max_images(config.image_size)
    made = []
    for begin in range(0, spec.n, most):
        part = starts[begin : begin + most]
        noise = shared_noise(ends[0], len(part), shape, device)
        given = {"x_T": part, "noise": noise}
        made.append(spec.make(loaded, on_step, begin, len(part), guide, **given).cpu())
    return torch.cat(made)


def shared_noise(end: End, n: int, shape: tuple[int, int, int], device: torch.device) -> Noise:
    """The noises of an end, each n times."""
    draw = end.source(shape)
    return lambda: draw().expand(n, *shape).to(device)


def show_film(job: SamplingJob, seen: Snapshot) -> None:
    if not show_state(job, seen):
        if seen.active and seen.now is not None:
            show_row(list(seen.now.x_t), "A frame as it forms", SIDE)
        return
    made: Interpolation = job.result
    show_cost(job, seen)
    count = len(made.frames)
    captions = [f"frame {k + 1} of {count}" for k in range(count)]
    sent = show_flipbook(
        made,
        lambda: Book({"Film": made.frames[:, None]}, captions, ["1"], plays=True),
        "between-frames",
    )
    if sent.frames < count:
        st.caption(f"{sent.frames} of the {count} frames are shown; the files have all of them.")
    kept = keep(job, lambda: result_of(job))
    show_gallery([some_frames(kept.rows[0])], f"Frames of the {film_text(made)}", "interpolated")
    show_downloads(job.spec, made)


def some_frames(row: Row) -> Row:
    """Evenly spread, from the first to the last."""
    return replace(row, tiles=tuple(row.tiles[k] for k in spread(len(row.tiles), LOOKS)))


def page_of(made: Interpolation) -> dict[str, Any]:
    """The controls of this mode by their keys."""
    first, last = made.ends
    return {
        "mode": "Interpolate",
        FROM_IMAGE.key: first.number,
        TO_IMAGE.key: last.number,
        TO_SEED.key: last.seed,
        FRAMES.key: len(made.frames),
    }


def film_text(made: Interpolation) -> str:
    first, last = made.ends
    return f"film from {first.text()} to {last.text()}"


def result_of(job: SamplingJob) -> Result:
    spec, made = job.spec, job.result
    what, page = film_text(made), page_of(made)
    tiles = tuple(
        Tile(
            address_of(
                png(frame, text=entries(spec, None, f"{what}, frame {k + 1}", page, Kind.FILM))
            ),
            f"Frame {k + 1}",
            f"{spec.run}-step-{spec.step}-frame-{k + 1}.png",
        )
        for k, frame in enumerate(made.frames)
    )
    row = Row(tiles, made.frames.shape[1], SIDE, named=True)
    found = Made(spec, None, Kind.FILM, page)
    return Result(found, job.task.text, (row,), face_of(made.frames[0]), what)


def show_downloads(spec: SamplingSpec, made: Interpolation) -> None:
    page = page_of(made)
    text = entries(spec, kind=Kind.FILM, page=page, what=film_text(made))
    name = f"{spec.run}-step-{spec.step}-film"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        offer_film(lambda: made.frames, name, text, made.frames.shape[1], key="between")
        offer_png("All frames as PNG", png(strip(made.frames), text=text), f"{name}.png")
        offer_link(spec, page)
