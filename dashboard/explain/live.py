"""The Live page: a small run that samples in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard.components.live.live import Model, show_live_model
from dashboard.explain.network_look import LABEL
from dashboard.services import browser_models
from dashboard.services.roles import may_train
from dashboard.services.settings import get_settings
from dashboard.ui.controls import MOST_SHOWN, Choice, Control, Number
from dashboard.ui.navigation import entry
from dashboard.ui.outside import code, plain
from dashboard.ui.pickers import pick_run
from diffusion_core.process.noise import MAX_SEED
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.sampling.browser_model import (
    LARGEST_IMAGE,
    MOST_PARAMETERS,
    describe,
    why_not_in_browser,
)
from diffusion_core.sampling.capabilities import ANY_CLASS, Capabilities

STEPS = Choice(
    key="steps", label="Steps", options=(1, 2, 3, 4, 5, 8, 10, 15, 20, 30, 50), default=20
)
SAMPLER = Choice(key="sampler", label="Sampler")
SEED, OTHER = (
    Number(key=key, label=label, default=default, step=1, high=min(MAX_SEED, MOST_SHOWN))
    for key, label, default in (("seed", "Seed", 0), ("other", "Second seed", 1))
)
ANGLE = Number(key="angle", label="Angle", high=360, default=0)
GUIDANCE = Number(key="guidance", label="Guidance scale", low=0.0, high=8.0, default=1.0, step=0.25)
ENGINE = Choice(
    key="engine",
    label="Compute with",
    options=("fastest", "processor", "graphics"),
    titles={"fastest": "the faster", "processor": "JavaScript", "graphics": "WebGL2"},
    default="fastest",
)


def show_live() -> None:
    """The run and its image."""
    checkpoints = {
        run: checkpoint
        for run in list_runs(get_settings().runs_dir)
        if (checkpoint := run.latest_checkpoint()) is not None
    }
    reasons = {run: why_not_in_browser(each.config) for run, each in checkpoints.items()}
    fitting = [run for run, why in reasons.items() if not why]
    if not fitting:
        say_how_to_begin(reasons)
        return
    with st.container(width=260):
        run = pick_run(fitting, last_first=True)
    checkpoint = checkpoints[run]
    controls = controls_of(checkpoint)
    model = model_of(checkpoint, controls)
    settings = read_link(controls)
    show_live_model(
        model,
        settings,
        {name: ENGINE.title_of(name) for name in ENGINE.options},
        (GUIDANCE.low, GUIDANCE.high, GUIDANCE.step or 1.0),
        key="live",
        on_change=lambda told: keep(controls, told),
    )
    explain(run, checkpoint, reasons)


def say_how_to_begin(reasons: Mapping[Run, str]) -> None:
    who = "Start one" if may_train() else "The app's operator starts one"
    st.info(
        f"No run fits into the browser yet: at most {MOST_PARAMETERS / 1e6:g} million parameters "
        f"and {LARGEST_IMAGE}×{LARGEST_IMAGE} pixels. {who} with the preset tiny on the Training "
        "page; its first checkpoint appears here within minutes."
    )
    for run, why in list(reasons.items())[:5]:
        st.caption(f"{code(run.name)}: {plain(why)}")
    page = entry("training.py")
    st.page_link(page.path, label=page.title, icon=page.icon)


def controls_of(checkpoint: Checkpoint) -> dict[str, Control]:
    """What is set in the browser, by the names that it has there, as it is for this checkpoint."""
    can, known = Capabilities.of(checkpoint), describe(checkpoint)
    classes = [*([ANY_CLASS] if can.any_class else []), *can.classes] or [ANY_CLASS]
    steps = [count for count in STEPS.options if count <= can.timesteps]
    usual = next(iter(known.samplers))
    most = min(STEPS.default, known.usual_steps)
    return {
        "label": LABEL.now(options=classes, default=classes[0]),
        "seed": SEED,
        "other": OTHER,
        "angle": ANGLE,
        "sampler": SAMPLER.now(options=list(known.samplers), default=usual),
        "steps": STEPS.now(options=steps, default=max(each for each in steps if each <= most)),
        "guidance": GUIDANCE,
        "engine": ENGINE,
    }


def model_of(checkpoint: Checkpoint, controls: Mapping[str, Control]) -> Model:
    known = describe(checkpoint)
    label, steps = controls["label"], controls["steps"]
    assert isinstance(label, Choice) and isinstance(steps, Choice)
    numbers = {title: k for k, title in enumerate(known.classes)}
    return Model(
        browser_models.address(checkpoint),
        known.image_size,
        {title: numbers.get(title) for title in label.options} if known.classes else {},
        known.samplers,
        tuple(steps.options),
        guides=known.any_class,
    )


def read_link(controls: Mapping[str, Control]) -> dict[str, Any]:
    """The settings of the page's address, else the defaults."""
    settings = {}
    for name, control in controls.items():
        control.check_link()
        texts = st.query_params.get_all(control.key)
        value = control.of_link(texts) if texts else control.default
        settings[name] = value
    return settings


def keep(controls: Mapping[str, Control], told: Mapping[str, Any]) -> None:
    """Write what the browser says into the page's address, which leaves the defaults out."""
    for name, control in controls.items():
        value = told.get(name)
        if value == control.default:
            st.query_params.pop(control.key, None)
        elif not control.problem(value):
            st.query_params[control.key] = control.to_link(value)


def explain(run: Run, checkpoint: Checkpoint, reasons: Mapping[Run, str]) -> None:
    st.caption(
        f"{code(run.name)}, step {checkpoint.step:,}, weights in float16. The noise of a seed is "
        "the server's: with the second seed, the angle and the brush left alone, this is the first "
        "image of that seed on the Sampling page, to within two grey levels of its float32 image. "
        "While you drag, it takes only as many steps as keep up with you, and all of them when you "
        "pause."
    )
    with st.expander("What you can do here"):
        st.markdown(
            r"- **Angle**: $x_T = \cos(\varphi)\,\epsilon_1 + \sin(\varphi)\,\epsilon_2$ mixes the "
            "noises of two seeds. At every angle it is $\\mathcal{N}(0, I)$, so every image on the "
            "way is a sample of the model.\n"
            "- **Move** shifts the first noise; what leaves at one edge comes in at the other. A "
            "convolutional network lets the image move with it.\n"
            "- **Paint** puts the second noise in place of the first where you paint. What changes "
            "elsewhere shows how far the pixels depend on each other.\n"
            "- **One step** shows $\\hat x_0$ predicted from pure noise: blurred, near the mean of "
            "all images, unless the run is distilled to take one step.\n"
            "- **Predict and add noise** predicts the image, adds noise of the next level and "
            "predicts again, as consistency models do."
        )
    left_out = {run: why for run, why in reasons.items() if why}
    if left_out:
        with st.expander(f"Runs that do not fit into the browser ({len(left_out):,})"):
            for other, why in list(left_out.items())[:50]:
                st.markdown(f"{code(other.name)}: {plain(why)}")
