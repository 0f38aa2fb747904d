"""A part of an image, painted on it with mouse, finger or pen.

Brush and image live in the browser; the server hears of a mask when a stroke has ended.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.components.assemble import component
from diffusion_core.media.images import png

HTML = """
<div class="mask">
  <canvas role="application" tabindex="0"></canvas>
  <div class="tools">
    <div class="group" role="group" aria-label="What the brush does">
      <button type="button" class="paint" aria-pressed="true">Paint</button>
      <button type="button" class="erase" aria-pressed="false">Erase</button>
    </div>
    <label>Brush <input class="brush" type="range" min="1" step="1" aria-label="Brush size"></label>
    <button type="button" class="undo">Undo</button>
    <button type="button" class="invert">Invert</button>
    <button type="button" class="clear">Clear</button>
  </div>
  <p class="said" aria-live="polite"></p>
</div>
"""


def draw_mask(image: np.ndarray, key: str) -> np.ndarray:
    """Where the visitor has painted: bool (H, W) of a square image uint8 (H, H, C).

    The mask stays in the session when the page shows something else meanwhile.
    """
    kept = f"kept_{key}"

    def keep() -> None:
        st.session_state[kept] = st.session_state[key].get("mask")

    size = image.shape[0]
    given = st.session_state.get(kept)
    address = f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
    data = {"image": address, "size": size, "mask": given}
    component(Path(__file__), HTML)(key=key, data=data, on_mask_change=keep)
    return decode(st.session_state.get(kept), size)


def decode(text: object, size: int) -> np.ndarray:
    """The mask that the browser wrote, bool (size, size); empty where it is none of this size.

    Base64 of one bit a pixel, row by row from the top, the first pixel the highest bit.
    """
    empty = np.zeros((size, size), bool)
    if not isinstance(text, str):
        return empty
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return empty
    if len(data) != -(-size * size // 8):
        return empty
    bits = np.unpackbits(np.frombuffer(data, np.uint8))[: size * size]
    return bits.reshape(size, size).astype(bool)
