"""An image drawn with mouse, finger or pen, in a few colours on white paper.

Pen and paper live in the browser; the server hears of the drawing when a stroke has ended.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.components.assemble import component

SIZE = 128  # pixels a side
COLOURS = {  # the first is the paper's, and how to get back to it
    "Eraser": "#ffffff",
    "black": "#202020",
    "grey": "#8a8f94",
    "brown": "#7a4a26",
    "red": "#d03a2f",
    "orange": "#ee8a1d",
    "yellow": "#f4cf3a",
    "green": "#3d9a4d",
    "light blue": "#7cc4ee",
    "blue": "#2a5fb4",
    "purple": "#7f4ba3",
}
PALETTE = np.array([list(bytes.fromhex(each[1:])) for each in COLOURS.values()], np.uint8)

HTML = """
<div class="drawing">
  <canvas role="application" tabindex="0"
    aria-label="The drawing. Arrow keys move the pen, space draws."></canvas>
  <div class="tools">
    <div class="pens" role="group" aria-label="Pen"></div>
    <label>Width <input class="brush" type="range" min="1" step="1" aria-label="Width of the pen">
    </label>
    <button type="button" class="undo">Undo</button>
    <button type="button" class="clear">Clear</button>
  </div>
</div>
"""


def draw_image(key: str) -> np.ndarray | None:
    """What the visitor has drawn, uint8 (SIZE, SIZE, 3); None while the paper is empty.

    The drawing stays in the session when the page shows something else meanwhile.
    """
    kept = f"kept_{key}"

    def keep() -> None:
        given = st.session_state[key].get("drawing")
        st.session_state[kept] = given if decode(given) is not None else None

    data = {
        "size": SIZE,
        "colours": [{"name": name, "hex": colour} for name, colour in COLOURS.items()],
        "drawing": st.session_state.get(kept),
    }
    component(Path(__file__), HTML)(key=key, data=data, on_drawing_change=keep)
    return decode(st.session_state.get(kept))


def decode(text: object) -> np.ndarray | None:
    """The image that the browser wrote; None where it is none or an empty paper.

    Base64 of the number of each pixel's colour, row by row from the top, two to a byte, the first
    one in the higher bits.
    """
    if not isinstance(text, str):
        return None
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except ValueError:
        return None
    numbers = np.stack([data >> 4, data & 15], axis=1).ravel()
    if numbers.size != SIZE * SIZE or not 0 < numbers.max() < len(PALETTE):
        return None
    return PALETTE[numbers].reshape(SIZE, SIZE, 3)
