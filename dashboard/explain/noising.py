"""The Noising page's controls, images and histogram."""

from __future__ import annotations

import numpy as np
import streamlit as st
from torch import Tensor

from dashboard.figures.noising import spread_figure
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.services.roles import Deed, NotAllowed, check, may
from dashboard.ui.controls import MOST_SHOWN, Choice, Number
from dashboard.ui.image_source import pick_own
from dashboard.ui.images import offer_png, show_image, show_row
from dashboard.ui.outside import plain
from dashboard.ui.run_wording import decimal
from diffusion_core.data.decode import ImageError
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.media.images import png, to_uint8
from diffusion_core.process.noise import MAX_SEED
from diffusion_core.process.noising import (
    NOISE_RANGE,
    mean_and_std,
    noise_to_uint8,
    noised_at,
    noising_shapes,
    strip_timesteps,
)
from diffusion_core.process.schedule import NoiseSchedule

DATA_SET = "data set"
SOURCE = Choice(
    key="source",
    label="Image source",
    options=(DATA_SET, "upload", "camera"),
    default=DATA_SET,
    segmented=True,
)
SIZE = Choice(
    key="size",
    label="Image size (px)",
    options=(16, 32, 64, 128),
    default=64,
    segmented=True,
)
DATA = Choice(
    key="data",
    label="Data set",
    options=[source.name for source in SOURCES.values() if source.most],
    default="cars",
)
TYPED = [form for source in SOURCES.values() if not source.most for form in source.usage]
INDEX = Number(key="picture", label="Image number", step=1, default=0)
SEED = Number(
    key="seed",
    label="Seed of ε",
    default=0,
    step=1,
    high=min(MAX_SEED, MOST_SHOWN),
    help="The same seed gives the same noise at every t.",
)
SHOWN = 512  # pixels of the image to download, so that its own pixels stay crisp
TRACE_LEFT = 0.02  # weight of the image at the last step from which it is still visible


def pick_image() -> tuple[np.ndarray | None, str, int]:
    """An image, uint8 (size, size, 3), what it shows, and its size.

    None and a hint before a choice; an error is shown here.
    """
    source = SOURCE.ask()
    size = SIZE.ask()
    try:
        if source != DATA_SET:
            return *pick_own(source, size, "to add noise to it"), size
        return *pick_from_data_set(size), size
    except (DataError, ImageError, NotAllowed) as error:
        st.error(plain(error))
        return None, "", size


def pick_from_data_set(size: int) -> tuple[np.ndarray, str]:
    """An image and what it shows. Raises DataError, ImageError, NotAllowed."""
    typed = may(Deed.READ_PATHS)
    spec = DATA.now(help=f"Or type {' or '.join(TYPED)}." if typed else None, typed=typed).ask()
    if spec not in DATA.options:
        check(Deed.READ_PATHS)
    count = cached.image_count(spec)
    index = INDEX.now(high=count - 1).ask()
    image, name = cached.image(spec, index, size)
    return image, f"{name}, image {index:,} of {count:,}"


def pick_noise_seed() -> int:
    """The seed of ε, with a button for the next one."""
    seed = SEED.ask()
    st.button("New noise", icon=":material/casino:", on_click=_next_seed, width="stretch")
    return seed


def _next_seed() -> None:
    st.session_state[SEED.key] = (st.session_state[SEED.key] + 1) % int(SEED.high)


def show_noising(schedule: NoiseSchedule, t: int, x_0: Tensor, noise: Tensor, what: str) -> Tensor:
    """x_0, ε and x_t beside each other with the formula in numbers; returns x_t."""
    x_t = noised_at(schedule, x_0, noise, [t])
    signal = float(schedule.sqrt_alphas_cumprod[t])
    spread = float(schedule.sqrt_one_minus_alphas_cumprod[t])
    st.latex(rf"x_{{{t}}} = {signal:.4f}\,x_0 + {spread:.4f}\,\epsilon")
    shown = to_uint8(x_t)[0]
    images = [
        (to_uint8(x_0)[0], f"$x_0$: {plain(what)}", "The image without noise"),
        (
            noise_to_uint8(noise)[0],
            rf"$\epsilon$, shown from −{NOISE_RANGE:g} (black) to {NOISE_RANGE:g} (white)",
            "The noise",
        ),
        (
            shown,
            f"$x_t$ at t = {t:,}, shown from −1 to 1; values outside are clipped",
            f"The image with the noise of timestep {t}",
        ),
    ]
    columns = st.columns(3)
    for column, (image, caption, alt) in zip(columns, images, strict=True):
        with column:
            show_image(image, alt, SHOWN // 2, caption, stretch=True)
    with columns[-1]:
        enlarged = png(shown, max(1, SHOWN // shown.shape[1]))
        offer_png("Download this image", enlarged, f"noising-t{t}.png", stretch=True)
    return x_t


def show_strip(schedule: NoiseSchedule, x_0: Tensor, noise: Tensor) -> None:
    """The lecture's strip, and the code behind it."""
    import pandas as pd

    ts = strip_timesteps(schedule.timesteps)
    st.subheader(f"The same image at {len(ts)} timesteps")
    st.write(r"Evenly spaced, all with the same $\epsilon$, as in the lecture.")
    show_row(
        list(to_uint8(noised_at(schedule, x_0, noise, ts))),
        alt="The image with more and more noise",
        width=112,
        captions=[f"t = {t:,}" for t in ts],
    )
    with st.expander("How one line of code noises the whole batch: gather, reshape, broadcast"):
        st.write(
            "The images form a batch, each with its own t. Its coefficient is gathered from the "
            "schedule's table, reshaped to broadcast over channels and pixels, and multiplied. The "
            r"same holds for $\sqrt{1-\bar\alpha_t}$ and $\epsilon$."
        )
        rows = noising_shapes(schedule, x_0, ts)
        st.table(
            pd.DataFrame(
                [(what, how, str(shape)) for what, how, shape in rows],
                columns=["what", "code", "shape"],
            ).set_index("what")
        )


def show_value_spread(schedule: NoiseSchedule, t: int, x_t: Tensor) -> None:
    """How the values of x_t are spread, against N(0, 1)."""
    mean, std = mean_and_std(x_t)
    left = float(schedule.sqrt_alphas_cumprod[-1])
    rest = ", so a trace of the image remains." if left > TRACE_LEFT else "."
    st.subheader("The values of $x_t$ against the normal distribution")
    st.write(
        r"Given the image, each value is normal with mean $\sqrt{\bar\alpha_t}\,x_0$ and "
        r"variance $1-\bar\alpha_t$. As $\bar\alpha_t$ goes to 0, the image's contribution "
        r"vanishes, leaving $\mathcal{N}(0, 1)$ whatever the image was. That is why sampling can "
        "start from pure noise. How close it gets depends on the schedule. Here "
        rf"$\sqrt{{\bar\alpha_t}}$ ends at {left:.4f} at t = {schedule.timesteps - 1:,}{rest}"
    )
    show(
        spread_figure(x_t.numpy()),
        key="spread",
        alt=f"Histogram of the values of the noised image at t = {t} with the density of the "
        "normal distribution",
    )
    st.caption(
        rf"All {x_t.numel():,} values of $x_t$ at t = {t:,}: mean {decimal(mean)}, standard "
        rf"deviation {decimal(std)}, against 0 and 1 for $\mathcal{{N}}(0, 1)$."
    )
