"""Training: start a run, watch it live, control it; the queue; the list of all runs."""

from __future__ import annotations

import streamlit as st

from dashboard.training import show_training

st.title("Training")
st.markdown(
    "Start a training run, watch it learn and control it; it is a process of its own, which keeps "
    "running if you close this page."
)
show_training()
with st.expander("What one training step does", icon=":material/function:"):
    st.markdown(
        r"""
Every step takes a batch of images $x_0$, draws a random timestep $t$ and noise $\epsilon$ for each,
and shows the network
$$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon.$$
It then moves the weights a little, so that the predicted noise comes closer to the true noise:
$$L = \mathbb{E}\,\lVert \epsilon - \epsilon_\theta(x_t, t) \rVert.$$
"""
    )
