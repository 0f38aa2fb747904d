"""The Noising page's comparison: the formula once against all steps one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st
import torch
from PIL import Image

from dashboard.figures.noising import means_figure, variances_figure
from dashboard.figures.theme import show
from dashboard.ui.images import show_row
from diffusion_core.data.decode import to_size
from diffusion_core.media.images import to_uint8
from diffusion_core.process.noising import image_to_x_0, noised_step_by_step, standardised
from diffusion_core.process.schedule import NoiseSchedule

SIDE = 16  # pixels: many draws of a small image tell more than few of a large one
NORMALS = 40_000_000  # normal numbers that a look may take, about a third of a second of a core
FEWEST, MOST = 16, 400  # draws
SHOWN = 3
FORMULA, STEPS = "from the formula", "step by step"


def show_step_by_step(schedule: NoiseSchedule, t: int, image: np.ndarray, seed: int) -> None:
    """Images, means and variances of x_t by both ways."""
    st.markdown(
        rf"One step is $x_s = \sqrt{{1-\beta_s}}\,x_{{s-1}} + \sqrt{{\beta_s}}\,z_s$ with new "
        rf"noise $z_s \sim \mathcal{{N}}(0, I)$. After all {t + 1:,} of them, $x_{{{t}}}$ has the "
        r"distribution that the formula gives at once: "
        r"$\mathcal{N}(\sqrt{\bar\alpha_t}\,x_0,\;(1-\bar\alpha_t) I)$. Single images "
        "differ, because their noise does; what many have in common is the same."
    )
    small = to_size(Image.fromarray(image), SIDE)
    found = _draws(schedule.settings(), t, small.tobytes(), seed, schedule)
    x_0 = image_to_x_0(small)
    draws = len(found[FORMULA])
    for name, x_t in found.items():
        st.markdown(f"**{name.capitalize()}**: {SHOWN} of {draws:,} draws, then their mean")
        images = to_uint8(torch.cat([x_t[:SHOWN], x_t.mean(dim=0, keepdim=True)]))
        show_row(list(images), f"The image at t = {t} {name}", 112)
    _show_moments(schedule, t, x_0, found)


def _show_moments(
    schedule: NoiseSchedule, t: int, x_0: torch.Tensor, found: Mapping[str, torch.Tensor]
) -> None:
    import pandas as pd

    draws = len(found[FORMULA])
    wanted = (schedule.signal[t] * x_0).flatten().numpy()
    spread = float(schedule.spread[t])
    left, right = st.columns(2)
    with left:
        means = {name: x_t.mean(dim=0).flatten().numpy() for name, x_t in found.items()}
        show(
            means_figure(wanted, means, spread / draws**0.5),
            key="means",
            alt="Mean of every value over the draws against the mean of the closed form: "
            "both ways lie around the line on which they are equal",
        )
    with right:
        variances = {name: x_t.var(dim=0).flatten().numpy() for name, x_t in found.items()}
        show(
            variances_figure(variances, spread**2),
            key="variances",
            alt="Histogram of the variance of every value over the draws: both ways lie around "
            "one minus alpha-bar",
        )
    rows = []
    for name, x_t in found.items():
        z = standardised(schedule, x_0, t, x_t)
        number = z.numel()
        rows.append(
            {
                "way": name,
                "mean, expected 0": f"{z.mean():.4f} ± {number**-0.5:.4f}".replace("-", "−"),
                "variance, expected 1": f"{z.var():.4f} ± {(2 / number) ** 0.5:.4f}",
            }
        )
    st.markdown(
        r"Of all values of $(x_t - \sqrt{\bar\alpha_t}\,x_0) / \sqrt{1-\bar\alpha_t}$, "
        "with one standard error:"
    )
    st.table(pd.DataFrame(rows).set_index("way"))
    st.caption(f"Computed on the image at {SIDE} × {SIDE} pixels, {draws:,} draws each.")


@st.cache_data(max_entries=32, show_spinner="Adding the noise step by step …")
def _draws(
    settings: dict[str, Any],
    t: int,
    pixels: bytes,
    seed: int,
    _schedule: NoiseSchedule,
) -> dict[str, torch.Tensor]:
    """x_t by both ways, (draws, 3, SIDE, SIDE) each; `settings` are the schedule's."""
    x_0 = image_to_x_0(np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 3))
    draws = max(FEWEST, min(MOST, NORMALS // ((t + 1) * x_0.numel())))
    generator = torch.Generator().manual_seed(seed)
    shape = (draws, *x_0.shape[1:])
    noise = torch.randn(shape, generator=generator)
    formula, _ = _schedule.add_noise(x_0.expand(shape), torch.full((draws,), t), noise)
    return {FORMULA: formula, STEPS: noised_step_by_step(_schedule, x_0, t, draws, generator)}
