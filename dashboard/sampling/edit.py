"""Sampling, mode From a picture: vary it, repaint a part of it, or find the noise that draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator
from torch import Tensor

from dashboard.sampling.controls import Chosen
from dashboard.sampling.edit_controls import (
    INVERT,
    REPAINT,
    SIDE,
    VARY,
    Edit,
    Given,
    covered,
    inversion_label,
    inversion_words,
    pick_count,
    pick_edit,
    pick_given,
    show_given,
    start_words,
    usable_order,
    why_not,
)
from dashboard.sampling.wording import precise
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
from diffusion_core.media.images import grid, png, to_uint8
from diffusion_core.process.noising import NOISE_RANGE, image_to_x_0, noise_to_uint8
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.edits import image_errors, last_steps
from diffusion_core.sampling.levels import make_levels
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.registry import count_evaluations, sampler_of
from diffusion_core.sampling.sample import invert
from diffusion_core.sampling.spec import ANY_CLASS, SamplingSpec

KEY = "edit"
AMPLIFIED = 10  # how much brighter the image of the errors is
VARIANT = 122  # of one among the variants; five fit


@dataclass(frozen=True)
class Edited:
    """What came of it; all images uint8 (n, H, W, C)."""

    given: Given
    edit: Edit
    images: np.ndarray  # the variants, or the one that came back
    x_T: np.ndarray | None = None  # of an inversion: the noise that was found, to be shown,
    spread: tuple[float, float] = (0.0, 0.0)  # its mean and standard deviation,
    errors: np.ndarray | None = None  # |back - given|, AMPLIFIED times,
    rmse: float = 0.0  # and how far the two are apart, in units of 255
    psnr: float = 0.0  # and in dB


def show(chosen: Chosen, controls: DeltaGenerator, results: DeltaGenerator) -> None:
    config = chosen.checkpoint.config
    with controls:
        st.divider()
        given = pick_given(config)
        edit = pick_edit()
    with results:
        if given is not None:
            anew = show_given(given, edit)
            edit = replace(edit, anew=anew)
        job = session_job(KEY)
        if job is not None:
            watch(job, show_edit)
    asked = chosen.spec.replace(n=1 if edit.kind == INVERT else pick_count(controls))
    spec = usable_order(asked, edit)
    with controls:
        if spec != asked:
            st.caption(
                f"{sampler_of(asked.method, asked.flow).title} cannot repaint, because its steps "
                f"build on each other: this is drawn by {sampler_of(spec.method, spec.flow).title}."
            )
        show_button(chosen, spec, given, edit)


# ---------------------------------------------------------------- the drawing


def show_button(chosen: Chosen, spec: SamplingSpec, given: Given | None, edit: Edit) -> None:
    config = chosen.checkpoint.config
    schedule = build_schedule(config)
    refused = why_not(spec, schedule, edit)
    if refused:
        st.warning(refused)
    elif edit.kind == VARY:
        st.caption(start_words(spec, schedule, edit.strength))
    elif edit.kind == INVERT:
        st.caption(inversion_words(spec, config))
    elif edit.anew is not None and not edit.anew.any():
        st.caption("Paint on the image what should be drawn anew, or choose a part of it above.")
    ready = given is not None and not refused and (edit.anew is None or bool(edit.anew.any()))

    def make_task() -> Task:
        assert given is not None  # else the button is off
        loaded = cached.model(chosen.checkpoint, spec.average)
        return edit_task(spec, loaded, given, edit)

    labels = {VARY: "Vary", REPAINT: "Repaint", INVERT: "Invert and draw back"}
    press(labels[edit.kind], make_task, KEY, disabled=not ready)
    if ready:
        say_expected(spec, config, evaluations(spec, schedule, edit))


def evaluations(spec: SamplingSpec, schedule: Schedule, edit: Edit) -> int:
    """How often the network computes one image, over all of them."""
    if edit.kind == INVERT:
        return 2 * spec.steps
    return spec.n * count_evaluations(
        sampler_of(spec.method, spec.flow),
        last_steps(make_levels(schedule, spec.steps, spec.spacing), edit.strength),
        guided=spec.guidance_scale != 1.0,
        guidance_interval=spec.guidance_interval,
        resample=edit.resample,
    )


def edit_task(spec: SamplingSpec, loaded: LoadedModel, given: Given, edit: Edit) -> Task:
    """Its result is an `Edited`."""
    _, schedule, config = loaded
    walk = last_steps(make_levels(schedule, spec.steps, spec.spacing), edit.strength)
    work: Callable[[OnStep], Edited]
    if edit.kind == INVERT:
        label = inversion_label(spec, config)
        spec = spec.replace(
            n=1,
            label=label or (ANY_CLASS if spec.classes else ""),
            sampler="euler" if spec.flow else "ddim",
            eta=0.0,
            as_lecture=False,
            guidance_scale=1.0,
            negative="",
            guidance_interval=None,
        )
        steps = 2 * spec.steps
        work = lambda on_step: inverted(spec, loaded, given, edit, on_step)  # noqa: E731
    else:
        steps = len(walk) - 1
        work = lambda on_step: drawn(spec, loaded, given, edit, on_step)  # noqa: E731
    words = f"{spec.words()}; {given.words}, {edit.words()}"
    count = evaluations(spec, schedule, edit)
    return Task(spec, words, steps, count, pace_key(spec, config), work)


def drawn(
    spec: SamplingSpec, loaded: LoadedModel, given: Given, edit: Edit, on_step: OnStep
) -> Edited:
    more: dict[str, Any] = {"image": image_to_x_0(given.image), "strength": edit.strength}
    if edit.anew is not None:
        more |= {"mask": torch.from_numpy(~edit.anew)[None, None].float()}
        more |= {"resample": edit.resample}
    return Edited(given, edit, to_uint8(spec.make(loaded, on_step, **more)))


def inverted(
    spec: SamplingSpec, loaded: LoadedModel, given: Given, edit: Edit, on_step: OnStep
) -> Edited:
    model, schedule, config = loaded
    wanted = image_to_x_0(given.image)
    x_T: Tensor = invert(
        model,
        schedule,
        wanted,
        spec.steps,
        config.prediction_type,
        spec.spacing,
        spec.labels(),
        on_step,
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


# ---------------------------------------------------------------- what came of it


def show_edit(job: SamplingJob, seen: Snapshot) -> None:
    if not has_result(job, seen):
        if seen.active and seen.now is not None:
            show_row(list(seen.now.x_t), "An image as it forms", VARIANT)
        return
    made: Edited = job.result
    count = job.task.evaluations
    st.caption(f"{precise(seen.seconds)}, {count:,} evaluations of the network.")
    if made.x_T is None or made.errors is None:
        show_variants(job.spec, made)
    else:
        show_inversion(job.spec, made, made.x_T, made.errors)


def show_variants(spec: SamplingSpec, made: Edited) -> None:
    original = made.given.image
    if made.edit.anew is not None:
        original = covered(original, made.edit.anew)
    names = [spec.class_of(k) for k in range(spec.n)]
    captions = [f"{k + 1}{f', {name}' if name else ''}" for k, name in enumerate(names)]
    show_row(
        [original, *made.images],
        "The original and what was drawn from it",
        VARIANT,
        ["The original", *captions],
    )
    with st.container(horizontal=True):
        download("All as PNG", spec, made, grid(np.stack([made.given.image, *made.images])))
        number = 1
        if spec.n > 1:
            number = int(st.number_input("Variant", 1, spec.n, width=140, key="variant"))
        download("This variant as PNG", spec, made, made.images[number - 1], number)


def show_inversion(spec: SamplingSpec, made: Edited, x_T: np.ndarray, errors: np.ndarray) -> None:
    show_row(
        [made.given.image, x_T[0], made.images[0], errors[0]],
        "The original, its noise, what is drawn back from it, and the errors",
        SIDE,
        [
            "The original",
            f"The noise $x_T$ that was found, from −{NOISE_RANGE:g} to {NOISE_RANGE:g}",
            "Drawn back from it",
            f"The errors, {AMPLIFIED} times as bright",
        ],
    )
    mean, std = made.spread
    quality = "the two are equal" if np.isinf(made.psnr) else f"PSNR {made.psnr:.1f} dB"
    st.markdown(
        f"On average a value is off by **{made.rmse:.2f} of 255** (root mean square; {quality}). "
        f"The noise has mean {mean:.3f} and standard deviation {std:.3f}; noise as the network "
        "knows it has 0 and 1."
    )
    st.caption(
        "Each step up goes by what the network predicts at its lower end, each step back by what "
        "it predicts at the upper end. Where these differ, an error is left; with more and "
        "smaller steps they differ less."
    )
    with st.container(horizontal=True):
        four = np.stack([made.given.image, x_T[0], made.images[0], errors[0]])
        download("All four as PNG", spec, made, grid(four, 4))
        download("What came back as PNG", spec, made, made.images[0], 1)


def download(
    label: str, spec: SamplingSpec, made: Edited, image: np.ndarray, number: int | None = None
) -> None:
    """In its real size, with what made it in the file."""
    which = "all" if number is None else f"variant {number}"
    text = entries(
        spec,
        what=f"{made.given.words}, {made.edit.words()}, {which}",
        page=made.edit.settings() | made.given.settings,
    )
    name = f"{spec.run}-step-{spec.step}-seed-{spec.seed}-{made.edit.kind}-{which}.png"
    offer_png(label, png(image, text=text), name.lower().replace(" ", "-"))
