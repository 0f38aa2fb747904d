"""A noise schedule that is designed by dragging points of its log-SNR or of alphas_cumprod.

The curve and the points live in the browser; the server hears of the points when the hand rests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.components.assemble import component
from diffusion_core.process.tables import (
    HIGHEST_LOG_SNR,
    LEAST_DROP,
    LEAST_TIME,
    MOST_POINTS,
    USUAL_POINTS,
    Points,
)

HTML = """
<div class="designer">
  <svg class="plot" role="group"></svg>
  <output></output>
  <div class="tools">
    <button type="button" class="add">Add a point</button>
    <button type="button" class="remove">Remove the point</button>
    <button type="button" class="reset">Start over</button>
  </div>
  <p>Drag a point, or choose one and press the arrow keys, with Shift in larger steps. Delete
  removes it. A double click adds one.</p>
</div>
"""
HEIGHT = 470  # pixels, kept free before it is there


def design_schedule(
    points: Points,
    others: Mapping[str, np.ndarray],
    *,
    as_alphas_cumprod: bool,
    timesteps: int,
    key: str,
    on_rest: Callable[[object], None],
) -> None:
    """`others`: the log-SNR of further schedules over the time, dashed. `on_rest` is told the new
    points, which come from outside."""

    def told() -> list[object]:
        found = st.session_state.get(key, {}).get("designed")
        return found if isinstance(found, list) and len(found) == 2 else [None, 0]

    lines = {
        # JSON has no infinity, and a curve does not need all of a long schedule.
        name: [round(float(v), 4) for v in np.clip(table, -99, 99)[:: max(1, len(table) // 400)]]
        for name, table in others.items()
    }
    # The browser counts what it tells: an answer to less is out of date.
    data = {
        "points": [list(point) for point in points],
        "usual": USUAL_POINTS,
        "others": lines,
        "asBar": as_alphas_cumprod,
        "timesteps": timesteps,
        "highest": HIGHEST_LOG_SNR,
        "leastTime": LEAST_TIME,
        "leastDrop": LEAST_DROP,
        "most": MOST_POINTS,
        "count": told()[1],
    }
    component(Path(__file__), HTML)(
        key=key, data=data, height=HEIGHT, on_designed_change=lambda: on_rest(told()[0])
    )
