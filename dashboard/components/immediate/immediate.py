"""An image that the server samples again while the hand moves its seed, class and guidance.

The browser asks for one image at a time: for the newest settings once it has the last one. The
sliders of Streamlit would wait 0.2 s before they tell anything.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.assemble import component

HTML = """
<div class="immediate">
  <figure><img alt=""></figure>
  <div class="controls">
    <label>Seed <span class="pair"><input type="range" name="seed" min="0" step="1">
      <output></output></span></label>
    <label class="with-classes">Class <span class="pair">
      <input type="range" name="label" min="0" step="1"><output></output></span></label>
    <label class="with-guidance">Guidance scale <span class="pair">
      <input type="range" name="guidance"><output></output></span></label>
    <a class="download">Download image</a>
    <p class="said" role="status"></p>
  </div>
</div>
"""


@dataclass(frozen=True)
class Asked:
    """What the browser has asked for last."""

    turn: int  # it counts what it asks
    base: str  # see `show_immediate`
    settings: Mapping[str, Any]  # seed, label and guidance, not yet checked
    rests: bool  # whether the hand rests


@dataclass(frozen=True)
class Answer:
    """An image, or why there is none."""

    turn: int  # of what was asked
    settings: Mapping[str, Any]  # those that it has: seed, label, guidance
    png: bytes | None
    alt: str = ""
    said: str = ""  # below the controls
    waits: bool = False  # it is still being made: the browser asks again


def asked(key: str) -> Asked | None:
    """What the component of this key has asked last."""
    found = st.session_state.get(key, {}).get("asked")
    if not isinstance(found, Mapping):
        return None
    turn, base = found.get("turn"), found.get("base")
    if not isinstance(turn, int) or not isinstance(base, str):
        return None
    settings = {name: found.get(name) for name in ("seed", "label", "guidance")}
    return Asked(turn, base, settings, found.get("rests") is True)


def show_immediate(
    answer: Answer,
    base: str,
    classes: Sequence[str],
    guidance: tuple[float, float, float] | None,
    *,
    seeds: int,
    file: str,
    key: str,
    on_ask: Callable[[], None],
) -> None:
    """`base` stands for all settings that are not moved here: the browser asks again where it has
    changed. `seeds`: of the slider, from 0. `guidance`: its lowest, highest and step; None: none
    can be chosen. `file`: the name of the download. `on_ask` is called before the page is run for
    what the browser asks."""
    low, high, step = guidance or (1.0, 1.0, 1.0)
    data = {
        "turn": answer.turn,
        "base": base,
        "settings": dict(answer.settings),
        "png": None if answer.png is None else base64.b64encode(answer.png).decode(),
        "alt": answer.alt,
        "said": answer.said,
        "waits": answer.waits,
        "classes": list(classes),
        "guidance": {"min": low, "max": high, "step": step} if guidance else None,
        "seeds": seeds,
        "file": file,
    }
    component(Path(__file__), HTML)(key=key, data=data, on_asked_change=on_ask)
