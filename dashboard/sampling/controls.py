"""The Sampling page's controls, each kept in the page's URL: the checkpoint and what to draw."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import urlencode

import streamlit as st

from dashboard.ui.run_wording import duration
from diffusion_core.process.schedule import Schedule
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import ACTIVE
from diffusion_core.sampling.levels import spacings_for
from diffusion_core.sampling.registry import sampler_of, samplers_for, usual_steps
from diffusion_core.sampling.spec import ANY_CLASS, EACH_IN_TURN, MAX_SEED, VARIANCES, SamplingSpec

LATEST = "latest"
CORRECT, LECTURE = "correct", "as the lecture does"


@dataclass(frozen=True)
class Chosen:
    """What the page's common controls say."""

    run: Run
    checkpoint: Checkpoint
    spec: SamplingSpec
    runs: list[Run]  # all that can be drawn from


def max_images(image_size: int) -> int:
    """64 up to 128 pixels, 16 at 256: what a visitor's browser and the server hold with ease."""
    return min(64, 2**20 // image_size**2)


def takes_lecture(config: RunConfig) -> bool:
    """Whether the network can be drawn from as the lecture does."""
    # At 16 pixels the deepest maps are a single one, which has no statistics for BatchNorm.
    return config.network == "lecture" and config.image_size > 16


def pick_checkpoint(run: Run, usable: list[Checkpoint]) -> Checkpoint:
    """The newest that this session knows of, or an earlier step; `usable` is not empty.

    A newer one is not taken by itself: `offer_newer` offers it.
    """
    steps = {str(checkpoint.step): checkpoint for checkpoint in reversed(usable)}
    known = st.session_state.setdefault("known_latest", {})
    if str(known.get(run.name)) not in steps:
        known[run.name] = usable[-1].step
    chosen = st.selectbox(
        "Checkpoint",
        [LATEST, *steps],
        help="By the step of the training at which it was written.",
        required=True,
        key="step",
        bind="query-params",
    )
    checkpoint = steps[str(known[run.name]) if chosen == LATEST else chosen]
    age = duration(max(0.0, time.time() - checkpoint.time))
    st.caption(
        f"Step {checkpoint.step:,} of {checkpoint.config.steps:,}, written {age} ago. "
        f"The run is {run.state}."
    )
    if chosen == LATEST:
        active = run.state in ACTIVE
        st.fragment(offer_newer, run_every=3.0 if active else None)(run, checkpoint.step, active)
    return checkpoint


def offer_newer(run: Run, step: int, was_active: bool) -> None:
    newest = run.latest_checkpoint()
    if newest is not None and newest.step > step:
        label = f"Step {newest.step:,} is there; use it"
        if st.button(label, icon=":material/update:", width="stretch"):
            st.session_state["known_latest"][run.name] = newest.step
            st.rerun()
    if was_active and run.state not in ACTIVE:
        st.rerun()  # of the whole page, which stops asking


def pick_spec(run: Run, checkpoint: Checkpoint, *, count: bool = True) -> SamplingSpec:
    """What to draw; `count`: ask for the number of images, where the mode does not."""
    config, classes = checkpoint.config, checkpoint.classes
    schedule = build_schedule(config)
    as_lecture, sampler, eta, spacing = False, "ddpm", 0.0, "trailing"
    if takes_lecture(config):
        as_lecture = pick_way() == LECTURE
    if not as_lecture:
        sampler = pick_sampler(schedule)
        spacing = pick_spacing(schedule)
    timesteps = schedule.timesteps
    usual = usual_steps(sampler_of(sampler, schedule.is_flow), timesteps)
    most = max_images(config.image_size)
    with st.container(horizontal=True):
        given_steps = st.number_input(
            "Steps",
            min_value=1,
            max_value=timesteps,
            value=None,
            placeholder=f"{usual}, all of them" if usual == timesteps else str(usual),
            help=f"How many of the {timesteps:,} timesteps to walk. Left empty: {usual:,}.",
            key="steps",
            bind="query-params",
        )
        number = min(16, most)
        if count:
            number = st.number_input(
                "Images", 1, most, number, help=f"1 to {most}.", key="n", bind="query-params"
            )
    seed = st.number_input(
        "Seed",
        min_value=0,
        max_value=MAX_SEED,
        help="Image k of a seed always starts from the same noise, however many are drawn.",
        key="seed",
        bind="query-params",
    )
    if sampler == "ddim":
        eta = st.slider(
            "η",
            min_value=0.0,
            max_value=1.0,
            step=0.1,
            help="How much fresh noise ddim adds on the way: 0 none, 1 as much as ddpm.",
            key="eta",
            bind="query-params",
        )
    variance = VARIANCES[0]
    if sampler == "ddpm" and not as_lecture:
        variance = st.segmented_control(
            "Variance of the noise",
            VARIANCES,
            default=variance,
            required=True,
            help=r"That of the posterior, $\tilde\beta_t$, or the large one, $\beta_t$: the two "
            r"that Ho et al. 2020 choose from. The lecture multiplies the noise by $\tilde\beta_t$ "
            r"itself where it should be its root: too little noise.",
            key="variance",
            bind="query-params",
        )
    average = pick_average(checkpoint)
    label, guidance = "", Guidance()
    if classes:
        # Without dropped labels in its training the network never learned what "any" means.
        knows_any = config.label_dropout > 0
        label = st.selectbox(
            "Class",
            [EACH_IN_TURN, *([ANY_CLASS] if knows_any else []), *classes],
            required=True,
            key="label",
            bind="query-params",
        )
        if knows_any and label != ANY_CLASS:
            guidance = pick_guidance(classes, timesteps)
    return SamplingSpec(
        run=run.name,
        step=checkpoint.step,
        n=int(number),
        sampler=sampler,
        steps=given_steps or usual,
        spacing=spacing,
        seed=int(seed),
        eta=eta,
        classes=classes,
        label=label,
        guidance_scale=guidance.scale,
        negative=guidance.negative,
        guidance_interval=guidance.interval,
        as_lecture=as_lecture,
        variance=variance,
        average=average,
        flow=schedule.is_flow,
    )


@dataclass(frozen=True)
class Guidance:
    scale: float = 1.0
    negative: str = ""
    interval: tuple[float, float] | None = None


def pick_guidance(classes: tuple[str, ...], timesteps: int) -> Guidance:
    """The scale; above 1 also what to lead away from, and where on the schedule."""
    scale = st.slider(
        "Guidance scale",
        min_value=1.0,
        max_value=8.0,
        step=0.5,
        help="Above 1 it exaggerates what the class changes in the prediction: other + scale · "
        "(class − other). Costs a second evaluation of the network.",
        key="guidance",
        bind="query-params",
    )
    if scale == 1.0:
        return Guidance()
    negative = st.selectbox(
        "Away from",
        [ANY_CLASS, *classes],
        help="What the prediction of the class is held against: any class as a rule, or one class "
        "that the images should not look like (the negative class).",
        required=True,
        key="negative",
        bind="query-params",
    )
    low, high = st.slider(
        "Guided timesteps",
        0,
        timesteps - 1,
        (0, timesteps - 1),
        help="Guidance at high noise costs variety, at low noise it does little: between the two "
        "it helps most (Kynkäänniemi et al. 2024). Outside of these timesteps the class is "
        "drawn without it, at half the cost.",
        key="guided",
        bind="query-params",
    )
    return Guidance(
        scale,
        "" if negative == ANY_CLASS else negative,
        None if (low, high) == (0, timesteps - 1) else (float(low), float(high)),
    )


def pick_sampler(schedule: Schedule) -> str:
    """One of those that the model's kind takes, by default the first."""
    names = [sampler.name for sampler in samplers_for(schedule)]
    # One control a kind of model: each remembers its own choice.
    return st.selectbox(
        "Sampler",
        names,
        help="How to get from noise to an image. DPM-Solver++ and UniPC are good with the fewest "
        "steps; DDPM is the lecture's and wants all of them.",
        required=True,
        key="flow_sampler" if schedule.is_flow else "sampler",
        bind="query-params",
    )


def pick_spacing(schedule: Schedule) -> str:
    """Where on the schedule the steps lie."""
    if schedule.is_flow:
        return "trailing"
    return st.selectbox(
        "Spacing of the steps",
        spacings_for(schedule),
        help="With few steps it matters where they lie: evenly from the noisiest timestep "
        "(trailing), to the cleanest (leading) or from end to end (linspace); densely where little "
        "noise is left (karras), or evenly in the logarithm of the noise (exponential).",
        required=True,
        key="spacing",
        bind="query-params",
    )


def pick_average(checkpoint: Checkpoint) -> str:
    """Which averaged weights to draw with; asked only where there are several."""
    if len(checkpoint.averages) == 1:
        return MAIN_AVERAGE
    return st.segmented_control(
        "Averaged weights",
        checkpoint.averages,
        default=MAIN_AVERAGE,
        required=True,
        help="The weights are averaged over the training, each step counting decay times as much "
        "as the next: "
        + ", ".join(map(checkpoint.average_words, checkpoint.averages))
        + ". A long average draws more steadily; a short one follows the newest steps.",
        key="average",
        bind="query-params",
    )


def pick_way() -> str:
    way = st.segmented_control(
        "Noise term and BatchNorm",
        [CORRECT, LECTURE],
        default=CORRECT,
        required=True,
        wrap=True,
        key="way",
        bind="query-params",
    )
    if way == LECTURE:
        st.caption(
            "The lecture adds $\\tilde\\beta_t z$ where Ho et al. have $\\sqrt{\\tilde\\beta_t}\\,"
            "z$, clamps every $x_t$ to [-1, 1], and leaves the network in training mode, so that "
            "BatchNorm uses the statistics of the one image it sees."
        )
    return way


def link(spec: SamplingSpec) -> str:
    """This page with the settings of a drawing, the checkpoint's step included."""
    return f"{st.context.url or ''}?{urlencode(url_settings(spec), doseq=True)}"


def url_settings(spec: SamplingSpec) -> dict[str, object]:
    """The parameters of the page's address that bring an order's settings back."""
    settings: dict[str, object] = {"run": spec.run, "step": spec.step, "steps": spec.steps}
    settings |= {"n": spec.n, "seed": spec.seed}
    if spec.as_lecture:
        settings |= {"way": LECTURE}
    else:
        settings |= {"flow_sampler" if spec.flow else "sampler": spec.sampler}
        if spec.spacing != "trailing":
            settings |= {"spacing": spec.spacing}
    if spec.eta:
        settings |= {"eta": spec.eta}
    if spec.variance != VARIANCES[0]:
        settings |= {"variance": spec.variance}
    if spec.average != MAIN_AVERAGE:
        settings |= {"average": spec.average}
    if spec.label:
        settings |= {"label": spec.label}
    if spec.guidance_scale != 1.0:
        settings |= {"guidance": spec.guidance_scale}
        if spec.negative:
            settings |= {"negative": spec.negative}
        if spec.guidance_interval is not None:
            settings |= {"guided": [round(end) for end in spec.guidance_interval]}
    return settings
