"""The controls of the mode From a picture: which image, what to do with it, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from dashboard.components.mask.mask import draw_mask
from dashboard.services import cached
from dashboard.services.sampling_queue import GeneratedImages
from dashboard.ui.image_source import pick_own
from dashboard.ui.images import show_image
from dashboard.ui.progress import session_job
from diffusion_core.data.decode import ImageError, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.store import to_grey
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.edits import last_steps
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.spec import ANY_CLASS, EACH_IN_TURN, SamplingSpec

VARY, REPAINT, INVERT = "Vary", "Repaint", "Invert and back"
DATA, DRAWN, UPLOAD, CAMERA = "data set", "drawn before", "upload", "camera"
BY_HAND = "by hand"
AREAS = (BY_HAND, "left half", "right half", "upper half", "lower half", "centre")
LEAST_STRENGTH = 0.05
MOST_VARIANTS = 16
MOST_RESAMPLES = 20
SIDE = 142  # screen pixels of an image; four fit beside each other


@dataclass(frozen=True)
class Given:
    """The image to start from."""

    image: np.ndarray  # uint8 (H, H, C) in the run's size and channels
    words: str  # what it is
    settings: dict[str, Any]  # of the page's address, that bring it back where something can


@dataclass(frozen=True)
class Edit:
    """What to do with it."""

    kind: str
    strength: float = 1.0
    resample: int = 1
    area: str = ""
    anew: np.ndarray | None = None  # bool (H, H), where to draw anew

    def words(self) -> str:
        if self.kind == VARY:
            return f"variations of strength {self.strength:g}"
        if self.kind == REPAINT:
            times = f", each step {self.resample} times" if self.resample > 1 else ""
            return f"repainted {self.area}{times}"
        return "inverted and drawn back"

    def settings(self) -> dict[str, Any]:
        """Of the page's address."""
        found: dict[str, Any] = {"mode": "From a picture", "edit": self.kind}
        if self.kind == VARY:
            found["strength"] = self.strength
        elif self.kind == REPAINT:
            found |= {"area": self.area, "resample": self.resample}
        return found


def pick_given(config: RunConfig) -> Given | None:
    """None, and a sentence that says what to do, while there is none."""
    source = st.segmented_control(
        "Start from an image of",
        [DATA, DRAWN, UPLOAD, CAMERA],
        default=DATA,
        required=True,
        wrap=True,
        help="The run's own data set, the newest images that you drew under Draw, a file of "
        "yours, or the camera.",
        key="from",
        bind="query-params",
    )
    try:
        if source == DATA:
            return pick_from_data(config)
        if source == DRAWN:
            return pick_generated(config)
        image, words = pick_own(source, config.image_size, "the drawing starts from it")
    except (DataError, ImageError) as error:
        st.error(str(error))
        return None
    if image is None:
        st.info(words)
        return None
    return Given(fit(image, config), f"your image, {words}", {"from": source})


def pick_from_data(config: RunConfig) -> Given:
    """Raises DataError and ImageError."""
    count = cached.image_count(config.data)
    number = int(
        st.number_input(
            "Number in the data set",
            0,
            count - 1,
            help=f"0 to {count - 1:,}, of {config.data}.",
            key="example",
            bind="query-params",
        )
    )
    image, name = cached.image(config.data, number, config.image_size)
    words = f"{name}, image {number:,} of {config.data}"
    return Given(fit(image, config), words, {"from": DATA, "example": number})


def pick_generated(config: RunConfig) -> Given | None:
    job = session_job("draw")
    if job is None or not isinstance(job.result, GeneratedImages):
        st.info("No drawing of yours is finished yet. Draw some under Draw; they appear here.")
        return None
    images = job.result.images
    count = len(images)
    number = 1
    if count > 1:
        number = int(st.number_input("Image", 1, count, help="Of the newest drawing.", key="drawn"))
    name = job.spec.class_of(number - 1)
    words = f"{f'{name}, ' if name else ''}image {number} drawn by {job.spec.run}"
    return Given(fit(images[number - 1], config), words, {})


def fit(image: np.ndarray, config: RunConfig) -> np.ndarray:
    """uint8 (H, W, 1 or 3) in the size and the channels that the network draws."""
    if image.shape[-1] == 1:
        image = image.repeat(3, axis=-1)
    if image.shape[:2] != (config.image_size, config.image_size):
        image = to_size(Image.fromarray(image), config.image_size)
    if config.channels == 1:
        return to_grey(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    return image


def pick_edit() -> Edit:
    kind = st.segmented_control(
        "What to do with it",
        [VARY, REPAINT, INVERT],
        default=VARY,
        required=True,
        wrap=True,
        key="edit",
        bind="query-params",
    )
    if kind == VARY:
        strength = st.slider(
            "Strength",
            LEAST_STRENGTH,
            1.0,
            0.5,
            0.05,
            help="How much noise the image gets before it is drawn out of it again (SDEdit, Meng "
            "et al. 2022): at 1 hardly anything of it is left, near 0 it hardly changes.",
            key="strength",
            bind="query-params",
        )
        return Edit(kind, strength=strength)
    if kind == REPAINT:
        area = st.segmented_control(
            "Draw anew",
            AREAS,
            default=BY_HAND,
            required=True,
            wrap=True,
            key="area",
            bind="query-params",
        )
        resample = st.slider(
            "Times each step is made",
            1,
            MOST_RESAMPLES,
            5,
            help="After a step the noise is put back and the step made again (RePaint, Lugmayr et "
            "al. 2022). That gives the new part time to fit what is kept, and costs as many times "
            "as much.",
            key="resample",
            bind="query-params",
        )
        return Edit(kind, resample=resample, area=area)
    return Edit(kind)


def pick_count(controls: DeltaGenerator) -> int:
    with controls:
        return int(
            st.number_input(
                "Variants",
                1,
                MOST_VARIANTS,
                4,
                help="Each starts from noise of its own, those of the seed.",
                key="variants",
                bind="query-params",
            )
        )


def show_given(given: Given, edit: Edit) -> np.ndarray | None:
    """The image, with the part to be drawn anew marked; returns that part."""
    caption = f"{given.words[0].upper()}{given.words[1:]}"
    if edit.kind != REPAINT:
        show_image(given.image, f"The image to start from: {given.words}", SIDE, caption)
        return None
    if edit.area == BY_HAND:
        anew = draw_mask(given.image, "mask")
        st.caption(caption)
        return anew
    anew = area_of(edit.area, given.image.shape[0])
    alt = f"The image to start from, its {edit.area} covered"
    show_image(covered(given.image, anew), alt, SIDE, f"{caption}; the {edit.area} is drawn anew")
    return anew


def area_of(name: str, size: int) -> np.ndarray:
    """Bool (size, size), True where to draw anew."""
    anew = np.zeros((size, size), bool)
    half, quarter = size // 2, size // 4
    part: Any = {
        "left half": np.s_[:, :half],
        "right half": np.s_[:, half:],
        "upper half": np.s_[:half],
        "lower half": np.s_[half:],
        "centre": np.s_[quarter : size - quarter, quarter : size - quarter],
    }[name]
    anew[part] = True
    return anew


def covered(image: np.ndarray, anew: np.ndarray) -> np.ndarray:
    """The part that is drawn anew darkened and crossed by lines."""
    size = len(image)
    lines = np.add.outer(np.arange(size), np.arange(size)) % max(4, size // 8) == 0
    shown = image.copy()
    shown[anew] = shown[anew] // 3
    shown[anew & lines] = 200
    return shown


def why_not(spec: SamplingSpec, schedule: Schedule, edit: Edit) -> str:
    """Why this cannot be done with these settings, and what to do; empty where it can."""
    noisiest = make_levels(schedule, spec.steps, spec.spacing)[0]
    if edit.kind == INVERT and not spec.flow and noisiest.alpha <= 0:
        return (
            "This run's schedule ends in pure noise (zero terminal SNR), where nothing of the "
            "image is left: it cannot be inverted there. Choose the spacing leading, which "
            "stops before it, or another run."
        )
    return ""


def usable_order(spec: SamplingSpec, edit: Edit) -> SamplingSpec:
    """With a sampler that the edit can be made with, in place of one that it cannot."""
    if edit.kind == REPAINT and not sampler_of(spec.method, spec.flow).one_step:
        return spec.replace(sampler="euler" if spec.flow else "ddim")
    return spec


def start_words(spec: SamplingSpec, schedule: Schedule, strength: float) -> str:
    walk = last_steps(make_levels(schedule, spec.steps, spec.spacing), strength)
    steps, start = len(walk) - 1, walk[0]
    return (
        f"Walks the last {steps} of {spec.steps} steps, from t = {start.t:.4g} on, where $x_t$ is "
        f"{start.alpha:.2f} × the image + {start.sigma:.2f} × noise."
    )


def inversion_words(spec: SamplingSpec, config: RunConfig) -> str:
    method = "Euler's method" if spec.flow else "DDIM without noise"
    words = f"{method}, {spec.steps} steps up and as many back, without guidance"
    if spec.classes:
        name = inversion_label(spec, config)
        words += f", for {name}" if name else ", for no class in particular"
    return f"{words}. The more steps, the nearer comes what is drawn back."


def inversion_label(spec: SamplingSpec, config: RunConfig) -> str:
    """The class that the network is told; empty for any."""
    if spec.label not in (EACH_IN_TURN, ANY_CLASS):
        return spec.label
    return "" if config.label_dropout > 0 or not spec.classes else spec.classes[0]
