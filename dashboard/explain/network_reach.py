"""The Network page's tab Receptive field: which input pixels move one position of a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from torch import nn

from dashboard.components.pixel.pixel import Panel, show_pixel
from dashboard.explain.network import show_numbers
from dashboard.explain.network_look import Look, has_room, pick_pixel, result_of, set_pixel
from dashboard.services import cached
from dashboard.ui.controls import Choice
from dashboard.ui.outside import code
from diffusion_core.media.images import to_uint8
from diffusion_core.models import inside
from diffusion_core.models.inside import FEW_CHANNELS, PROBES, WHOLE, Given
from diffusion_core.models.trace import TraceRow

PREDICTION, BLOCK = "prediction", "chosen block"
OF = Choice(key="of", label="Of", options=(PREDICTION, BLOCK), default=PREDICTION, segmented=True)
SHARES = (0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Reach:
    x_t: np.ndarray  # uint8 (H, W, C)
    gradient: np.ndarray  # (H, W)


def show_reach(look: Look, row: TraceRow) -> None:
    st.markdown(
        r"How strongly one position of the output follows each input pixel: "
        r"$\lVert\partial\,\mathrm{output}/\partial x_t\rVert$. Click a pixel."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = OF.ask()
        pixel = pick_pixel(look.size)
    block = WHOLE if chosen == PREDICTION else row.name
    if block and len(row.output) != 4:
        st.info(f"{code(row.name)} sees the timestep only; choose a block that sees the image.")
        return
    kept = cached.kept_bytes(look.config.network, dict(look.config.network_args), look.size)
    if not has_room(sum(kept.values()), "The gradient of a network"):
        return
    channels = look.config.channels if not block else row.output[1]
    found = result_of(
        look,
        "receptive field",
        (block, pixel),
        1 + 2 * (channels if channels <= FEW_CHANNELS else PROBES),
        lambda network, given, *_: reach_of(network, given, block, pixel),
    )
    if found is None:
        return
    distances = [
        inside.side_holding(found.gradient, pixel, share) // 2
        for share in SHARES
        if found.gradient.any()
    ]
    panels = [
        Panel(f"x_t at t = {look.t:,}", found.x_t, distances),
        Panel("Gradient", found.gradient),
        Panel("Gradient, logarithmic", logarithmic(found.gradient), distances),
    ]
    show_pixel(panels, look.size, pixel, "reach", set_pixel)
    show_extent(look, found.gradient, distances)
    if channels > FEW_CHANNELS:
        st.caption(
            f"Estimated over the {channels:,} channels from {PROBES} random mixtures of them."
        )


def reach_of(network: nn.Module, given: Given, block: str, pixel: tuple[int, int]) -> Reach:
    gradient = inside.gradient_map(network, given, block, pixel).cpu().numpy()
    return Reach(to_uint8(given.x)[0], np.nan_to_num(gradient, posinf=0.0))


def logarithmic(gradient: np.ndarray, decades: int = 4) -> np.ndarray:
    """0 to `decades` powers of ten below the largest value."""
    peak = gradient.max()
    if peak <= 0:
        return gradient
    return np.clip(np.log10(np.maximum(gradient, 1e-30) / peak) + decades, 0, None)


def show_extent(look: Look, gradient: np.ndarray, distances: Sequence[int]) -> None:
    """Where it is not 0, and the distances within which SHARES of its sum lie."""
    if not distances:
        st.info(
            "The gradient is 0 everywhere. The last layers of a fresh network are zero, so nothing "
            "of the image reaches its prediction yet."
        )
        return
    height, width = inside.reach(gradient)
    within = {
        f"{share:.0%} of the sum within": f"± {distance} px"
        for share, distance in zip(SHARES, distances, strict=True)
    }
    show_numbers({"Not 0 in": f"{width}×{height} px"} | within)
    st.caption(
        f"Of {look.size}×{look.size} px. The solid square holds {SHARES[0]:.0%} of the sum, the "
        f"dashed one {SHARES[1]:.0%}. Group norms and attention connect every pixel with every "
        "other, if only a little; the logarithmic map shows four powers of ten."
    )
