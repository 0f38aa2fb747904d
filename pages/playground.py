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
plane = playground.plane_of_images(values)
playground.show(values, plane)
if plane is not None:
    playground.show_axes(plane, values["images"])
playground.show_formulas()
playground.show_code(values)
