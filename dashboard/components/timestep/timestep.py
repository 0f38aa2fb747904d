"""The slider of the timestep t. What follows it repaints in the browser at every step; the server
is told when the hand rests. See `shared/timestep.js`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboard.components.assemble import component

HTML = """
<div class="timestep">
  <label for="t"></label>
  <div class="row">
    <button type="button" class="play">
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path class="start" d="M4 2v12l10-6z"/><path class="halt" d="M3 2h4v12H3zM9 2h4v12H9z"/>
      </svg>
    </button>
    <div class="room">
      <output for="t"></output>
      <input id="t" type="range" min="0" step="1">
      <div class="ends" aria-hidden="true"><span>0</span><span class="last"></span></div>
    </div>
  </div>
</div>
"""
HEIGHT = 88  # pixels, kept free before it is there


def show_timestep(
    label: str, t: int, last: int, key: str, on_rest: Callable[[object], None]
) -> None:
    """A slider from 0 to `last`, which stands at `t`. `on_rest` is told where it rests, which comes
    from outside."""

    def told() -> list[object]:
        found = st.session_state.get(key, {}).get("rested")
        return found if isinstance(found, list) and len(found) == 2 else [None, 0]

    # The browser counts what it tells: an answer to less is out of date.
    data = {"label": label, "t": t, "last": last, "count": told()[1]}
    component(Path(__file__), HTML)(
        key=key, data=data, height=HEIGHT, on_rested_change=lambda: on_rest(told()[0])
    )
