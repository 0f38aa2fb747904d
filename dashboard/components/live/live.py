"""A run's image, sampled in the browser while the noise, the class and the settings are moved.

The engine runs in a worker, which fetches the model from the server once. The server is told the
settings when the hand rests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.assemble import component
from dashboard.components.engine.engine import worker_script

HTML = """
<div class="live">
  <div class="body">
    <div class="images">
      <figure class="noise">
        <canvas tabindex="0" role="application"></canvas>
        <figcaption><i>x</i><sub><i>T</i></sub>, from −3 (black) to 3 (white)</figcaption>
        <div class="tools" role="group" aria-label="What dragging on the noise does">
          <button type="button" value="move" title="Move the first noise">Move</button>
          <button type="button" value="paint" title="Paint with the second noise">Paint</button>
          <button type="button" value="erase" title="Take painted noise away">Erase</button>
        </div>
        <div class="tools">
          <label>Brush <input type="range" class="brush" min="1" step="1"
            aria-label="Diameter of the brush in pixels"></label>
          <button type="button" class="undo">Undo</button>
          <button type="button" class="reset">Reset</button>
        </div>
      </figure>
      <figure class="image">
        <canvas role="img"></canvas>
        <figcaption class="what"></figcaption>
        <progress max="1" value="0" aria-label="Steps of this image"></progress>
        <div class="tools">
          <button type="button" class="stop">Stop</button>
          <button type="button" class="download">Download image</button>
        </div>
      </figure>
    </div>
    <div class="controls">
      <label class="with-classes">Class <select name="label"></select></label>
      <label>Seed <span class="pair"><input type="number" name="seed" min="0" step="1">
        <button type="button" class="new">New noise</button></span></label>
      <label>Second seed <input type="number" name="other" min="0" step="1"></label>
      <label>Angle from the first noise to the second
        <span class="pair"><input type="range" name="angle" min="0" max="360" step="1">
        <output></output></span></label>
      <label>Sampler <select name="sampler"></select></label>
      <label>Steps <select name="steps"></select></label>
      <label class="with-guidance">Guidance scale
        <span class="pair"><input type="range" name="guidance">
        <output></output></span></label>
      <label>Compute with <select name="engine"></select></label>
    </div>
  </div>
  <p class="said" role="status"></p>
  <div class="strip" role="img" aria-label="The predicted image after each step"></div>
</div>
"""


@dataclass(frozen=True)
class Model:
    """A model for the engine, and what it can be asked."""

    address: str  # relative to the page
    size: int  # pixels
    classes: Mapping[str, int | None]  # numbers by title, None for any; empty: it takes none
    samplers: Mapping[str, str]  # titles by name
    steps: tuple[int, ...]
    guides: bool


def show_live_model(
    model: Model,
    settings: Mapping[str, Any],
    engines: Mapping[str, str],
    guidance: tuple[float, float, float],
    key: str,
    on_change: Callable[[Mapping[str, Any]], None],
) -> None:
    """`settings` have the names of the inputs above; `on_change` gets them when the visitor has
    changed one. `engines` are titles by name, `guidance` is its lowest, highest and step."""

    def told() -> Mapping[str, Any]:
        found = st.session_state.get(key, {}).get("settings")
        return found if isinstance(found, Mapping) else {}

    low, high, step = guidance
    data = {
        "address": model.address,
        "size": model.size,
        "classes": dict(model.classes),
        "samplers": dict(model.samplers),
        "steps": list(model.steps),
        "guides": model.guides,
        "guidance": {"min": low, "max": high, "step": step},
        "engines": dict(engines),
        "settings": dict(settings),
        "count": told().get("count", 0),  # the browser counts what it tells
        "worker": worker_script(),
    }
    component(Path(__file__), HTML)(
        key=key, data=data, on_settings_change=lambda: on_change(told())
    )
