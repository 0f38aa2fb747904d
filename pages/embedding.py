"""Embedding: how a timestep becomes a vector, before and after a network's `time_mlp`."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import embedding
from dashboard.ui.pickers import pick_timestep

st.title("Embedding")
st.markdown(
    r"""
The network must know how noisy its input is, so it is given the timestep $t$. A single large number
would be hard to work with. Instead, $t$ is encoded as $h$ sines and $h$ cosines, from fast to slow,
for $i = 0 \dots h-1$ with $h$ half the embedding size:
"""
)
st.latex(
    r"\begin{gathered}\big[\,\sin(t f_i)\ \dots,\ \cos(t f_i)\ \dots\big]\\[4pt]"
    r"f_i = 10000^{-i/(h-1)}\end{gathered}"
)
st.markdown(
    r"""
The frequencies fall from $1$ (one turn in 6.3 steps) to $1/10000$ (one turn in 62,832 steps). The
fast ones tell neighbouring timesteps apart but repeat; the slow ones tell early from late but
hardly change between neighbours. With a sine and a cosine of each frequency, going from $t$ to
$t+k$ is the same rotation for every $t$, which a linear layer can learn.
"""
)
layer, timesteps = embedding.pick_embedding()
t = pick_timestep(timesteps, default=30)
embedding.show_embedding(layer, timesteps, t, "sinusoidal")
st.caption(
    "Similarity is the cosine of the angle between two vectors: 1 where they point the same way. "
    r"Here it is $\frac{1}{h}\sum_i \cos((t-s) f_i)$, which depends only on the distance between "
    "$t$ and $s$, so it is constant along each diagonal."
)

st.header(f"Embedding of t = {t:,}")
embedding.show_row(layer, t)

st.header("After the trained time MLP")
st.markdown(
    "Each network passes the embedding through a small MLP of its own, `time_mlp`, and feeds the "
    "result to all its blocks. Training tends to bring timesteps that need similar work closer "
    "together and to push others apart."
)
embedding.show_trained(t)
