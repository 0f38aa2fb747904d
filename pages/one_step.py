"""One step: what a checkpoint predicts from an image with noise, and where a step leads."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import one_step

st.title("One step")
st.markdown(
    r"An image goes to timestep $t$, a checkpoint predicts its noise and itself, and each sampler "
    r"takes one step from there to $x_{t-1}$."
)
one_step.show_one_step()
