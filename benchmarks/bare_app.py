"""The least that a page of sliders and figures can be: one of each, in plain Streamlit."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import streamlit as st

st.title("Bare")
t = st.slider("t", 0, 299, 150)
figure = go.Figure(go.Scatter(y=[math.cos(k / 30) for k in range(300)]))
figure.add_vline(t)
st.plotly_chart(figure, key="figure")
