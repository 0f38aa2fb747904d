"""The Schedule page's view of training: where it spends its samples, and what is wasted."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.figures import schedule as figures
from dashboard.ui.controls import Choice
from diffusion_core.process.tables import ScheduleTables
from diffusion_core.process.weighting import WEIGHTINGS

WEIGHTING = Choice(
    key="weighting",
    label="Loss on",
    options=tuple(WEIGHTINGS),
    titles={"epsilon": "ε", "x_0": "x₀", "min-SNR": "min-SNR, γ = 5"},
    default="epsilon",
    segmented=True,
    help="What the squared error is of. An error of v or x₀ is an error of ε with another weight "
    "(Kingma and Gao 2023); min-SNR caps it (Hang et al. 2023).",
)


def show_training(schedules: Sequence[ScheduleTables]) -> None:
    """Density and weight of the schedules; below, what a network has learned at each timestep."""
    from dashboard.explain.schedule_waste import show_waste  # imports PyTorch

    st.subheader("Where training spends its samples")
    weighting = WEIGHTING.ask()
    names = " and ".join(each.kind for each in schedules)
    if len(schedules) > 1:
        show_live(figures.legend_figure(schedules), "legend", f"Colours of {names}.")
    show_live(
        figures.density_figure(schedules, weighting),
        "density",
        f"The share of training over the log-SNR: {names}.",
    )
    st.caption(
        r"Training draws $t$ evenly. A log-SNR $\lambda$ gets the share "
        r"$w(\lambda)\,/\,|T\,\mathrm d\lambda/\mathrm dt|$ of it, scaled to 1 over all: what a "
        "schedule passes slowly is trained more, by the weight $w$ of the loss."
    )
    st.subheader("What is wasted")
    show_waste()
