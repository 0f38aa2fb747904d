"""Sampling, mode Edit: vary an image, repaint a part of it, or find the noise that generates it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator

from dashboard.components.gallery.gallery import Row, Tile, address_of, show_gallery
from dashboard.sampling.choose import Chosen, show_warning
from dashboard.sampling.controls import one_class
from dashboard.sampling.edit_controls import (
    INVERT,
    REPAINT,
    SIDE,
    VARIANTS,
    VARY,
    Edit,
    Given,
    class_text,
    covered,
    inverting,
    not_in_settings,
    pick_edit,
    pick_given,
    problem,
    show_given,
    start_text,
    with_class,
)
from dashboard.sampling.formula import title_of
from dashboard.sampling.history import Result, face_of, keep
from dashboard.sampling.sharing import offer_link
from dashboard.services.sampling_job import SamplingJob, Snapshot
from dashboard.services.sampling_tasks import Load, OnStep, Task, load_guide, pace_key
from dashboard.ui.controls import Number
from dashboard.ui.images import offer_png, show_row
from dashboard.ui.outside import code, plain
from dashboard.ui.progress import press, session_job, show_cost, show_expected, show_state, watch
from dashboard.ui.run_wording import decimal
from diffusion_core.media.images import grid, png, to_uint8
from diffusion_core.process.noising import NOISE_RANGE, image_to_x_0, noise_to_uint8
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.capabilities import ANY_CLASS, Capabilities
from diffusion_core.sampling.edits import image_errors, last_steps
from diffusion_core.sampling.metadata import Kind, Made, entries
from diffusion_core.sampling.registry import count_evaluations, sampler_of
from diffusion_core.sampling.sample import invert
from diffusion_core.sampling.spec import SamplingSpec

KEY = "edit"
AMPLIFIED = 10  # the factor by which the image of the errors is brighter
VARIANT = 122  # screen pixels of a variant; five fit
VARIANT_NUMBER = Number(key="variant", label="Variant", low=1, default=1, bind=False)


@dataclass(frozen=True)
class Edited:
    """The result; all images uint8 (n, H, W, C)."""

    given: Given
    edit: Edit
    images: np.ndarray  # the variants, or the reconstruction
    x_T: np.ndarray | None = None  # of an inversion: the noise that was found, as an image,
    spread: tuple[float, float] = (0.0, 0.0)  # its mean and standard deviation,
    errors: np.ndarray | None = None  # |reconstruction - given|, AMPLIFIED times,
    rmse: float = 0.0  # and their distance in units of 255
    psnr: float = 0.0  # and in dB


def show(
    chosen: Chosen, bar: DeltaGenerator, controls: DeltaGenerator, results: DeltaGenerator
) -> None:
    config, can = chosen.checkpoint.config, chosen.can
    with controls:
        st.divider()
        given = pick_given(config)
        edit = pick_edit()
    with results:
        if given is not None:
            edit = replace(edit, mask=show_given(given, edit))
        job = session_job(KEY)
        if job is not None:
            watch(job, show_edit)
    with controls:
        spec = with_class(chosen.spec, given, can)
        if given is not None and (text := class_text(chosen.spec, spec, given)):
            st.caption(text)
        spec = inversion_spec(spec, can) if edit.kind == INVERT else spec.replace(n=VARIANTS.ask())
        show_button(bar, chosen.checkpoint, can, spec, given, edit)


def inversion_spec(spec: SamplingSpec, can: Capabilities) -> SamplingSpec:
    """One image, by the deterministic walk that can be reversed, of one class, not guided."""
    return (
        one_class(spec, can)
        .replace(
            n=1,
            sampler=inverting(spec.flow),
            eta=0.0,
            as_lecture=False,
            variance="posterior",
            guidance_scale=1.0,
        )
        .without_unused()
    )


# ---------------------------------------------------------------- the job


def show_button(
    bar: DeltaGenerator,
    checkpoint: Checkpoint,
    can: Capabilities,
    spec: SamplingSpec,
    given: Given | None,
    edit: Edit,
) -> None:
    schedule = build_schedule(checkpoint.config)
    refused = problem(spec, can, edit)
    painted = edit.mask is None or bool(edit.mask.any())
    show_warning(spec, can, edit.strength)
    if refused:
        st.warning(plain(refused))
    elif edit.kind == VARY:
        st.caption(start_text(spec, schedule, edit.strength))
    elif edit.kind == INVERT:
        st.caption(inversion_text(spec))
    elif not painted:
        st.caption("Paint the area to repaint on the image, or choose an area above.")
    ready = given is not None and not refused and painted

    def make_task() -> Task:
        assert given is not None  # else the button is off
        return edit_task(spec, checkpoint, given, edit)

    labels = {VARY: "Vary", REPAINT: "Repaint", INVERT: "Invert and reconstruct"}
    with bar:
        press(labels[edit.kind], make_task, KEY, disabled=not ready)
        if ready:
            show_expected(spec, checkpoint.config, evaluations(spec, schedule, edit))


def inversion_text(spec: SamplingSpec) -> str:
    of = ""
    if spec.classes:
        of = " for any class" if spec.label == ANY_CLASS else f" for the class {code(spec.label)}"
    return (
        f"{title_of(spec)} without noise or guidance, {spec.steps} steps to the noise and "
        f"{spec.steps} back{of}. More steps reconstruct the image better."
    )


def evaluations(spec: SamplingSpec, schedule: Schedule, edit: Edit) -> int:
    """How often the network evaluates one image, over all of them."""
    if edit.kind == INVERT:
        return 2 * spec.steps
    return spec.n * count_evaluations(
        sampler_of(spec.method, spec.flow),
        last_steps(spec.levels(schedule), edit.strength),
        guided=spec.guidance_scale != 1.0,
        guidance_interval=spec.guidance_interval,
        resample=edit.resample,
    )


def edit_task(spec: SamplingSpec, checkpoint: Checkpoint, given: Given, edit: Edit) -> Task:
    """The result is an `Edited`. An inversion takes a spec of `inversion_spec`."""
    schedule = build_schedule(checkpoint.config)
    walk = last_steps(spec.levels(schedule), edit.strength)

    def work(load: Load, on_step: OnStep) -> Edited:
        loaded = load(checkpoint, spec.average, spec.exact)
        if edit.kind == INVERT:
            return inverted(spec, loaded, given, edit, on_step)
        guide = load_guide(load, spec, checkpoint)
        return sampled(spec, loaded, guide, given, edit, on_step)

    return Task(
        spec,
        f"{spec.describe()}; {given.text}, {edit.text()}",
        2 * spec.steps if edit.kind == INVERT else len(walk) - 1,
        evaluations(spec, schedule, edit),
        pace_key(spec, checkpoint.config),
        work,
    )


def sampled(
    spec: SamplingSpec,
    loaded: LoadedModel,
    guide: LoadedModel | None,
    given: Given,
    edit: Edit,
    on_step: OnStep,
) -> Edited:
    more: dict[str, Any] = {"image": image_to_x_0(given.image), "strength": edit.strength}
    if edit.mask is not None:
        more |= {"mask": torch.from_numpy(~edit.mask)[None, None].float()}
        more |= {"resample": edit.resample}
    return Edited(given, edit, to_uint8(spec.make(loaded, on_step, guide=guide, **more)))


def inverted(
    spec: SamplingSpec, loaded: LoadedModel, given: Given, edit: Edit, on_step: OnStep
) -> Edited:
    model, schedule, config = loaded
    wanted = image_to_x_0(given.image)
    x_T = invert(
        model,
        schedule,
        wanted,
        spec.steps,
        config.prediction_type,
        spec.spacing,
        spec.labels(),
        on_step,
        spec.timesteps,
    )
    back = spec.make(loaded, on_step, x_T=x_T, clip_x0=False).cpu()
    rmse, psnr = image_errors(back, wanted)
    return Edited(
        given,
        edit,
        to_uint8(back),
        noise_to_uint8(x_T),
        (float(x_T.mean()), float(x_T.std())),
        to_uint8(AMPLIFIED * (back - wanted).abs() - 1),
        float(rmse[0]),
        float(psnr[0]),
    )


# ---------------------------------------------------------------- the result


def show_edit(job: SamplingJob, seen: Snapshot) -> None:
    if not show_state(job, seen):
        if seen.active and seen.now is not None:
            show_row(list(seen.now.x_t), "An image as it forms", VARIANT)
        return
    made: Edited = job.result
    show_cost(job, seen)
    result = keep(job, lambda: result_of(job))
    show_gallery(result.rows, job.task.text, "edited")
    if made.x_T is None or made.errors is None:
        show_downloads(job.spec, made)
    else:
        show_inversion(job.spec, made, made.x_T, made.errors)
    offer_link(result.made.spec, result.made.page, result.not_linked)


def result_of(job: SamplingJob) -> Result:
    spec, made = job.spec, job.result
    tiles = tuple(
        Tile(
            address_of(png(image, text=entries_of(spec, made, which))),
            name,
            file_name(spec, made, which),
        )
        for which, name, image in images_of(spec, made)
    )
    size = VARIANT if made.x_T is None else SIDE
    row = Row(tiles, made.given.image.shape[0], size, named=True)
    page = page_of(spec, made)
    lost = " ".join(not_in_settings(page))
    what, face = made.edit.text(), face_of(made.images[0])
    return Result(Made(spec, None, Kind.OTHER, page), job.task.text, (row,), face, what, lost)


def images_of(spec: SamplingSpec, made: Edited) -> Iterator[tuple[str, str, np.ndarray]]:
    """In the page's order: of each what its file is called, what it shows, and the image."""
    original = made.given.image
    if made.edit.mask is not None:
        original = covered(original, made.edit.mask)
    yield "original", "Original", original
    if made.x_T is None or made.errors is None:
        for k, image in enumerate(made.images):
            name = spec.class_of(k)
            yield f"variant-{k + 1}", f"Variant {k + 1}{f', {name}' if name else ''}", image
    else:
        yield "noise", f"Noise x_T, from −{NOISE_RANGE:g} to {NOISE_RANGE:g}", made.x_T[0]
        yield "variant-1", "Reconstruction", made.images[0]
        yield "errors", f"Errors, {AMPLIFIED} times as bright", made.errors[0]


def show_downloads(spec: SamplingSpec, made: Edited) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        download("All as PNG", spec, made, grid(np.stack([made.given.image, *made.images])))
        number = 1
        if spec.n > 1:
            number = int(VARIANT_NUMBER.now(high=spec.n).ask(width=140))
        download("This variant as PNG", spec, made, made.images[number - 1], number)


def show_inversion(spec: SamplingSpec, made: Edited, x_T: np.ndarray, errors: np.ndarray) -> None:
    mean, std = made.spread
    quality = "the two are equal" if np.isinf(made.psnr) else f"PSNR {made.psnr:.1f} dB"
    st.markdown(
        f"The root mean square error is **{made.rmse:.2f} of 255** ({quality}). The noise has mean "
        f"{decimal(mean)} and standard deviation {decimal(std)}; the network was trained on 0 and "
        "1."
    )
    st.caption(
        "Inversion uses the prediction at the lower end of each step, sampling the one at the "
        "upper end. More and smaller steps make the difference, and so the error, smaller."
    )
    with st.container(horizontal=True):
        four = np.stack([made.given.image, x_T[0], made.images[0], errors[0]])
        download("All four as PNG", spec, made, grid(four, 4))
        download("Reconstruction as PNG", spec, made, made.images[0], 1)


def download(
    label: str, spec: SamplingSpec, made: Edited, image: np.ndarray, number: int | None = None
) -> None:
    """In its real size, with its settings in the file."""
    which = "all" if number is None else f"variant-{number}"
    offer_png(label, png(image, text=entries_of(spec, made, which)), file_name(spec, made, which))


def entries_of(spec: SamplingSpec, made: Edited, which: str) -> dict[str, str]:
    what = f"{made.given.text}, {made.edit.text()}, {which}"
    return entries(spec, kind=Kind.OTHER, page=page_of(spec, made), what=what)


def file_name(spec: SamplingSpec, made: Edited, which: str) -> str:
    edit = made.edit.kind.lower()
    return f"{spec.run}-step-{spec.step}-seed-{spec.seed}-{edit}-{which}.png"


def page_of(spec: SamplingSpec, made: Edited) -> dict[str, Any]:
    """The controls of this mode by their keys."""
    count = {} if made.edit.kind == INVERT else {VARIANTS.key: spec.n}
    return {"mode": "Edit"} | made.edit.settings() | made.given.settings | count
