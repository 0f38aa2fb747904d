"""The controls above those of the mode: checkpoint and spec."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator

from dashboard.sampling.controls import (
    ADVANCED,
    AVERAGE,
    BASIC,
    BEST,
    COUNT,
    LATEST,
    LECTURE_SAMPLER,
    SAMPLERS,
    SEED,
    SPACING,
    STEP,
    WAY,
    controls_for,
    max_images,
)
from dashboard.sampling.spacing import (
    follow_usual_spacing,
    given_timesteps,
    show_timesteps,
    timesteps_for,
)
from dashboard.services.shared_look import recent
from dashboard.ui import keys
from dashboard.ui.outside import code, plain
from dashboard.ui.run_wording import STATES, duration
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.runs.metrics import MetricsError
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import ACTIVE, AT_WORK
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.spec import SamplingSpec


@dataclass(frozen=True)
class Chosen:
    """What the controls above those of the mode say."""

    run: Run
    checkpoint: Checkpoint
    can: Capabilities  # of the checkpoint
    spec: SamplingSpec
    runs: list[Run]  # all that have a checkpoint


def offer_advanced() -> DeltaGenerator:
    """The place of the controls that are not basic; open where a link sets one of them."""
    in_link = any(control.key in st.query_params for control in (*SAMPLERS, *ADVANCED))
    return st.expander(
        "Advanced", expanded=in_link, icon=":material/tune:", key=keys.ADVANCED, on_change="rerun"
    )


def pick_checkpoint(run: Run, usable: list[Checkpoint], advanced: DeltaGenerator) -> Checkpoint:
    """The newest that this session knows of, or an earlier step, which is chosen in `advanced`;
    `usable` is not empty.

    A newer one is not used without being asked: `offer_newer` offers it.
    """
    steps = {str(checkpoint.step): checkpoint for checkpoint in reversed(usable)}
    known = st.session_state.setdefault(keys.KNOWN_LATEST, {})
    if str(known.get(run.name)) not in steps:
        known[run.name] = usable[-1].step
    named = {LATEST: str(known[run.name])}
    if best := _best_step(run, steps):
        named[BEST] = best
    with advanced:
        chosen = STEP.now(options=(*named, *steps)).ask()
    checkpoint = steps[named.get(chosen, chosen)]
    seconds = max(0.0, time.time() - checkpoint.time)
    state = run.state
    st.caption(
        f"Step {checkpoint.step:,} of {checkpoint.config.steps:,}, saved {duration(seconds)} ago. "
        f"The run {STATES[state][1]}."
    )
    if chosen == LATEST:
        active = state in ACTIVE
        st.fragment(offer_newer, run_every=3.0 if active else None)(run, checkpoint.step, active)
    return checkpoint


def _best_step(run: Run, steps: Collection[str]) -> str | None:
    """The one of the steps with the best quality that was measured during training, if any was."""
    try:
        best = str(recent(("best step", run.path), run.best_quality_step))
    except MetricsError:
        return None
    return best if best in steps else None


def offer_newer(run: Run, step: int, was_active: bool) -> None:
    newest = run.latest_checkpoint()
    if newest is not None and newest.step > step:
        label = f"Use newer checkpoint (step {newest.step:,})"
        if st.button(label, icon=":material/update:", width="stretch"):
            st.session_state[keys.KNOWN_LATEST][run.name] = newest.step
            st.rerun()
    if was_active and run.state not in ACTIVE:
        st.rerun()  # the whole page, which stops polling


def pick_spec(
    run: Run,
    checkpoint: Checkpoint,
    can: Capabilities,
    advanced: DeltaGenerator,
    *,
    count: bool = True,
    labels: Sequence[str] = (),
) -> SamplingSpec:
    """What to sample; `count` and `labels`: see `controls_for`."""
    values: dict[str, Any] = {"step": checkpoint.step, "timesteps": given_timesteps(can)}
    basic, basic_keys = st.container(), {control.key for control in BASIC}
    for control in controls_for(can, values, count=count, labels=labels):
        if control.key == AVERAGE.key:
            averages = ", ".join(map(checkpoint.average_text, can.averages))
            control = control.now(
                help="The average of the weights over the training, by its decay per step: "
                f"{plain(averages)}. Long averages are steadier; short ones follow the newest "
                "steps."
                + (
                    " The number of a post-hoc one is its length as a share of the training; "
                    "another length can be typed."
                    if can.snapshots
                    else ""
                )
            )
        with basic if control.key in basic_keys else advanced:
            if control.key == SPACING.key:
                follow_usual_spacing(can, values)
            value = pick_seed() if control.key == SEED.key else control.ask()
            values[control.field] = control.to_field(value)
            if control.key == SPACING.key:
                values["timesteps"] = timesteps_for(can, values)
                if values["timesteps"]:
                    show_timesteps(can, values)
            if control.key == WAY.key and values["as_lecture"]:
                values["sampler"] = LECTURE_SAMPLER
                st.caption(
                    "The lecture adds $\\tilde\\beta_t z$ instead of Ho et al.'s "
                    "$\\sqrt{\\tilde\\beta_t}\\,z$, clamps every $x_t$ to [-1, 1], and leaves the "
                    "network in training mode, so that BatchNorm uses the statistics of the one "
                    "image it sees."
                )
    if "spacing" not in values:  # as the lecture samples
        values["timesteps"] = timesteps_for(can, values)
    values.setdefault("n", min(COUNT.default, max_images(can.image_size)))
    return SamplingSpec(run=run.name, classes=can.classes, flow=can.flow, **values)


def pick_seed() -> int:
    """The seed, with a button that chooses another one at random."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        seed: int = SEED.ask()
        st.button(
            "Random",
            key="random-seed",
            help="Choose a random seed.",
            icon=":material/casino:",
            on_click=lambda: st.session_state.update({SEED.key: secrets.randbelow(10**6)}),
        )
    return seed


def show_warning(spec: SamplingSpec, can: Capabilities, strength: float = 1.0) -> None:
    """Say before it is generated that it will be wrong; `strength`: of a variation."""
    if warning := spec.warning(can, strength):
        st.warning(plain(warning))


def sharing_sentence(device: torch.device, runs: Sequence[Run]) -> str:
    """Names a run that is training on this device of this machine; empty without one."""
    for run in runs:
        seen = run.snapshot()
        here = seen.state in AT_WORK and seen.status.host == socket.gethostname()
        if here and seen.status.device.partition(":")[0] == device.type:
            return (
                f"{code(run.name)} is training on this device. Sharing it makes sampling and "
                "training slower."
            )
    return ""
