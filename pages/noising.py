"""Noising: an image, noise, and what x_t is at any timestep of any schedule."""

from __future__ import annotations

import streamlit as st

from dashboard.explain import noising, noising_more
from dashboard.services import cached
from dashboard.ui.outside import plain
from dashboard.ui.pickers import pick_timestep
from diffusion_core.process.noising import fixed_noise

st.title("Noising")
st.markdown(
    r"One formula adds the noise of any timestep at once, "
    r"$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$ with "
    r"$\epsilon \sim \mathcal{N}(0, I)$: move $t$ and watch the image disappear."
)
settings = noising.pick_settings()
controls, view = st.columns([2, 5], gap="medium")
with controls:
    image, what, size = noising.pick_image()
    seed = noising.pick_noise_seed()
    schedules = noising.pick_schedules(settings["kind"])
schedule = cached.schedule(**schedules[settings["kind"]].settings())
with view:
    t = pick_timestep(schedule.timesteps, default=150)
    if image is None:
        if what:
            st.info(plain(what))
        st.stop()
    noise = fixed_noise(seed, size)
    noising.show_noising(image, noise, schedules, settings, what)
    noising.show_limit(schedules[settings["kind"]])
noising_more.show_more(schedule, t, image, noise, seed)
