"""Network: the U-Net as a figure, and what is inside it: costs, values, skips, gradients."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import network
from dashboard.explain.network_beside import show_beside
from dashboard.explain.network_inside import show_inside
from dashboard.explain.network_look import ask_look
from dashboard.explain.network_reach import show_reach
from dashboard.explain.network_skips import show_skips
from dashboard.services import cached
from dashboard.ui.tabs import open_tab

st.title("Network")
st.markdown(
    r"The network $\epsilon_\theta(x_t, t)$ is the part of a diffusion model that learns: from a "
    "noisy image $x_t$ and the timestep $t$ it predicts the noise, in an image of the same size."
)
left, right = st.columns(2, gap="medium")
with left:
    picked = network.pick_network()
with right:
    size = network.pick_size(picked.config)
trace = cached.network_trace(picked.config.network, dict(picked.config.network_args), size)
network.show_totals(trace, picked.config, size)
block = network.pick_block(trace)
for title in open_tab(network.TAB):
    if title == network.ARCHITECTURE:
        network.show_architecture(trace, picked.config)
    elif title == network.BESIDE:
        show_beside(picked, size, trace)
    elif look := ask_look(picked, size):
        if title == network.INSIDE:
            show_inside(look, block)
        elif title == network.SKIPS:
            show_skips(look)
        else:
            show_reach(look, block)
