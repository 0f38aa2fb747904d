"""What the Sampling page says: the samplers' formulas, times, who else uses the device."""

from __future__ import annotations

import socket

import streamlit as st
import torch

from dashboard.drawing import Order
from dashboard.run_words import duration
from diffusion_core.runs import Run
from diffusion_core.samplers import FLOW_SAMPLERS

DDPM_FORMULA = r"""\begin{aligned}
x_{t-1} = {}& \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,\hat x_0 \\
&+ \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t + \sqrt{\tilde\beta_t}\,z
\end{aligned}"""
DDIM_FORMULA = r"""x_s = \sqrt{\bar\alpha_s}\,\hat x_0
+ \sqrt{1-\bar\alpha_s-\sigma_t^2}\,\hat\epsilon + \sigma_t z"""
EULER_FORMULA = r"""x_{s'} = x_s + (s' - s)\,(\hat\epsilon - \hat x_0)"""
HEUN_FORMULA = r"""\begin{aligned}
\tilde x ={}& x_s + (s' - s)\,d_s, \qquad d_s = \hat\epsilon - \hat x_0 \text{ at } x_s \\
x_{s'} ={}& x_s + (s' - s)\,\tfrac12\,(d_s + d_{s'}), \qquad d_{s'} \text{ at } \tilde x
\end{aligned}"""
LECTURE_FORMULA = r"""x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Bigl(x_t
- \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta\Bigr) + \tilde\beta_t z"""


def explain_sampler(order: Order) -> None:
    name = "the lecture" if order.as_lecture else order.sampler
    with st.expander(f"The formula of {name}", icon=":material/function:"):
        if order.as_lecture:
            st.latex(LECTURE_FORMULA)
            st.write("From $t = T - 1$ down to 0, without the last term at $t = 0$.")
            return
        if order.sampler in FLOW_SAMPLERS:
            st.latex(EULER_FORMULA if order.sampler == "euler" else HEUN_FORMULA)
            st.write(
                r"From $x_1 \sim \mathcal N(0, I)$ along $s$ from 1 down to 0, the share of noise: "
                r"$x_s = (1-s)\,x_0 + s\,\epsilon$. The network predicts the direction of that "
                r"line, $\epsilon - x_0$; $\hat x_0$ is clamped to [-1, 1]."
            )
            return
        st.latex(DDIM_FORMULA if order.sampler == "ddim" else DDPM_FORMULA)
        st.write(
            r"From $x_T \sim \mathcal N(0, I)$ downwards. At each timestep the network's output "
            r"is turned into a clean picture $\hat x_0$, clamped to [-1, 1]"
            + (
                r", and the noise $\hat\epsilon$ that belongs to it; $s$ is the next of the chosen "
                r"timesteps, $z$ fresh noise, $\sigma_t = \eta\sqrt{\frac{1-\bar\alpha_s}"
                r"{1-\bar\alpha_t}\bigl(1-\frac{\bar\alpha_t}{\bar\alpha_s}\bigr)}$."
                if order.sampler == "ddim"
                else r"; $z$ is fresh noise, $\tilde\beta_t$ the posterior variance (0 at the last "
                r"step). With fewer steps the same formula holds between the chosen timesteps."
            )
        )


def precise(seconds: float) -> str:
    """0.42 s, 4.2 s, then as `duration`."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.{1 if seconds >= 1 else 2}f} s"


def sharing_sentence(device: torch.device, runs: list[Run]) -> str:
    """Names the runs that train on this device of this machine just now; empty without any."""
    names = [
        run.name
        for run in runs
        if run.state in ("starting", "running", "pausing", "stopping")
        and (status := run.status).get("host") == socket.gethostname()
        and str(status.get("device", "")).partition(":")[0] == device.type
    ]
    if not names:
        return ""
    return (
        f"{names[0]} trains on this device at the same time: the two share it, and both are "
        "slower for it."
    )
