"""Embedding: how a timestep becomes a vector, and what a network's blocks make of it."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import embedding

st.title("Embedding")
st.markdown(
    "The network must know how noisy its input is, so the timestep $t$ is encoded as sines and "
    "cosines, from fast to slow, and each block gets what it has learned to make of them."
)
view = embedding.VIEW.ask(label_visibility="collapsed")
if view == embedding.FORMULA:
    embedding.show_formula()
elif view == embedding.EFFECT:
    embedding.show_effect()
else:
    # Here, because only a trained network needs PyTorch.
    from dashboard.explain import embedding_trained

    embedding_trained.show(view)
