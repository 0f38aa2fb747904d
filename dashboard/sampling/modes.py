"""The modes of the Sampling page: adding one is one module and one record here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.sampling import (
    batch,
    compare,
    compare_lists,
    edit,
    edit_controls,
    generate,
    interpolate,
)
from dashboard.sampling.choose import Chosen
from dashboard.sampling.controls import LABEL
from dashboard.ui.controls import Choice, Control
from diffusion_core.sampling.capabilities import EACH_IN_TURN, Capabilities


def everything(can: Capabilities) -> Capabilities:
    return can


def all_labels(can: Capabilities) -> tuple[str, ...]:
    return can.labels


@dataclass(frozen=True)
class Mode:
    """Its name is in links and files."""

    name: str
    about: str  # one sentence
    # (…, bar, controls, results): what starts it and its time belong into the bar.
    show: Callable[[Chosen, DeltaGenerator, DeltaGenerator, DeltaGenerator], None]
    controls: tuple[Control, ...] = ()  # its own, which its files restore
    own_count: bool = True  # whether it asks for the number of images itself
    # Of what a checkpoint can do: that which the mode can, and the classes that it offers.
    usable: Callable[[Capabilities], Capabilities] = everything
    labels: Callable[[Capabilities], tuple[str, ...]] = all_labels


GENERATE = Mode("Generate", "Images from pure noise, as they form.", generate.show, own_count=False)
EDIT = Mode(
    "Edit",
    "Vary an image, repaint a part of it, or find the noise that generates it.",
    edit.show,
    edit_controls.CONTROLS,
    usable=edit_controls.usable,
    labels=edit_controls.labels,
)
INTERPOLATE = Mode(
    "Interpolate",
    "A film of the images between two noises.",
    interpolate.show,
    interpolate.CONTROLS,
    labels=interpolate.labels,
)
COMPARE = Mode(
    "Compare",
    "The same noise with two to six different settings.",
    compare.show,
    (compare_lists.COUNT, *compare_lists.LISTS.values()),
)
BATCH = Mode(
    "Batch", "Many images in the background, saved in the run's folder.", batch.show, (batch.COUNT,)
)
MODES = {mode.name: mode for mode in (GENERATE, EDIT, INTERPOLATE, COMPARE, BATCH)}
MODE = Choice(key="mode", label="Mode", options=tuple(MODES), default=GENERATE.name, segmented=True)


def follow_mode() -> None:
    """Callback of MODE. A class that was not chosen becomes the usual one of the new mode; one that
    the mode does not offer does so by itself."""
    if (st.session_state[MODE.key], st.session_state.get(LABEL.key)) == (EDIT.name, EACH_IN_TURN):
        st.session_state[LABEL.key] = edit_controls.AS_IMAGE
