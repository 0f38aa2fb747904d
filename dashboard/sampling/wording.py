"""What the Sampling page says: the samplers' formulas, times, who else uses the device."""

from __future__ import annotations

import socket

import streamlit as st
import torch

from dashboard.ui.run_wording import duration
from diffusion_core.runs.run import Run
from diffusion_core.sampling.spec import SamplingSpec

NAMES = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "dpmpp_2m": "DPM-Solver++ 2M",
    "dpmpp_2m_sde": "DPM-Solver++ 2M SDE",
    "unipc": "UniPC",
    "heun": "Heun",
    "euler": "Euler",
    "euler_ancestral": "Euler ancestral",
    "lms": "LMS (linear multistep)",
}
WITH_NOISE = ("ddpm", "dpmpp_2m_sde", "euler_ancestral")  # they add some in their steps
FORMULAS = {
    "ddpm": r"""\begin{aligned}
x_{t-1} = {}& \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,\hat x_0 \\
&+ \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t + \sqrt{\tilde\beta_t}\,z
\end{aligned}""",
    "ddim": r"""x_s = \sqrt{\bar\alpha_s}\,\hat x_0
+ \sqrt{1-\bar\alpha_s-\sigma_t^2}\,\hat\epsilon + \sigma_t z""",
    "dpmpp_2m": r"""\begin{aligned}
x_s ={}& \tfrac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\,(1 - e^{-h})\,D \\
D ={}& \hat x_0 + \tfrac{h}{2h'}\,(\hat x_0 - \hat x_0')
\end{aligned}""",
    "dpmpp_2m_sde": r"""\begin{aligned}
x_s ={}& \tfrac{\sigma_s}{\sigma_t}\,e^{-h}\,x_t + \alpha_s\,(1 - e^{-2h})\,D
+ \sigma_s\sqrt{1 - e^{-2h}}\,z \\
D ={}& \hat x_0 + \tfrac{h}{2h'}\,(\hat x_0 - \hat x_0')
\end{aligned}""",
    "unipc": r"""\begin{aligned}
\text{predict: } x_s ={}& \tfrac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\,(1 - e^{-h})\,
\bigl(\hat x_0 + \tfrac{h}{2h'}(\hat x_0 - \hat x_0')\bigr) \\
\text{correct: } & \text{the same step again, with } \hat x_0 \text{ at its end}
\end{aligned}""",
    "heun": r"""\begin{aligned}
\tilde x ={}& \bar x + (\bar\sigma_s - \bar\sigma_t)\,\hat\epsilon_t \\
\bar x_s ={}& \bar x + (\bar\sigma_s - \bar\sigma_t)\,\tfrac12\,(\hat\epsilon_t
+ \hat\epsilon_s \text{ at } \tilde x)
\end{aligned}""",
    "euler": r"""\bar x_s = \bar x_t + (\bar\sigma_s - \bar\sigma_t)\,\hat\epsilon""",
    "euler_ancestral": r"""\bar x_s = \hat x_0 + \sigma_{\text{down}}\,\hat\epsilon
+ \sigma_{\text{up}}\,z, \qquad \sigma_{\text{down}}^2 + \sigma_{\text{up}}^2 = \bar\sigma_s^2""",
    "lms": r"""\bar x_s = \bar x_t + \sum_{k=0}^{3} w_k\,\hat\epsilon_{t_k}, \qquad
w_k = \int_{\bar\sigma_t}^{\bar\sigma_s} \ell_k(\sigma)\,d\sigma""",
}
# With x_t = alpha x_0 + sigma epsilon.
SYMBOLS = {
    "ddpm": r"$z$ is fresh noise, $\tilde\beta_t$ the posterior variance; the last step has none. "
    r"With fewer steps the same formula holds between the chosen timesteps.",
    "ddim": r"$\hat\epsilon$ is the noise that belongs to it; $s$ is the next of the chosen "
    r"timesteps, $z$ fresh noise, $\sigma_t = \eta\sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}"
    r"\bigl(1-\frac{\bar\alpha_t}{\bar\alpha_s}\bigr)}$.",
}
OF_LAMBDA = (
    r"$\alpha = \sqrt{\bar\alpha}$, $\sigma = \sqrt{1-\bar\alpha}$; $h$ is the width of the step "
    r"in $\lambda = \log(\alpha/\sigma)$ and $h'$ that of the one before, whose prediction was "
    r"$\hat x_0'$; $z$ is fresh noise. The first and the last step do without the step before."
)
OF_SIGMA = (
    r"$\bar x = x/\sqrt{\bar\alpha}$, $\bar\sigma = \sqrt{(1-\bar\alpha)/\bar\alpha}$ is the noise "
    r"in it, $\hat\epsilon$ the noise that belongs to $\hat x_0$, $z$ fresh noise, $\ell_k$ the "
    r"Lagrange polynomials through the last four steps."
)
FLOW_FORMULAS = {
    "euler": r"""x_{s'} = x_s + (s' - s)\,(\hat\epsilon - \hat x_0)""",
    "heun": r"""\begin{aligned}
\tilde x ={}& x_s + (s' - s)\,d_s, \qquad d_s = \hat\epsilon - \hat x_0 \text{ at } x_s \\
x_{s'} ={}& x_s + (s' - s)\,\tfrac12\,(d_s + d_{s'}), \qquad d_{s'} \text{ at } \tilde x
\end{aligned}""",
}
LECTURE_FORMULA = r"""x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Bigl(x_t
- \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta\Bigr) + \tilde\beta_t z"""


def explain_sampler(spec: SamplingSpec) -> None:
    name = "the lecture" if spec.as_lecture else NAMES[spec.sampler]
    with st.expander(f"The formula of {name}", icon=":material/function:"):
        if spec.as_lecture:
            st.latex(LECTURE_FORMULA)
            st.write("From $t = T - 1$ down to 0, without the last term at $t = 0$.")
        elif spec.flow:
            st.latex(FLOW_FORMULAS[spec.sampler])
            st.write(
                r"From $x_1 \sim \mathcal N(0, I)$ along $s$ from 1 down to 0, the share of noise: "
                r"$x_s = (1-s)\,x_0 + s\,\epsilon$. The network predicts the direction of that "
                r"line, $\epsilon - x_0$; $\hat x_0$ is clamped to [-1, 1]."
            )
        else:
            of_lambda = spec.sampler in ("dpmpp_2m", "dpmpp_2m_sde", "unipc")
            symbols = SYMBOLS.get(spec.sampler, OF_LAMBDA if of_lambda else OF_SIGMA)
            formula = FORMULAS[spec.sampler]
            if spec.variance == "large":
                formula = formula.replace(r"\tilde\beta", r"\beta")
                symbols = symbols.replace(r"\tilde\beta_t$ the posterior", r"\beta_t$ the large")
            elif spec.variance == "lecture":
                formula = formula.replace(r"\sqrt{\tilde\beta_t}", r"\tilde\beta_t")
            st.latex(formula)
            st.write(
                r"From $x_T \sim \mathcal N(0, I)$ downwards. At each timestep the network's "
                r"output is turned into a clean image $\hat x_0$, clamped to [-1, 1]. " + symbols
            )


def name_of(spec: SamplingSpec) -> str:
    return "The lecture's way" if spec.as_lecture else NAMES[spec.sampler]


def adds_noise(spec: SamplingSpec) -> bool:
    """Whether its steps do, so that x_T alone does not decide the image."""
    return spec.method in WITH_NOISE or (spec.method == "ddim" and spec.eta > 0)


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
