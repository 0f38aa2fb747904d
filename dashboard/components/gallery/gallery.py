"""A grid of images. A click opens one large: the arrow keys go on to the next, and it can fill the
screen, be copied and be downloaded with the settings in its file.

All of that happens in the browser and asks the server for nothing, but for an image in full size.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from dashboard.components.assemble import component

HTML = """
<div class="gallery">
  <div class="rows"></div>
  <dialog aria-label="Enlarged image">
    <div class="stage">
      <div class="bar">
        <output></output>
        <span class="said" role="status"></span>
        <button type="button" class="original" hidden>Full size</button>
        <button type="button" class="copy">Copy image</button>
        <a class="download">Download</a>
        <button type="button" class="screen" aria-pressed="false">Full screen</button>
        <button type="button" class="close" autofocus>Close</button>
      </div>
      <div class="view">
        <canvas role="img"></canvas>
        <button type="button" class="previous" aria-label="Previous image">‹</button>
        <button type="button" class="next" aria-label="Next image">›</button>
      </div>
    </div>
  </dialog>
</div>
"""


@dataclass(frozen=True)
class Tile:
    """One image."""

    address: str  # of a PNG file, which is also what is downloaded; see `address_of`
    name: str  # what it shows, in a few words
    file: str  # the name of its download


@dataclass(frozen=True)
class Row:
    """Square images of one size, in as many lines as they need."""

    tiles: tuple[Tile, ...]
    side: int  # pixels of an image
    size: int  # screen pixels of one at most
    columns: int = 0  # of each line; 0: as many as fit
    title: str = ""
    note: str = ""  # below the title
    named: bool = False  # each name is written below its image


def show_gallery(
    rows: Sequence[Row],
    label: str,
    key: str,
    on_original: Callable[[int], None] | None = None,
    beside: int = 0,
) -> None:
    """The rows below each other; `label` says what they are to those who cannot see them.

    `on_original` is told the number of the tile, over all rows, that is wanted in full size.
    `beside`: the least width in screen pixels of rows that stand beside each other.
    """

    def wanted() -> None:
        number = st.session_state[key].get("original")
        if on_original is not None and isinstance(number, int):
            on_original(number)

    listed = [asdict(row) for row in rows]
    data = {"label": label, "rows": listed, "original": on_original is not None, "beside": beside}
    # The browser makes its elements again only where the version has changed.
    version = hashlib.blake2b(json.dumps(data).encode(), digest_size=8).hexdigest()
    shown = component(Path(__file__), HTML)
    shown(key=key, data=data | {"version": version}, on_original_change=wanted)


def address_of(png: bytes) -> str:
    """Of a tile whose file the browser is sent with the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
