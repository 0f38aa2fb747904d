"""Network: the U-Net as a figure and as a table of shapes, and what each of its blocks costs."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import network
from dashboard.services import cached
from diffusion_core.process.prediction import PREDICTION_TYPES

st.title("Network")
st.markdown(
    "The network is the part of a diffusion model that learns. Given a noisy image $x_t$ and the "
    "timestep $t$, it returns an image of the same size: its prediction of the noise."
)
st.latex(r"\epsilon_\theta(x_t, t) \approx \epsilon, \qquad \theta: \text{the parameters}")
left, right = st.columns(2, gap="medium")
with left:
    config = network.pick_network()
with right:
    size = network.pick_size(config)
trace = cached.network_trace(config.network, dict(config.network_args), size)
st.caption(
    f"Images of {size}×{size} px. This network is trained to predict "
    f"{PREDICTION_TYPES[config.prediction_type].formula}."
)
network.show_totals(trace)

st.header("Architecture")
st.markdown(
    """
A **U-Net** goes down and up again. On the way down, each level halves height and width and has more
channels, so each position covers a larger part of the image: there the network sees what the image
contains. On the way up, the size doubles again until the output is as large as the image. Exact
positions are lost on the way down; the **skips** carry them across, as additional channels. Every
level is also given the timestep $t$, because removing a little noise differs from removing a lot.
"""
)
network.show_unet(trace)
st.caption(
    "Each rectangle is a block's output. Its width, and the number in it where there is room, show "
    "the channels; its row and height show the resolution. Point at a rectangle for its shapes and "
    "cost."
)
if config.network == "lecture":
    st.markdown(
        "Two things are unusual in the lecture's network and are kept as they are. Usually the "
        "ReLU comes after the norm; here it comes before:"
    )
    st.latex(
        r"""
\begin{aligned}
h &= \mathrm{norm}_1(\mathrm{ReLU}(\mathrm{conv}_1(x))) \\
h &= h + \mathrm{ReLU}(\mathrm{linear}(t)) \\
h &= \mathrm{norm}_2(\mathrm{ReLU}(\mathrm{conv}_2(h))) \\
x' &= \mathrm{transform}(h)
\end{aligned}
"""
    )
    st.markdown(
        "And the deepest skip is joined to itself: nothing lies between the last down block and "
        "the first up block, so both halves of that block's input are the same."
    )

st.header("Shapes")
st.markdown(
    "One image on its way through the network, block by block in order of execution. A shape is "
    "(images, channels, height, width)."
)
network.show_table(trace)

st.header("Parameters and compute")
st.markdown(
    "Most parameters are where there are many channels; most compute is where there are many "
    "channels and many pixels."
)
network.show_costs(trace)
