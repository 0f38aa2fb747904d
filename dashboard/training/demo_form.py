"""The form by which a visitor of a demo starts a run within its caps."""

from __future__ import annotations

import streamlit as st

from dashboard.services import demo
from dashboard.training.run_controls import attempt
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Number

DATA = Choice(key="demo-data", label="Data", options=tuple(demo.CAPS.data), default="digits")
STEPS = Number(
    key="demo-steps",
    label="Total steps",
    low=1,
    high=demo.CAPS.steps,
    step=50,
    default=demo.CAPS.steps,
)


def show_demo_form() -> None:
    with st.form("demo", enter_to_submit=False):
        left, right = st.columns(2)
        with left:
            DATA.now(bind=False).ask()
        with right:
            STEPS.now(bind=False).ask()
        st.caption(demo.CAPS.sentence())
        st.form_submit_button(
            "Start", type="primary", icon=":material/play_arrow:", on_click=attempt, args=(_start,)
        )


def _start() -> None:
    entries = [st.session_state.get(control.key, control.default) for control in (DATA, STEPS)]
    run = demo.start(*entries)
    st.session_state[keys.NEW_RUN] = run.name
