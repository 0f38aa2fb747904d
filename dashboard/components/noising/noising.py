"""An image, noise and x_t, mixed in the browser from what it is sent once."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import streamlit as st

from dashboard.components.assemble import component

QUANTILES = 199  # points of the Q–Q plot
PLOTS = ("Values", "Spectrum")

HTML = """
<div class="noising">
  <div class="settings">
    <label>Schedule <select class="kind"></select></label>
    <label>Strength of the noise
      <input class="strength" type="range" min="0" max="2" step="0.05"
        aria-label="Strength of the noise">
      <output class="times"></output></label>
  </div>
  <p class="formula"><i>x</i><sub class="at"></sub> = <span class="signal"></span>
    <i>x</i><sub>0</sub> + <span class="spread"></span><span class="factor"></span> <i>ε</i></p>
  <div class="images">
    <figure class="x_0"><canvas role="img" aria-label="The image without noise"></canvas>
      <figcaption><i>x</i><sub>0</sub>: <span class="what"></span></figcaption></figure>
    <figure class="noise"><canvas role="img" aria-label="The noise"></canvas>
      <figcaption><i>ε</i>, <span class="range"></span></figcaption></figure>
    <figure class="x_t"><canvas role="img"></canvas>
      <figcaption><i>x</i><sub><i>t</i></sub>, from −1 to 1, clipped outside</figcaption>
      <button type="button" class="download">Download this image</button></figure>
  </div>
  <div class="strip" role="group" aria-label="The same image at other timesteps"></div>
  <div class="show" role="group" aria-label="What the figures show">
    <button type="button" value="Values">Values</button>
    <button type="button" value="Spectrum">Spectrum</button>
  </div>
  <div class="values">
    <div class="plots"><div class="histogram plot"></div><div class="quantiles plot"></div></div>
    <p class="moments"></p>
  </div>
  <div class="spectrum plots">
    <div class="plot"></div>
    <div>
      <p class="overtaken"></p>
      <table class="order">
        <caption>When details of each size are lost</caption>
        <thead>
          <tr><th scope="col">What repeats every</th><th scope="col">is overtaken at</th></tr>
        </thead>
        <tbody></tbody>
      </table>
    </div>
  </div>
</div>
"""


@dataclass(frozen=True)
class Tables:
    """What one kind of schedule multiplies image and noise with: float32 (T,) each."""

    title: str
    signal: np.ndarray
    spread: np.ndarray


def show_noising(
    image: np.ndarray,
    noise: np.ndarray,
    tables: Mapping[str, Tables],
    settings: Mapping[str, Any],
    *,
    what: str,
    noise_range: float,
    strip: Sequence[int],
    spectrum: Mapping[str, np.ndarray],
    key: str,
    on_change: Callable[[Mapping[str, Any]], None],
) -> None:
    """x_t at the page's timestep, a strip, and figures of its values and its spectrum.

    `image` is uint8 (H, H, 3), `noise` float32 (H, H, 3). `settings` are `kind` (one of `tables`),
    `strength`, a factor of the noise, and `plot`, one of PLOTS; `on_change` gets them when the
    visitor has changed one. `what` says what the image shows, `spectrum` is of
    `process.spectrum.power_spectra`.
    """

    def told() -> Mapping[str, Any]:
        found = st.session_state.get(key, {}).get("settings")
        return found if isinstance(found, Mapping) else {}

    normal = NormalDist()
    probabilities = [(k + 0.5) / QUANTILES for k in range(QUANTILES)]
    data = {
        "size": len(image),
        "pixels": _text(image),
        "noise": _text(noise),
        "noiseRange": noise_range,
        "kinds": [
            {
                "name": name,
                "title": each.title,
                "signal": _text(each.signal),
                "spread": _text(each.spread),
            }
            for name, each in tables.items()
        ],
        "settings": dict(settings),
        "count": told().get("count", 0),  # the browser counts what it tells
        "what": what,
        "strip": list(strip),
        "probabilities": probabilities,
        "quantiles": [normal.inv_cdf(p) for p in probabilities],
        "spectrum": {name: values.tolist() for name, values in spectrum.items()},
    }
    component(Path(__file__), HTML)(
        key=key, data=data, on_settings_change=lambda: on_change(told())
    )


def _text(values: np.ndarray) -> str:
    """The bytes as base64, floats in the order that all browsers' machines have."""
    order = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(order).tobytes()).decode()
