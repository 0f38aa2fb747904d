"""Data: the images of a data set, what they have in common, and how a run reads them."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import data
from dashboard.explain.data_set import pick_data_set

st.title("Data")
st.markdown("A diffusion model learns to make images like these: look at them before you train.")
data.show_views(pick_data_set())
