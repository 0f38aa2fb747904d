"""Home: what this is, a run with its newest samples, and links to the other pages."""

from __future__ import annotations

import streamlit as st

from dashboard.services.cached import device
from dashboard.services.settings import get_settings
from dashboard.training import show_featured_run
from dashboard.ui.navigation import SECTIONS
from dashboard.ui.outside import plain
from diffusion_core.device import describe

st.title("Diffusion Lab")
st.markdown(
    "A diffusion model learns to generate images by learning to remove noise: here you can look at "
    "each part of it, train one and sample from it."
)
st.caption(f"Running on: {plain(describe(device()))}.")

show_featured_run(get_settings())

for section, entries in SECTIONS.items():
    st.header(section)
    for start in range(0, len(entries), 4):
        for column, page in zip(st.columns(4), entries[start : start + 4], strict=False):
            with column, st.container(border=True, height="stretch"):
                st.page_link(page.path, label=f"**{page.title}**", icon=page.icon)
                st.write(page.summary)
