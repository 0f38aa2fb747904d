"""Noising: an image, noise, and what x_t is at any timestep of any schedule."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import noising
from dashboard.ui.outside import plain
from dashboard.ui.pickers import pick_schedule, pick_timestep
from diffusion_core.process.noising import fixed_noise, image_to_x_0

st.title("Noising")
st.markdown(
    r"""
Training needs images at every noise level. There is no need to add noise step by step: the image
$x_0$ (values from −1 to 1) and noise $\epsilon \sim \mathcal{N}(0, I)$ give the noised image at any
timestep directly, $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon.$ Move $t$ and
watch the image disappear. The network learns to predict the $\epsilon$ in it.
"""
)
controls, view = st.columns([2, 5], gap="medium")
with controls:
    image, what, size = noising.pick_image()
    seed = noising.pick_noise_seed()
    schedule = pick_schedule()
with view:
    t = pick_timestep(schedule.timesteps, default=150)
    if image is None:
        if what:
            st.info(plain(what))
        st.stop()
    x_0, noise = image_to_x_0(image), fixed_noise(seed, size)
    x_t = noising.show_noising(schedule, t, x_0, noise, what)
    noising.show_strip(schedule, x_0, noise)
noising.show_value_spread(schedule, t, x_t)
