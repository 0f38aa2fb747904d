"""The controls of the mode Edit: the image to start from, and what to do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from dashboard.components.mask.mask import draw_mask
from dashboard.sampling.controls import one_class
from dashboard.sampling.generate import KEY as GENERATE
from dashboard.services import cached
from dashboard.services.sampling_tasks import GeneratedImages
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Control, Number
from dashboard.ui.image_source import FIT, pick_own
from dashboard.ui.images import show_image
from dashboard.ui.outside import code, plain
from dashboard.ui.progress import session_job
from diffusion_core.data.decode import ImageError, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.store import to_grey
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.edits import last_steps
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.spec import SamplingSpec

VARY, REPAINT, INVERT = "Vary", "Repaint", "Invert"
DATA, GENERATED, UPLOAD, CAMERA = "data set", "generated", "upload", "camera"
BY_HAND = "by hand"
AREAS = (BY_HAND, "left half", "right half", "upper half", "lower half", "centre")
AS_IMAGE = "as the image"  # the class
SIDE = 142  # screen pixels of an image; four fit beside each other

SOURCE = Choice(
    key="from",
    label="Image from",
    options=(DATA, GENERATED, UPLOAD, CAMERA),
    default=DATA,
    help="The run's data set, your newest images of the mode Generate, a file, or the camera.",
)
EXAMPLE = Number(key="example", label="Number in the data set", default=0)
NEWEST = Number(
    key="drawn", label="Image", low=1, default=1, bind=False, help="One of your newest images."
)
TASK = Choice(
    key="edit",
    field="kind",
    label="Edit",
    options=(VARY, REPAINT, INVERT),
    default=VARY,
    segmented=True,
)
STRENGTH = Number(
    key="strength",
    field="strength",
    label="Strength",
    low=0.05,
    high=1.0,
    default=0.5,
    step=0.05,
    slider=True,
    help="How much noise is added before the image is denoised again (SDEdit, Meng et al. 2022). "
    "Near 0 the image hardly changes; at 1 hardly anything of it is left.",
)
AREA = Choice(
    key="area",
    field="area",
    label="Area to repaint",
    options=AREAS,
    default=BY_HAND,
    segmented=True,
)
RESAMPLE = Number(
    key="resample",
    field="resample",
    label="Resampling passes per step",
    low=1,
    high=20,
    default=5,
    slider=True,
    help="After a step the noise is added back and the step repeated (RePaint, Lugmayr et al. "
    "2022), which fits the new part to the rest. The cost grows in proportion.",
)
VARIANTS = Number(
    key="variants",
    field="n",
    label="Variants",
    low=1,
    high=16,
    default=4,
    help="Each starts from different noise of the same seed.",
)
OF_TASK: dict[str, tuple[Control, ...]] = {
    VARY: (STRENGTH,),
    REPAINT: (AREA, RESAMPLE),
    INVERT: (),
}
CONTROLS = (TASK, STRENGTH, AREA, RESAMPLE, SOURCE, EXAMPLE, FIT)  # that a file restores


@dataclass(frozen=True)
class Given:
    """The image to start from."""

    image: np.ndarray  # uint8 (H, H, C) in the run's size and channels
    text: str  # what it is
    settings: dict[str, Any]  # of the controls by their keys, that restore it if that is possible
    label: str = ""  # its class; empty where that is not known


@dataclass(frozen=True)
class Edit:
    """What to do with it."""

    kind: str
    strength: float = 1.0
    resample: int = 1
    area: str = ""
    mask: np.ndarray | None = None  # bool (H, H), True where to repaint

    def text(self) -> str:
        if self.kind == VARY:
            return f"variations of strength {self.strength:g}"
        if self.kind == REPAINT:
            passes = f", {self.resample} passes per step" if self.resample > 1 else ""
            return f"repainted {self.area}{passes}"
        return "inverted and reconstructed"

    def settings(self) -> dict[str, Any]:
        """Of the controls, by their keys."""
        return {each.key: getattr(self, each.field) for each in (TASK, *OF_TASK[self.kind])}


def not_in_settings(page: Mapping[str, Any]) -> list[str]:
    """What the settings of an edit leave out, in sentences."""
    lost = []
    if page.get(SOURCE.key) != DATA:
        lost.append("The image that it started from is not part of them; choose it again.")
    by_hand = page.get(AREA.key, BY_HAND) == BY_HAND
    if page.get(TASK.key) == REPAINT and by_hand:
        lost.append("The painted area is not part of them; paint it again.")
    return lost


def inverting(flow: bool) -> str:
    """The sampler whose walk can be reversed."""
    return "euler" if flow else "ddim"


def usable(can: Capabilities) -> Capabilities:
    """What a checkpoint can do, with the samplers that the edit takes."""
    # The control of the edit is shown below that of the sampler.
    kind = st.session_state.get(TASK.key) or st.query_params.get(TASK.key)
    if kind == REPAINT:
        one_step = (name for name in can.samplers if sampler_of(name, can.flow).one_step)
        return replace(can, samplers=tuple(one_step))
    if kind == INVERT and not can.distilled:  # `problem` says why not
        return replace(can, samplers=(inverting(can.flow),), takes_lecture=False)
    return can


def labels(can: Capabilities) -> tuple[str, ...]:
    """The classes to choose from."""
    return (AS_IMAGE, *can.labels) if can.labels else ()


def with_class(spec: SamplingSpec, given: Given | None, can: Capabilities) -> SamplingSpec:
    """With the class of the image where that is chosen; where it is not known as `one_class`."""
    if spec.label != AS_IMAGE:
        return spec
    if given is not None and given.label in can.classes:
        return spec.replace(label=given.label)
    return one_class(spec.replace(label=EACH_IN_TURN), can)


def class_text(chosen: SamplingSpec, spec: SamplingSpec, given: Given) -> str:
    """Which class `spec` has got where that of the image was `chosen`; else empty."""
    if chosen.label != AS_IMAGE:
        return ""
    if spec.label == given.label:
        return f"Class of the image: {code(spec.label)}."
    used = "any class" if spec.label == ANY_CLASS else f"the class {code(spec.label)}"
    without = ", without guidance" if spec.guidance_scale != chosen.guidance_scale else ""
    return f"The class of this image is not known. Using {used}{without}."


def pick_given(config: RunConfig) -> Given | None:
    """None, and a sentence that says what to do, while there is none."""
    source = SOURCE.ask()
    try:
        if source == DATA:
            return pick_from_data(config)
        if source == GENERATED:
            return pick_generated(config)
        image, text = pick_own(source, config.image_size, "to edit it")
    except (DataError, ImageError) as error:
        st.error(plain(error))
        return None
    if image is None:
        st.info(plain(text))
        return None
    settings = {SOURCE.key: source, FIT.key: st.session_state[FIT.key]}
    return Given(fit(image, config), f"your image, {text}", settings)


def pick_from_data(config: RunConfig) -> Given:
    """Raises DataError and ImageError."""
    last = cached.image_count(config.data) - 1
    number = EXAMPLE.now(high=last, help=f"0 to {last:,}, of {code(config.data)}.").ask()
    image, name = cached.image(config.data, number, config.image_size, config.resize)
    text = f"{name}, image {number:,} of {config.data}"
    return Given(fit(image, config), text, {SOURCE.key: DATA, EXAMPLE.key: number}, name)


def pick_generated(config: RunConfig) -> Given | None:
    job = session_job(GENERATE)
    if job is None or not isinstance(job.result, GeneratedImages):
        st.info("Generate images first, in the mode Generate. The newest appear here.")
        return None
    images = job.result.images
    number = NEWEST.now(high=len(images)).ask() if len(images) > 1 else 1
    name = job.spec.class_of(number - 1)
    text = f"{f'{name}, ' if name else ''}image {number} of {job.spec.run}"
    return Given(fit(images[number - 1], config), text, {}, name)


def fit(image: np.ndarray, config: RunConfig) -> np.ndarray:
    """uint8 (H, W, 1 or 3) in the network's size and channels."""
    if image.shape[-1] == 1:
        image = image.repeat(3, axis=-1)
    if image.shape[:2] != (config.image_size, config.image_size):
        image = to_size(Image.fromarray(image), config.image_size)
    if config.channels == 1:
        return to_grey(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    return image


def pick_edit() -> Edit:
    kind = TASK.ask()
    return Edit(kind, **{control.field: control.ask() for control in OF_TASK[kind]})


def show_given(given: Given, edit: Edit) -> np.ndarray | None:
    """The image, with the area to repaint marked; returns that area."""
    caption = plain(f"{given.text[0].upper()}{given.text[1:]}")
    if edit.kind != REPAINT:
        show_image(given.image, f"The image to start from: {given.text}", SIDE, caption)
        return None
    if edit.area == BY_HAND:
        mask = draw_mask(given.image, keys.MASK)
        st.caption(caption)
        return mask
    mask = area_of(edit.area, given.image.shape[0])
    alt = f"The image to start from, its {edit.area} covered"
    show_image(covered(given.image, mask), alt, SIDE, f"{caption}; repaint: {edit.area}")
    return mask


def area_of(name: str, size: int) -> np.ndarray:
    """Bool (size, size), True where to repaint."""
    mask = np.zeros((size, size), bool)
    half, quarter = size // 2, size // 4
    part: Any = {
        "left half": np.s_[:, :half],
        "right half": np.s_[:, half:],
        "upper half": np.s_[:half],
        "lower half": np.s_[half:],
        "centre": np.s_[quarter : size - quarter, quarter : size - quarter],
    }[name]
    mask[part] = True
    return mask


def covered(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The area to repaint darkened and hatched."""
    size = len(image)
    lines = np.add.outer(np.arange(size), np.arange(size)) % max(4, size // 8) == 0
    shown = image.copy()
    shown[mask] = shown[mask] // 3
    shown[mask & lines] = 200
    return shown


def problem(spec: SamplingSpec, can: Capabilities, edit: Edit) -> str:
    """Why this edit is impossible with these settings, and what to do; empty if it is possible."""
    if edit.kind == INVERT and can.distilled:
        return (
            "A distilled run follows no path back from an image to its noise. Invert with the run "
            "that it was distilled from."
        )
    if problems := spec.problems(can, edit.strength):
        return problems[0]
    noisiest = spec.levels(can.schedule)[0]
    if edit.kind == INVERT and not can.flow and noisiest.alpha <= 0:
        return (
            "This run's schedule ends in pure noise (zero terminal SNR), where nothing of the "
            "image is left to invert. Choose the step spacing leading, which stops before it, or "
            "another run."
        )
    return ""


def start_text(spec: SamplingSpec, schedule: Schedule, strength: float) -> str:
    walk = last_steps(spec.levels(schedule), strength)
    steps, start = len(walk) - 1, walk[0]
    return (
        f"Takes the last {steps} of {spec.steps} steps, from t = {start.t:.4g}, where $x_t$ is "
        f"{start.alpha:.2f} × the image + {start.sigma:.2f} × noise."
    )
