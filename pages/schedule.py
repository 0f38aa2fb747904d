"""Schedule: the curves of one or several noise schedules, and their coefficients at one t."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import schedule

st.title("Schedule")
st.markdown(
    r"""
An image $x_0$ is turned into noise in $T$ small steps. Step $t$ shrinks the image a little and
adds a little noise; the schedule $\beta_0 \dots \beta_{T-1}$ sets how much. Because all noise is
Gaussian, the steps up to $t$ can be taken at once:
"""
)
st.latex(r"x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1-\bar\alpha_t}\;\epsilon,\qquad"
         r"\epsilon \sim \mathcal N(0, I)")  # fmt: skip
view = schedule.pick_schedules()
schedule.show_curves(view)

st.header(f"At t = {view.t:,}")
schedule.show_coefficients(view)
schedule.show_noising_links(view)
