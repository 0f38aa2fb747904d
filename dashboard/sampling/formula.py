"""The formula of a sampler, as the Sampling page shows it."""

from __future__ import annotations

import streamlit as st

from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.spec import SamplingSpec

LECTURE_FORMULA = r"""x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Bigl(x_t
- \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta\Bigr) + \tilde\beta_t z"""
START = r"""From $x_T \sim \mathcal N(0, I)$ downwards. At each timestep the network's output is
turned into a clean image $\hat x_0$, clamped to [-1, 1]. """


def title_of(spec: SamplingSpec) -> str:
    """The sampler's, for people."""
    return "The lecture" if spec.as_lecture else sampler_of(spec.sampler, spec.flow).title


def explain_sampler(spec: SamplingSpec) -> None:
    with st.expander(f"Formula: {title_of(spec)}", icon=":material/function:"):
        if spec.as_lecture:
            st.latex(LECTURE_FORMULA)
            st.write("From $t = T - 1$ down to 0, without the last term at $t = 0$.")
            return
        formula, symbols = sampler_of(spec.sampler, spec.flow).formula_for(spec.variance)
        st.latex(formula)
        st.write(START + symbols)
