"""Review: choose runs, look at them together, decide, and take the result along."""

from __future__ import annotations

import streamlit as st

from dashboard.review import show_review

st.title("Review")
st.markdown("Choose runs, look at their images together, vote and decide.")
show_review()
