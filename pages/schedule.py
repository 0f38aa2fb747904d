"""Schedule: one or several noise schedules, one of your own, and what training makes of them."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import schedule

st.title("Schedule")
st.markdown(
    r"A schedule sets how much of an image $x_0$ and how much noise "
    r"$\epsilon \sim \mathcal N(0, I)$ there is at each of $T$ timesteps: "
    r"$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$."
)
schedule.show_view(schedule.pick_schedules())
