"""Lecture: the lecture's seven steps on the app's own pages, each with a question."""

from __future__ import annotations

import streamlit as st

from dashboard.explain.lecture import show_overview

st.title("Lecture")
st.markdown(
    "Follow the lecture that builds a diffusion model from scratch: seven steps on the pages of "
    "this app, with the lecture's values filled in, what to look at, and one question each."
)
show_overview()
