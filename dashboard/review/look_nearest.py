"""The training images nearest to one of the two large images, found on demand."""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import streamlit as st
from PIL import Image

from dashboard.components.gallery.gallery import Row as GalleryRow
from dashboard.components.gallery.gallery import Tile, address_of, show_gallery
from dashboard.review.look_controls import NEAREST, NEAREST_OF
from dashboard.review.look_images import png_side
from dashboard.services import cached
from dashboard.services.sampling_tasks import Task
from dashboard.ui.outside import plain
from dashboard.ui.progress import press, session_job
from diffusion_core.data.errors import DataError
from diffusion_core.data.store import fingerprint_of, may_download
from diffusion_core.media.images import png
from diffusion_core.review.nearest import (
    FEATURES,
    MOST_TRAINING,
    PIXELS,
    TrainingSet,
    read_training_set,
)
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.sampling.spec import SamplingSpec

KEY = "nearest"  # of the session's job
NEIGHBOURS = 5
SIDE = 96  # screen pixels
MOST_SETS, MOST_FOUND = 2, 64  # kept for all visitors
IMAGES_AN_EVALUATION = 10  # that the small classifier sees in the time of a sampling network
TITLES = {PIXELS: "Nearest in pixels", FEATURES: "Nearest in features"}
UNITS = {
    PIXELS: "Root mean square difference of the images at about 16×16 pixels, in grey levels.",
    FEATURES: "Distance between the features of a small classifier of such images.",
}


class Shown(NamedTuple):
    """One of the two large images."""

    name: str
    file: bytes  # PNG
    run: str
    step: int


@dataclass(frozen=True)
class Near:
    """The training images nearest to an image by one distance."""

    kind: str
    images: list[bytes]  # PNG, nearest first
    distances: list[float]
    held_out: tuple[float, float] | None  # of held-out images: the 5 % quantile, the median
    farther: float  # the share of these that are farther from their nearest


@dataclass(frozen=True)
class Answer:
    near: list[Near]
    searched: int
    total: int
    other_images: bool  # whether the images are not those that the run was trained on


_lock = threading.Lock()
_sets: dict[tuple[str, ...], TrainingSet] = {}
_answers: dict[str, Answer] = {}


def show_nearest(shown: Mapping[str, Shown], runs: Mapping[str, RunSnapshot]) -> None:
    if not shown or not NEAREST.ask():
        return
    which = NEAREST_OF.now(options=tuple(shown)).ask()
    image = shown[which]
    run = runs[image.run]
    st.caption(f"{which}: {plain(image.name)}")
    if problem := why_not(run):
        st.caption(plain(problem))
        return
    assert run.config is not None
    key = answer_key(image.file, run.config)
    if (answer := _answers.get(key)) is not None:
        show_answer(answer, image)
        return
    work = functools.partial(find, run, image.file, key)
    total = min(cached.image_count(run.config.data), MOST_TRAINING)
    press(
        "Find nearest training images",
        lambda: task_of(run, total, work),
        KEY,
        icon=":material/image_search:",
    )
    job = session_job(KEY)
    if job is not None and not job.active and job.snapshot().sentence:
        st.error(plain(job.snapshot().sentence))


def why_not(run: RunSnapshot) -> str:
    """Why the training images cannot be searched, as a sentence; empty where they can."""
    if run.config is None:
        return "The settings of the run cannot be read, so its training images are not known."
    try:
        if may_download(run.config.data):
            return "Its training images are not on this machine."
        cached.image_count(run.config.data)
    except DataError as error:
        return str(error)
    return ""


def answer_key(file: bytes, config: RunConfig) -> str:
    """What an answer depends on. Raises DataError."""
    images = cached.fingerprint(config.data, config.image_size, config.channels, config.resize)
    return hashlib.sha256(file + images.encode() + config.to_json().encode()).hexdigest()


def task_of(run: RunSnapshot, total: int, work: Callable[[], Generator[int, None, None]]) -> Task:
    assert run.config is not None
    return Task(
        SamplingSpec(run=run.name, step=run.status.step),
        f"Nearest training images of {run.name}",
        total,
        -(-total // IMAGES_AN_EVALUATION),
        (f"nearest {run.config.image_size}", 1),
        lambda load, on_step: work(),
    )


def find(run: RunSnapshot, file: bytes, key: str) -> Generator[int, None, None]:
    """Keep the answer for all visitors; yields the training images read."""
    assert run.config is not None
    found = yield from training_set(run.config)
    with Image.open(io.BytesIO(file)) as opened:
        pixels = np.array(opened.convert("L" if run.config.channels == 1 else "RGB"))
    image = pixels.reshape(*pixels.shape[:2], run.config.channels)
    near = []
    for kind, neighbours in found.nearest(image, NEIGHBOURS).items():
        held_out = found.held_out[kind]
        near.append(
            Near(
                kind,
                [png(np.ascontiguousarray(found.image(each))) for each in neighbours],
                [each.distance for each in neighbours],
                (float(np.quantile(held_out, 0.05)), float(np.median(held_out)))
                if len(held_out)
                else None,
                found.nearer_than(kind, neighbours[0].distance) if len(held_out) else 0.0,
            )
        )
    other = False
    if (details := run.details) is not None and details.data_fingerprint:
        other = not found.is_of(details.data_fingerprint, details.data_content)
    answer = Answer(near, len(found.rows), found.total, other)
    with _lock:
        _answers[key] = answer
        while len(_answers) > MOST_FOUND:
            del _answers[next(iter(_answers))]


def training_set(config: RunConfig) -> Generator[int, None, TrainingSet]:
    """Read once for all runs that are trained on the same images."""
    split = (config.validation_count, config.batch_size, config.seed, config.random_flip)
    images = fingerprint_of(config.data, config.image_size, config.channels, config.resize)
    key = (images, *map(str, split))
    if key not in _sets:
        made = yield from read_training_set(config, cached.device())
        with _lock:
            _sets[key] = made
            while len(_sets) > MOST_SETS:
                del _sets[next(iter(_sets))]
        return made
    return _sets[key]


def show_answer(answer: Answer, image: Shown) -> None:
    rows = []
    for near in answer.near:
        tiles = [Tile(address_of(image.file), "The sample", "sample.png")]
        for k, (file, distance) in enumerate(zip(near.images, near.distances, strict=True)):
            tiles.append(
                Tile(address_of(file), f"{distance:.1f}", f"nearest-in-{near.kind}-{k + 1}.png")
            )
        note = sentence_of(near)
        side = png_side(image.file)
        rows.append(GalleryRow(tuple(tiles), side, SIDE, 0, TITLES[near.kind], note, named=True))
    show_gallery(rows, "The sample and the training images nearest to it", KEY)
    if answer.searched < answer.total:
        st.caption(f"{answer.searched:,} of {answer.total:,} training images were searched.")
    if answer.other_images:
        st.caption("The images are not those that the run was trained on.")


def sentence_of(near: Near) -> str:
    """What a distance means beside those of held-out images."""
    if near.held_out is None:
        return f"{UNITS[near.kind]} The run held out too few images to compare with."
    low, middle = near.held_out
    return (
        f"{UNITS[near.kind]} Held-out images are {middle:.1f} from their nearest training image "
        f"(median); 5 % are nearer than {low:.1f}. This sample is nearer to its nearest than "
        f"{100 * near.farther:.0f} % of them."
    )
