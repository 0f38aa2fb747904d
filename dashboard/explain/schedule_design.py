"""The Schedule page's view in which a schedule is designed, saved and taken along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.components.designer.designer import design_schedule
from dashboard.figures import schedule as figures
from dashboard.services.roles import Deed, NotAllowed, may, refusal
from dashboard.services.saved_deeds import delete, is_own, save
from dashboard.services.settings import SettingsError, get_settings
from dashboard.ui import keys, pickers
from dashboard.ui.controls import Choice
from dashboard.ui.outside import code, plain
from diffusion_core.files import os_sentence
from diffusion_core.process.tables import DESIGNED, Points, ScheduleTables
from diffusion_core.runs.designs import DESIGNS, Design
from diffusion_core.saved import LONGEST_NAME, SaveError

AXES = ("log-SNR", "ᾱ")
AXIS = Choice(key="axis", label="Drag points of", options=AXES, default=AXES[0], segmented=True)
ERRORS = (NotAllowed, SettingsError, SaveError, OSError)


def show_design(schedules: Sequence[ScheduleTables], timesteps: int) -> None:
    """`schedules`: those to compare with."""
    points = pickers.points_of_link()
    designing, saving = st.columns([5, 2], gap="medium")
    with designing:
        design_schedule(
            points,
            {each.kind: each.log_snr for each in schedules if each.kind != DESIGNED},
            as_alphas_cumprod=AXIS.ask() == AXES[1],
            timesteps=timesteps,
            key="designer",
            on_rest=_take,
        )
    with saving:
        _show_saved(points)
    st.markdown(f"- {figures.summary(ScheduleTables(DESIGNED, timesteps, points=points))}")
    st.caption(
        "The log-SNR falls from point to point; between them it follows monotone cubics (Fritsch "
        "and Carlson 1980). The page's address has the points. Choose *designed* above to see all "
        "curves, here, on the Noising page and for a new run."
    )


def _take(given: object) -> None:
    """The points that the browser tells, into the page's address."""
    pickers.put_points(points_of(given))


def points_of(given: object) -> Any:
    """What the browser tells as points; something that is a problem where they are none."""
    pairs = given if isinstance(given, list) else []
    text = ",".join(":".join(map(str, each)) for each in pairs if isinstance(each, list))
    return pickers.POINTS.of_text(text)


def _show_saved(points: Points) -> None:
    designs, problems = DESIGNS.read(get_settings().runs_dir)
    if why := st.session_state.pop(keys.DESIGN_ERROR, ""):
        st.error(plain(why))
    st.markdown("**Saved schedules**")
    for problem in problems:
        st.caption(f":material/warning: {plain(problem)}")
    for design in designs.values():
        _show_one(design)
    if not designs:
        st.caption("No schedule is saved yet.")
    if why := refusal(Deed.SAVE_SCHEDULE):
        st.caption(f"{plain(why)} The address of this page keeps yours.")
        return
    with st.form("save-design", border=False):
        st.text_input("Name", max_chars=LONGEST_NAME, key=keys.DESIGN_NAME)
        st.form_submit_button("Save this schedule", on_click=_save, args=(points,))


def _show_one(design: Design) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        pickers.show_design_button(design)
        if may(Deed.SAVE_SCHEDULE) and is_own(design):
            st.button(
                ":material/delete:",
                key=f"delete-{design.name}",
                help=f"Delete {code(design.name)}",
                type="tertiary",
                on_click=_delete,
                args=(design.name,),
            )


def _save(points: Points) -> None:
    try:
        save(Deed.SAVE_SCHEDULE, DESIGNS, st.session_state[keys.DESIGN_NAME], points=points)
    except ERRORS as error:
        _refuse(error)
    else:
        st.session_state[keys.DESIGN_NAME] = ""


def _delete(name: str) -> None:
    try:
        delete(Deed.SAVE_SCHEDULE, DESIGNS, name)
    except ERRORS as error:
        _refuse(error)


def _refuse(error: Exception) -> None:
    why = os_sentence(error) if isinstance(error, OSError) else str(error)
    st.session_state[keys.DESIGN_ERROR] = why
