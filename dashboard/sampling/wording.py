"""What the Sampling page says: the samplers' formulas, times, who else uses the device."""

from __future__ import annotations

import socket

import streamlit as st
import torch

from dashboard.ui.run_wording import duration
from diffusion_core.runs.run import Run
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.solvers import LECTURE_FORMULA
from diffusion_core.sampling.spec import SamplingSpec


def explain_sampler(spec: SamplingSpec) -> None:
    with st.expander(f"The formula of {title_of(spec)}", icon=":material/function:"):
        if spec.as_lecture:
            st.latex(LECTURE_FORMULA)
            st.write("From $t = T - 1$ down to 0, without the last term at $t = 0$.")
            return
        formula, symbols = sampler_of(spec.sampler, spec.flow).formula_for(spec.variance)
        start = "x_1" if spec.flow else "x_T"
        st.latex(formula)
        st.write(
            rf"From ${start} \sim \mathcal N(0, I)$ downwards. At each timestep the network's "
            r"output is turned into a clean image $\hat x_0$, clamped to [-1, 1]. " + symbols
        )


def title_of(spec: SamplingSpec) -> str:
    return "the lecture" if spec.as_lecture else sampler_of(spec.sampler, spec.flow).title


def name_of(spec: SamplingSpec) -> str:
    return "The lecture's way" if spec.as_lecture else title_of(spec)


def adds_noise(spec: SamplingSpec) -> bool:
    """Whether its steps do, so that x_T alone does not decide the image."""
    return sampler_of(spec.method, spec.flow).adds_noise_with(spec.eta)


def precise(seconds: float) -> str:
    """0.42 s, 4.2 s, then as `duration`."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.{1 if seconds >= 1 else 2}f} s"


def sharing_sentence(device: torch.device, runs: list[Run]) -> str:
    """Names the runs that train on this device of this machine just now; empty without any."""
    names = [
        run.name
        for run in runs
        if run.state in ("starting", "running", "pausing", "stopping")
        and (status := run.status).host == socket.gethostname()
        and status.device.partition(":")[0] == device.type
    ]
    if not names:
        return ""
    return (
        f"{names[0]} trains on this device at the same time: the two share it, and both are "
        "slower for it."
    )
