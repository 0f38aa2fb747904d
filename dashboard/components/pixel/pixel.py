"""A pixel chosen on an image with mouse, finger or arrow keys, and maps in which it is marked too.

The cursor lives in the browser; the server hears where it has come to rest.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.components.assemble import component
from diffusion_core.media.images import png

HTML = '<div class="pixel"><div class="panels"></div><p class="said" aria-live="polite"></p></div>'


@dataclass(frozen=True, eq=False)
class Panel:
    """An image uint8 (H, W, 1 or 3), or a map (h, w) that is never negative, drawn from 0 to its
    largest value in the theme's colours; both square."""

    title: str
    values: np.ndarray
    frames: Sequence[int] = ()  # distances from the pixel, in pixels, at which a square is drawn

    def packed(self) -> dict[str, Any]:
        both = {"title": self.title, "frames": list(self.frames)}
        if self.values.ndim == 3:
            data = base64.b64encode(png(self.values)).decode()
            return both | {"image": f"data:image/png;base64,{data}"}
        peak = float(self.values.max())
        scaled = np.round(self.values * (255 / peak if peak > 0 else 0.0)).astype(np.uint8)
        height, width = self.values.shape
        return both | {
            "map": base64.b64encode(scaled.tobytes()).decode(),
            "height": height,
            "width": width,
            "peak": peak,
        }


def show_pixel(
    panels: Sequence[Panel],
    size: int,
    at: tuple[int, int],
    key: str,
    on_pick: Callable[[int, int], None],
) -> None:
    """`at`: (row, column) of the pixel, of an image of `size` x `size`; `on_pick` is told another
    one that was chosen."""

    def told() -> dict[str, Any]:
        found = st.session_state.get(key, {}).get("told")
        return found if isinstance(found, dict) else {}

    def pick() -> None:
        found = [told().get(name) for name in ("row", "column")]
        row, column = (each if type(each) is int and 0 <= each < size else -1 for each in found)
        if min(row, column) >= 0:
            on_pick(row, column)

    data = {
        "panels": [panel.packed() for panel in panels],
        "size": size,
        "at": at,
        # The browser counts what it tells: an answer to less is out of date.
        "count": told().get("count", 0),
    }
    component(Path(__file__), HTML)(key=key, data=data, on_told_change=pick)
