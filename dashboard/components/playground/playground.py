"""Diffusion in the plane, trained and sampled in the browser.

Training runs in a worker that is made of the scripts beside this file, so the server does nothing
while it is used. It is told the settings when the hand rests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.assemble import component, inline, scripts

HTML = """
<div class="playground">
  <div class="bar">
    <button type="button" class="train">Pause training</button>
    <button type="button" class="reset">Reset</button>
    <dl>
      <div><dt>Steps</dt><dd class="step"></dd></div>
      <div><dt>Loss</dt><dd class="loss"></dd></div>
      <div><dt>Steps/s</dt><dd class="rate"></dd></div>
    </dl>
    <canvas class="losses" role="img" aria-label="The loss over the steps of training"></canvas>
  </div>
  <p class="said" role="status"></p>
  <div class="body">
    <div class="controls"></div>
    <div class="view">
      <p class="legend"></p>
      <div class="panels" tabindex="0" role="group"
        aria-label="Particles. Arrow keys move the time, Space plays, t trains, r resets."></div>
      <div class="time">
        <button type="button" class="play">Play</button>
        <label>Time <input type="range" class="level" min="0" step="any" aria-label="Noise steps">
          <output class="where"></output></label>
      </div>
      <div class="options"></div>
      <div class="files">
        <button type="button" class="png">PNG</button>
        <button type="button" class="svg">SVG</button>
        <button type="button" class="json">Weights and samples (JSON)</button>
      </div>
    </div>
  </div>
  <h3>Worth seeing</h3>
  <div class="gallery"></div>
  <div class="pad">
    <canvas role="application" tabindex="0"
      aria-label="Drawing. Arrow keys move the pen, Space sets a point."></canvas>
    <p class="drawn" role="status"></p>
    <div class="tools">
      <span class="brushes" role="group" aria-label="Class that is drawn">
        <button type="button" class="brush" aria-pressed="true">● Class 0</button>
        <button type="button" class="brush" aria-pressed="false">■ Class 1</button>
      </span>
      <button type="button" class="undo">Undo</button>
      <button type="button" class="clear">Clear</button>
    </div>
  </div>
</div>
"""


@dataclass(frozen=True)
class Preset:
    """A setting worth seeing."""

    title: str
    sentence: str
    settings: Mapping[str, Any]
    address: str


@functools.cache
def worker_script() -> str:
    """The script of the worker with all that it imports."""
    parts = scripts(Path(__file__).with_name("worker.js"))
    return "".join(inline(script.read_text(encoding="utf-8")) for script in parts)


def show_playground(data: Mapping[str, Any], key: str, on_settings: Callable[[Any], None]) -> None:
    """Show the playground; `data` is what playground.js reads.

    `on_settings` is told what the visitor has set, which comes from outside, before the page's
    script runs.
    """

    def told() -> None:
        on_settings(st.session_state[key].get("settings"))

    component(Path(__file__), HTML)(
        key=key, data={**data, "worker": worker_script()}, on_settings_change=told
    )
