"""The Noising page's walk through gather, reshape and broadcast, and through what goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from dashboard.ui.images import show_row
from diffusion_core.media.images import to_uint8
from diffusion_core.process.noising import noised_at, noising_walk, strip_timesteps
from diffusion_core.process.schedule import NoiseSchedule

FIRST = 4  # values that are written of a tensor


def show_walk(schedule: NoiseSchedule, x_0: Tensor) -> None:
    """`add_noise` on the strip's batch, with its values."""
    import pandas as pd

    middle = x_0.shape[-1] // 2
    st.markdown(
        "The strip's images form a batch, each with its own t. Its coefficient is gathered from "
        "the schedule's table, reshaped to broadcast over channels and pixels, and multiplied. The "
        r"same holds for $\sqrt{1-\bar\alpha_t}$ and $\epsilon$. Of images, the red value of the "
        f"middle pixel is written, `[:, 0, {middle}, {middle}]`."
    )
    rows = noising_walk(schedule, x_0, strip_timesteps(schedule.timesteps))
    st.table(
        pd.DataFrame(
            [(f"{what}  \n`{how}`", f"{shape(x)}  \n{values(x)}") for what, how, x in rows],
            columns=["step", "shape and values"],
        ).set_index("step")
    )


def values(x: Tensor) -> str:
    """The first and the last values, in the brackets of their dimensions."""
    if x.ndim == 4 and x.shape[-1] > 1:
        x = x[:, 0, x.shape[-2] // 2, x.shape[-1] // 2]
    inner = x.ndim - 1
    flat = x.flatten().tolist()
    one = [f"{'[' * inner}{number(value)}{']' * inner}" for value in flat]
    written = one if len(one) <= FIRST + 1 else [*one[:FIRST], "…", one[-1]]
    return f"[{', '.join(written)}]"


def number(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}".replace("-", "−")


def show_mistakes(schedule: NoiseSchedule, x_0: Tensor, noise: Tensor) -> None:
    """Wrong shapes: the one that PyTorch refuses, and two that it takes."""
    size = x_0.shape[-1]
    signal, spread = schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod

    st.markdown("**Without reshape, PyTorch usually refuses**")
    t = torch.tensor(strip_timesteps(schedule.timesteps))
    st.code(
        f"sqrt_alphas_cumprod[t] * x_0  # {shape(t)} times {shape(batch_of(x_0, len(t)))}\n"
        + error_of(lambda: signal[t] * batch_of(x_0, len(t))),
        wrap_lines=True,
    )
    st.markdown(
        "Shapes are compared from the right: the one coefficient per image meets the columns of "
        "pixels, not the images. Dimension 3 is the image's width."
    )

    st.markdown(f"**With {size} images of {size} pixels it fits, and is wrong**")
    t = spread_over(schedule, size)
    code = "sqrt_alphas_cumprod[t] * x_0 + sqrt_one_minus_alphas_cumprod[t] * noise"
    st.code(f"{code}\n# {shape(t)} times {shape(batch_of(x_0, size))}: no error", wrap_lines=True)
    wrong = signal[t] * x_0 + spread[t] * noise  # of each image, as they are all the same
    show_beside(schedule, x_0, noise, t, wrong, size // 2)
    st.markdown(
        f"There is one coefficient for each of the {size} columns, so in every image "
        "each column is noised with another image's t."
    )

    st.markdown("**With 3 images, the reshape to (1, −1, 1, 1) fits, and is wrong**")
    t = spread_over(schedule, 3)
    st.code(
        f"sqrt_alphas_cumprod[t].reshape(1, -1, 1, 1)  # {shape(t)} to (1, 3, 1, 1): no error",
        wrap_lines=True,
    )
    wrong = signal[t].reshape(1, -1, 1, 1) * x_0 + spread[t].reshape(1, -1, 1, 1) * noise
    show_beside(schedule, x_0, noise, t, wrong, 1)
    st.markdown(
        "Each of the three timesteps now belongs to a colour: red is nearly clean, blue is nearly "
        "noise. Reshape to `(-1, 1, 1, 1)`, with the batch first."
    )


def show_beside(
    schedule: NoiseSchedule, x_0: Tensor, noise: Tensor, t: Tensor, wrong: Tensor, k: int
) -> None:
    """Image `k` of a batch as it should be and as it came out."""
    right = noised_at(schedule, x_0, noise, [int(t[k])])
    images: list[np.ndarray] = [to_uint8(x)[0] for x in (right, wrong)]
    at = f"image {k}, t = {int(t[k])}"
    show_row(images, "Noised image", 160, [f"right: {at}", f"wrong: {at}"])


def spread_over(schedule: NoiseSchedule, n: int) -> Tensor:
    """`n` timesteps from the first to the last."""
    return torch.linspace(0, schedule.timesteps - 1, n).long()


def batch_of(x_0: Tensor, n: int) -> Tensor:
    return x_0.expand(n, *x_0.shape[1:])


def shape(x: Tensor) -> str:
    return str(tuple(x.shape))


def error_of(act: Callable[[], object]) -> str:
    """What PyTorch says of it, as Python writes it."""
    try:
        act()
    except (RuntimeError, IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("It was to fail.")
