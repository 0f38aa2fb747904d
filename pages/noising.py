"""Noising: an image, noise, and what x_t is at any timestep of any schedule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
from torch import Tensor

from dashboard.figures.noising import spread_figure
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.services.settings import get_settings
from dashboard.ui.image_source import pick_own
from dashboard.ui.images import show_image, show_row
from dashboard.ui.pickers import pick_schedule, pick_timestep
from diffusion_core.data.decode import ImageError
from diffusion_core.data.errors import DataError
from diffusion_core.media.images import png, to_uint8
from diffusion_core.process.noising import (
    NOISE_RANGE,
    fixed_noise,
    image_to_x_0,
    mean_and_std,
    noise_to_uint8,
    noised_at,
    noising_shapes,
    strip_timesteps,
)
from diffusion_core.process.schedule import NoiseSchedule

SETS = ["cars", "digits"]
SIZES = [16, 32, 64, 128]
SIZE = 64
MAX_SEED = 2**31 - 1
SHOWN = 512  # pixels of the image to download, so that its own pixels stay crisp


def pick_from_data_set(size: int) -> tuple[np.ndarray, str]:
    """An image, uint8 (size, size, 3), and what it shows. Raises DataError, ImageError."""
    operator = get_settings().may_operate
    spec = st.selectbox(
        "Data set",
        SETS,
        accept_new_options=operator,
        help="Or type folder:PATH, or torchvision:NAME." if operator else None,
        required=True,
        key="data",
        bind="query-params",
    )
    count = cached.image_count(spec)
    index = st.number_input(
        "Image number", 0, count - 1, step=1, key="picture", bind="query-params"
    )
    image, name = cached.image(spec, index, size)
    return image, f"{name}, image {index:,} of {count:,}"


def pick_seed() -> int:
    """The seed of ε; the button goes on to the next."""
    seed = st.number_input(
        r"Seed of $\epsilon$",
        0,
        MAX_SEED,
        step=1,
        help="The same seed is the same noise, whatever t is.",
        key="seed",
        bind="query-params",
    )
    st.button("New noise", icon=":material/casino:", on_click=next_seed, width="stretch")
    return seed


def next_seed() -> None:
    st.session_state.seed = (st.session_state.seed + 1) % MAX_SEED


def show_large(image: np.ndarray, caption: str, alt: str) -> None:
    show_image(image, alt, SHOWN // 2, caption, stretch=True)


def show_noising(schedule: NoiseSchedule, t: int, x_0: Tensor, noise: Tensor, words: str) -> Tensor:
    """x_0, ε and x_t beside each other with the formula in numbers; returns x_t."""
    x_t = noised_at(schedule, x_0, noise, [t])
    signal = float(schedule.sqrt_alphas_cumprod[t])
    spread = float(schedule.sqrt_one_minus_alphas_cumprod[t])
    st.latex(rf"x_{{{t}}} = {signal:.4f}\,x_0 + {spread:.4f}\,\epsilon")
    images = st.columns(3)
    with images[0]:
        show_large(to_uint8(x_0)[0], f"$x_0$: {words}", "The image without noise")
    with images[1]:
        show_large(
            noise_to_uint8(noise)[0],
            rf"$\epsilon$, shown from −{NOISE_RANGE:g} (black) to {NOISE_RANGE:g} (white)",
            "The noise",
        )
    with images[2]:
        shown = to_uint8(x_t)[0]
        show_large(
            shown,
            f"$x_t$ at t = {t:,}, shown from −1 to 1; what lies beyond is cut off",
            f"The image with the noise of timestep {t}",
        )
        st.download_button(
            "Download this image",
            png(shown, max(1, SHOWN // shown.shape[1])),
            f"noising-t{t}.png",
            "image/png",
            icon=":material/download:",
            on_click="ignore",
            width="stretch",
        )
    return x_t


def show_strip(schedule: NoiseSchedule, x_0: Tensor, noise: Tensor) -> None:
    ts = strip_timesteps(schedule.timesteps)
    st.subheader(f"The same image at {len(ts)} timesteps")
    st.write(r"Evenly spaced, with the same $\epsilon$ each time, as in the lecture.")
    show_row(
        to_uint8(noised_at(schedule, x_0, noise, ts)),
        alt="The image under more and more noise",
        width=112,
        captions=[f"t = {t:,}" for t in ts],
    )
    with st.expander("How one line of code noises all of them: gather, reshape, broadcast"):
        st.write(
            "The images are a batch, and each has its own t. Its two coefficients are looked up "
            "in the schedule's tables, shaped so that they stretch over channels and pixels, and "
            r"multiplied; with $\sqrt{1-\bar\alpha_t}$ and $\epsilon$ it goes the same way."
        )
        rows = noising_shapes(schedule, x_0, ts)
        st.table(
            pd.DataFrame(
                [(what, how, str(shape)) for what, how, shape in rows],
                columns=["what", "code", "shape"],
            ).set_index("what")
        )


def show_spread(schedule: NoiseSchedule, t: int, x_t: Tensor) -> None:
    mean, std = mean_and_std(x_t)
    left = float(schedule.sqrt_alphas_cumprod[-1])
    last = schedule.timesteps - 1
    st.subheader("The values of $x_t$ against the normal distribution")
    st.write(
        r"Given the image, each value is normal with mean $\sqrt{\bar\alpha_t}\,x_0$ and "
        r"variance $1-\bar\alpha_t$. As $\bar\alpha_t$ goes to 0, the image's share goes and "
        r"$\mathcal{N}(0, 1)$ is left, whatever the image was: that is why drawing a new image "
        "can start from pure noise. How near it comes depends on the schedule: here "
        rf"$\sqrt{{\bar\alpha_t}}$ ends at {left:.4f} at t = {last:,}"
        + (", so that a trace of the image is still in it." if left > 0.02 else ".")
    )
    show(
        spread_figure(x_t.numpy()),
        key="spread",
        alt=f"Histogram of the values of the noised image at t = {t} with the density of the "
        "normal distribution",
    )
    st.caption(
        rf"All {x_t.numel():,} values of $x_t$ at t = {t:,}: mean {mean:.3f}, standard deviation "
        rf"{std:.3f}. $\mathcal{{N}}(0, 1)$ has 0 and 1."
    )


st.title("Noising")
st.markdown(
    r"""
Training needs images at every degree of noise. No step-by-step walk is needed for that: the
image $x_0$ (values from −1 to 1) and one draw of noise $\epsilon \sim \mathcal{N}(0, I)$ give
the noised image at any timestep directly,
$x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$. Move $t$ and watch the image
sink; the network's task is to say which $\epsilon$ is in it.
"""
)
controls, view = st.columns([2, 5], gap="medium")
image, words = None, ""
with controls:
    source = st.segmented_control(
        "Image from",
        ["data set", "upload", "camera"],
        default="data set",
        required=True,
        key="source",
        bind="query-params",
    )
    size = st.segmented_control(
        "Pixels a side", SIZES, default=SIZE, required=True, key="size", bind="query-params"
    )
    size = size or SIZE  # an address with an empty "size=" chooses none
    try:
        own = source in ("upload", "camera")
        image, words = (
            pick_own(source, size, "it is noised here") if own else pick_from_data_set(size)
        )
    except (DataError, ImageError) as error:
        st.error(str(error))
    seed = pick_seed()
    schedule = pick_schedule()
with view:
    t = pick_timestep(schedule.timesteps, default=150)
    if image is None:
        if words:
            st.info(words)
        st.stop()
    x_0, noise = image_to_x_0(image), fixed_noise(seed, size)
    x_t = show_noising(schedule, t, x_0, noise, words)
    show_strip(schedule, x_0, noise)
show_spread(schedule, t, x_t)
