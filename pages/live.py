"""Live: a small run samples in the browser, and its image follows the hand."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import live

st.title("Live")
st.markdown(
    r"Move the noise $x_T$, the class or the guidance, and the image follows. The network runs in "
    "your browser; the server computes nothing."
)
live.show_live()
