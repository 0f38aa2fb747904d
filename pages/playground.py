"""Playground: diffusion in the plane, trained in the browser."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import playground

st.title("Playground")
st.write(
    "A small network learns to turn noise into points of the plane, here in your browser, while "
    "you watch."
)
values = playground.from_link()
playground.show(values)
playground.show_images_facts(values)
playground.show_code(values)
