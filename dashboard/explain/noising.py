"""The Noising page's controls, and what follows them in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image
from torch import Tensor

from dashboard.components.drawing.drawing import draw_image
from dashboard.components.noising import noising as component
from dashboard.services import cached
from dashboard.services.roles import Deed, NotAllowed, check, may
from dashboard.ui.controls import MOST_SHOWN, Choice, Number
from dashboard.ui.image_source import pick_own
from dashboard.ui.outside import plain, readable
from dashboard.ui.pickers import (
    KIND,
    TIMESTEPS,
    make_tables,
    offer_designs,
    pick_more,
    tables_of,
)
from diffusion_core.data.decode import ImageError, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import SOURCES
from diffusion_core.process.noise import MAX_SEED
from diffusion_core.process.noising import NOISE_RANGE, image_to_x_0, strip_timesteps
from diffusion_core.process.spectrum import power_spectra
from diffusion_core.process.tables import DESIGNED, SCHEDULE_KINDS, ScheduleTables

DATA_SET, DRAWING = "data set", "drawing"
SOURCE = Choice(
    key="source",
    label="Image source",
    options=(DATA_SET, "upload", "camera", DRAWING),
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
STRENGTH = Number(key="strength", label="Strength of the noise", low=0.0, high=2.0, default=1.0)
PLOT = Choice(key="plot", label="Figures", options=component.PLOTS, default=component.PLOTS[0])
SETTINGS = (KIND, STRENGTH, PLOT)  # chosen in the browser
TRACE_LEFT = 0.02  # weight of the image at the last step from which it is still visible


def pick_image() -> tuple[np.ndarray | None, str, int]:
    """An image, uint8 (size, size, 3), what it shows, and its size.

    None and a hint before a choice; an error is shown here.
    """
    source = SOURCE.ask()
    size = SIZE.ask()
    if source == DRAWING:
        drawn = draw_image("drawing")
        st.caption("Your drawing is kept in this session only. Links do not contain it.")
        if drawn is None:
            return None, "Draw an image to add noise to it.", size
        return to_size(Image.fromarray(drawn), size), "your drawing", size
    try:
        if source != DATA_SET:
            return *pick_own(source, size, "to add noise to it"), size
        return *pick_from_data_set(size), size
    except (DataError, ImageError, NotAllowed) as error:
        st.error(plain(error))
        return None, "", size


def pick_from_data_set(size: int, usual: str = DATA.default) -> tuple[np.ndarray, str]:
    """An image and what it shows; `usual`: the data set at first. Raises DataError, ImageError,
    NotAllowed."""
    typed = may(Deed.READ_PATHS)
    help = f"Or type {' or '.join(TYPED)}." if typed else None
    spec = DATA.now(help=help, typed=typed, default=usual).ask()
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


def pick_schedules(kind: str) -> dict[str, ScheduleTables]:
    """A schedule of `kind`, which is shown, and of each other kind, of the T and the further
    settings that are chosen here."""
    timesteps = TIMESTEPS.ask()
    if kind == DESIGNED:
        offer_designs()
    with st.popover("More", icon=":material/tune:", width="stretch"):
        more = pick_more(takes_betas=SCHEDULE_KINDS[kind].takes_betas)
    make_tables(kind, timesteps, more)
    found = {}
    for name in SCHEDULE_KINDS:
        with suppress(ValueError):  # it says so once it is chosen
            found[name] = tables_of(name, timesteps, more)
    return found


def pick_settings() -> dict[str, Any]:
    """The schedule's kind, the strength of the noise and the figures, which are chosen in the
    browser; the page's address keeps them."""
    settings = {}
    for control in SETTINGS:
        control.check_link()
        texts = st.query_params.get_all(control.key)
        settings[control.key] = control.of_link(texts) if texts else control.default
    return settings


def _keep_settings(told: Mapping[str, Any]) -> None:
    """Write what the browser says into the page's address, which leaves the defaults out."""
    for control in SETTINGS:
        value = told.get(control.key)
        if value == control.default:
            st.query_params.pop(control.key, None)
        elif not control.problem(value):
            st.query_params[control.key] = control.to_link(value)


def show_noising(
    image: np.ndarray,
    noise: Tensor,
    schedules: Mapping[str, ScheduleTables],
    settings: Mapping[str, Any],
    what: str,
) -> None:
    """x_0, ε and x_t beside each other, a strip and figures; all follow in the browser."""
    x_0, epsilon = image_to_x_0(image)[0].numpy(), noise[0].numpy()
    some = next(iter(schedules.values()))
    component.show_noising(
        image,
        epsilon.transpose(1, 2, 0),
        {
            name: component.Tables(
                SCHEDULE_KINDS[name].title,
                each.sqrt_alphas_cumprod.astype(np.float32),
                each.sqrt_one_minus_alphas_cumprod.astype(np.float32),
            )
            for name, each in schedules.items()
        },
        settings,
        what=readable(what),
        noise_range=NOISE_RANGE,
        strip=strip_timesteps(some.timesteps),
        spectrum=asdict(power_spectra(x_0, epsilon)),
        key="noising",
        on_change=_keep_settings,
    )


def show_limit(schedule: ScheduleTables) -> None:
    """What the values come to, and how much of the image is left at the last timestep."""
    left = float(schedule.sqrt_alphas_cumprod[-1])
    rest = ", so a trace of the image remains." if left > TRACE_LEFT else "."
    st.caption(
        r"Given the image, each value is normal with mean $\sqrt{\bar\alpha_t}\,x_0$ and variance "
        r"$1-\bar\alpha_t$. As $\bar\alpha_t$ goes to 0, $\mathcal{N}(0, 1)$ is left whatever the "
        "image was: sampling can start from pure noise. Here "
        rf"$\sqrt{{\bar\alpha_t}}$ ends at {left:.4f} at t = {schedule.timesteps - 1:,}{rest}"
    )
