"""The step spacing of the Sampling page: the usual one follows the way to sample, and learned
timesteps are those of the run or, where a link or a file has some, those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.figures.sampling import spacings_figure
from dashboard.figures.theme import show
from dashboard.sampling.controls import (
    AVERAGE,
    SAMPLERS,
    SPACING,
    STEP,
    STEPS,
    TIMESTEPS,
    spacings_of,
)
from dashboard.ui import keys
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.learned import Way
from diffusion_core.sampling.levels import LEARNED, make_levels

# With one of these in it, an address without a spacing means the default of links.
SAYS_HOW = (SPACING, STEP, STEPS, AVERAGE, *SAMPLERS)


def given_timesteps(can: Capabilities) -> tuple[float, ...]:
    """The learned timesteps that the page's address has; empty without."""
    TIMESTEPS.now(high=can.timesteps - 1).check_link()
    text = st.query_params.get(TIMESTEPS.key, "")
    return TIMESTEPS.of_text(text) if text else ()


def way_of(values: Mapping[str, Any]) -> Way:
    return values.get("average", MAIN_AVERAGE), values["sampler"], values["steps"]


def follow_usual_spacing(can: Capabilities, values: Mapping[str, Any]) -> None:
    """Before the control is shown: space the steps as usual for the way to sample in `values`,
    unless another spacing than was usual for the way before is chosen."""
    average, sampler, steps = way_of(values)
    usual, *_ = can.spacings_for(sampler, steps, average)
    before = st.session_state.get(keys.USUAL_SPACING)
    chosen = st.session_state.get(SPACING.key)
    if chosen is None:  # not shown yet
        new = not any(control.key in st.query_params for control in SAYS_HOW)
    else:
        new = chosen not in spacings_of(can, values) or chosen == before
    st.session_state[keys.USUAL_SPACING] = usual
    if new and usual != (chosen or SPACING.default):
        set_spacing(usual)


def set_spacing(name: str) -> None:
    """Before the control is shown, or in a callback."""
    st.session_state[SPACING.key] = name
    with suppress(StreamlitAPIException):  # it may be shown already: it writes its values itself
        if name != SPACING.default:
            st.query_params[SPACING.key] = name


def set_timesteps(timesteps: Sequence[float]) -> None:
    """Put learned timesteps into the page's address, or leave older ones out of it."""
    if timesteps:
        [st.query_params[TIMESTEPS.key]] = TIMESTEPS.to_link(timesteps)
    else:
        st.query_params.pop(TIMESTEPS.key, None)


def timesteps_for(can: Capabilities, values: Mapping[str, Any]) -> tuple[float, ...]:
    """The learned timesteps that the chosen settings have; empty with another spacing. Those of
    the address are left out of it where they do not belong to what is chosen."""
    given = values["timesteps"]
    if values.get("spacing") == LEARNED:
        if len(given) == values["steps"]:
            return given
        learned = can.learned.get(way_of(values))
        if learned is not None:
            return learned.timesteps
    set_timesteps(())
    return ()


def show_timesteps(can: Capabilities, values: Mapping[str, Any]) -> None:
    """The learned timesteps that are chosen beside the usual ones, and where they come from."""
    average, sampler, steps = way_of(values)
    learned = can.learned.get((average, sampler, steps))
    rows = {LEARNED: values["timesteps"]}
    for name in can.spacings:
        rows[name] = tuple(level.t for level in make_levels(can.schedule, steps, name)[:-1])
    show(
        spacings_figure(rows, can.timesteps - 1),
        "spacings",
        f"Timesteps of {sampler} in {steps} steps, learned and with the usual spacings",
    )
    if learned is None or learned.timesteps != values["timesteps"]:
        st.caption("The timesteps come from the link or the file, not from this run.")
        if learned is not None:
            st.button(
                "Use the run's own timesteps",
                on_click=set_timesteps,
                args=((),),
            )
        return
    st.caption(
        "Learned without guidance, to give the same images as many steps. Mean distance from "
        f"those: {learned.error:.2g}, compared with {learned.usual_errors[learned.usual]:.2g} for "
        f"{learned.usual} spacing, on noise that they were not learned from (0: the same images)."
    )
