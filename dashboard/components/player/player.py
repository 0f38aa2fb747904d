"""What the browser components that play a film share: slider, play button, speed and loop, and
images whose pixels stay sharp.
"""

from __future__ import annotations

import functools
from pathlib import Path

import streamlit as st

HERE = Path(__file__)


@functools.cache
def component(file: Path, html: str) -> st.components.v2.types.ComponentRenderer:
    """The component of the Python file `file`, whose script and style lie beside it with its name;
    the player's own come before them."""
    js, css = (
        "".join(each.with_suffix(end).read_text(encoding="utf-8") for each in (HERE, file))
        for end in (".js", ".css")
    )
    return st.components.v2.component(file.stem, html=html, css=css, js=js)


def controls(label: str, more: str = "") -> str:
    """The HTML of the controls; `label` names the slider to those who cannot see it, `more` stands
    behind the slider."""
    return f"""
  <div class="controls">
    <button type="button" class="play" aria-label="Play the film" title="Play the film">
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path class="start" d="M4 2v12l10-6z"/><path class="halt" d="M3 2h4v12H3zM9 2h4v12H9z"/>
      </svg>
    </button>
    <input type="range" min="0" step="1" aria-label="{label}">
    <output></output>
    {more}
    <label>Speed <select class="speed">
      <option value="3">slow</option>
      <option value="8" selected>normal</option>
      <option value="20">fast</option>
      <option value="60">fastest</option>
    </select></label>
    <label><input type="checkbox" class="loop" checked> Loop</label>
  </div>
"""
