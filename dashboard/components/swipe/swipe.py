"""A grid of images, two of which are compared large: by a divider, in turns, side by side or as the
map of their difference.

All of that happens in the browser. The server hears what was chosen, so that a link can have it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.assemble import component

VIEWS = ("Swipe", "Flicker", "Side by side", "Difference")
FACTORS = (1, 2, 4, 8, 16)
# Milliseconds of an image. Two of them are a flash, and there must never be three in a second
# (WCAG 2.3.1).
INTERVALS = (2000, 1000, 700, 400)
ZOOMS = (0, 1, 2, 4, 8, 16)  # screen pixels of an image's pixel; 0: as many as fit


def _select(name: str, values: Mapping[int, str]) -> str:
    options = (f'<option value="{value}">{text}</option>' for value, text in values.items())
    return f'<select class="{name}">{"".join(options)}</select>'


HTML = f"""
<div class="swipe">
  <div class="wide"><table><thead><tr></tr></thead><tbody></tbody></table></div>
  <div class="home">
    <section class="viewer" aria-label="Images A and B">
      <div class="bar">
        <label>A <select class="a"></select></label>
        <label>B <select class="b"></select></label>
        <button type="button" class="swap">Swap</button>
      </div>
      <div class="bar">
        <span class="views" role="group" aria-label="View">
          {"".join(f'<button type="button">{view}</button>' for view in VIEWS)}
        </span>
        <label>Zoom {_select("zoom", {k: f"{k}×" if k else "fit" for k in ZOOMS})}</label>
        <button type="button" class="large" aria-pressed="false">Full size</button>
      </div>
      <div class="bar flicker">
        <button type="button" class="turns">Pause</button>
        <label>Each for {_select("interval", {ms: f"{ms / 1000:g} s" for ms in INTERVALS})}</label>
      </div>
      <div class="bar difference">
        <label>Times {_select("factor", {each: str(each) for each in FACTORS})}</label>
        <label><input type="checkbox" class="signed"> Signed</label>
      </div>
      <div class="stage" tabindex="0" role="group" aria-label="A and B, large">
        <div class="screen">
          <canvas class="first" role="img"></canvas>
          <canvas class="second" role="img"></canvas>
          <canvas class="map" role="img"></canvas>
          <div class="divider" role="slider" tabindex="0" aria-label="Divider between A and B"
            aria-valuemin="0" aria-valuemax="100"></div>
        </div>
      </div>
      <output></output>
      <div class="bar">
        <a class="download-a">Download A</a>
        <a class="download-b">Download B</a>
        <details><summary>Keys</summary><dl>
          <dt>N, P</dt><dd>next and previous image as B; with Shift as A</dd>
          <dt>A, B</dt><dd>in the grid: choose the image as A or B</dd>
          <dt>X</dt><dd>swap A and B</dd>
          <dt>1 to 4</dt><dd>the view</dd>
          <dt>← →</dt><dd>on the divider: move it; on the image: as P and N</dd>
          <dt>Space</dt><dd>in Flicker: show the other image</dd>
          <dt>F</dt><dd>full size, and back</dd>
        </dl></details>
      </div>
    </section>
  </div>
  <dialog aria-label="Images A and B, full size"></dialog>
</div>
"""


@dataclass(frozen=True)
class Cell:
    """A square image, or why there is none."""

    address: str = ""  # of a PNG file, which is also what is downloaded
    file: str = ""  # the name of its download
    side: int = 0  # pixels
    note: str = ""  # below it
    problem: str = ""  # in its place


@dataclass(frozen=True)
class Grid:
    label: str  # what the images are
    corner: str  # what the rows and the columns are
    columns: Sequence[str]
    rows: Sequence[str]
    cells: Sequence[Sequence[Cell]]  # row by row


def show_swipe(
    grid: Grid, state: Mapping[str, Any], key: str, on_change: Callable[[dict[str, Any]], None]
) -> None:
    """`state`: which cells are "a" and "b", as "row.column" from 1; "view", "zoom", "factor",
    "signed" and "interval". `on_change` is told all of it when the visitor has chosen otherwise."""

    def told() -> dict[str, Any]:
        found = st.session_state.get(key, {}).get("told")
        return found if isinstance(found, dict) else {}

    data = asdict(grid)
    # The browser makes the table again only where the version has changed.
    version = hashlib.blake2b(json.dumps(data).encode(), digest_size=8).hexdigest()
    # The browser counts what it tells: an answer to less is out of date.
    data |= {"version": version, "state": dict(state), "count": told().get("count", 0)}
    component(Path(__file__), HTML)(key=key, data=data, on_told_change=lambda: on_change(told()))
