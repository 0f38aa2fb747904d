"""Frames of one or several images under one slider, for example x_t and the predicted x_0.

All frames go to the browser once, as sheets in lossless WebP; slider, player and the choice of the
image live there and ask the server for nothing.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import streamlit as st
from PIL import Image

from dashboard.components.assemble import component
from dashboard.components.player.player import controls
from diffusion_core.media.images import grid
from diffusion_core.sampling.trajectory import spread

MOST_BYTES = 5_000_000  # of the pixels that are sent; noise hardly becomes smaller as WebP
WHICH = '<label class="choice">Image <select class="which"></select></label>'
HTML = f"""
<div class="flipbook">
  <div class="screen">
    <div class="rows"></div>
    <div class="beside">
      <dl></dl>
      <figure class="histogram">
        <figcaption></figcaption>
        <svg viewBox="0 0 64 40" preserveAspectRatio="none" role="img">
          <path class="bars"/><path class="curve"/>
        </svg>
        <div class="axis" aria-hidden="true"><span></span><span>0</span><span></span></div>
      </figure>
    </div>
  </div>
{controls("Frame of the film", WHICH)}
</div>
"""


@dataclass(frozen=True)
class Histogram:
    """A count of values for each frame and image, seen as a density against N(0, 1)."""

    title: str
    edges: np.ndarray  # (bins + 1,), evenly spaced around 0
    counts: np.ndarray  # (k, m, bins)


@dataclass(frozen=True)
class Book:
    """k frames of m square images in one or several rows."""

    rows: Mapping[str, np.ndarray]  # by what a row shows: uint8 (k, m, H, H, C)
    captions: Sequence[str]  # of each frame
    names: Sequence[str]  # of each image
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)  # by their names: (k, m)
    histogram: Histogram | None = None
    # Of each frame, rising: the nearest to the page's timestep is shown, and turning to another
    # frame moves the timestep.
    timesteps: Sequence[int] = ()
    plays: bool = False  # by itself, once it is shown; not where less motion is wanted


@dataclass(frozen=True)
class Sent:
    """What the browser was told: `data`, and how much of the book that is."""

    data: dict[str, Any]
    first: int  # of the images, from 0
    images: int
    frames: int
    bytes: int  # of the sheets


def show_flipbook(
    source: object,
    make: Callable[[], Book],
    key: str,
    image: int = 1,
    on_pick: Callable[[int], None] | None = None,
) -> Sent:
    """The book of `source`, made and encoded once as long as that lives and the image is of those
    sent.

    `image`: the one to show first, from 1. `on_pick` is told when the visitor has chosen another
    of those sent.
    """

    def picked() -> None:
        chosen = st.session_state[key].get("image")
        if on_pick is not None and isinstance(chosen, int):
            on_pick(chosen)

    with _lock:
        sent = _sent.get(source)
        if sent is None or not sent.first < image <= sent.first + sent.images:
            sent = _sent[source] = pack(make(), image - 1)
    data = sent.data | {"film": f"{id(source):x}", "image": image}
    component(Path(__file__), HTML)(key=key, data=data, on_image_change=picked)
    return sent


def pack(book: Book, image: int = 0) -> Sent:
    """As many images as MOST_BYTES hold, `image` (from 0) among them; of a large one that
    does not fit alone fewer frames, evenly spread."""
    shape = next(iter(book.rows.values())).shape
    total, side = shape[0], shape[2]
    one = len(book.rows) * int(np.prod(shape[2:]))
    kept = spread(total, max(2, MOST_BYTES // one))
    together = max(1, MOST_BYTES // (len(kept) * one))
    first = image // together * together
    chosen = range(first, min(first + together, shape[1]))
    columns = int(np.ceil(len(kept) ** 0.5))
    sheets = [[sheet(frames[kept, k], columns) for frames in book.rows.values()] for k in chosen]
    data: dict[str, Any] = {
        "side": side,
        "columns": columns,
        "rows": list(book.rows),
        "plays": book.plays,
        "captions": [book.captions[k] for k in kept],
        "timesteps": [book.timesteps[k] for k in kept] if book.timesteps else [],
        "first": first,
        "names": [book.names[k] for k in chosen],
        "sheets": [[_address(row) for row in rows] for rows in sheets],
        "numbers": {
            name: [_plain(values[k, chosen]) for k in kept] for name, values in book.numbers.items()
        },
    }
    if book.histogram is not None:
        edges, counts = book.histogram.edges, book.histogram.counts[kept][:, chosen]
        density = counts / counts.sum(axis=-1, keepdims=True).clip(1) / np.diff(edges)
        data["histogram"] = {
            "title": book.histogram.title,
            "edge": float(edges[-1]),
            "density": [[_plain(one) for one in frame] for frame in density],
        }
    size = sum(len(row) for rows in sheets for row in rows)
    return Sent(data, first, len(chosen), len(kept), size)


def sheet(frames: np.ndarray, columns: int) -> bytes:
    """Frames uint8 (k, H, W, C) in rows of `columns`, row by row, as lossless WebP."""
    whole = grid(frames, columns)
    buffer = io.BytesIO()
    image = Image.fromarray(whole.squeeze(-1) if whole.shape[-1] == 1 else whole).convert("RGB")
    # Of little effort; more would not make it much smaller.
    image.save(buffer, format="WEBP", lossless=True, quality=30, method=2)
    return buffer.getvalue()


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _plain(values: np.ndarray) -> list[float | None]:
    """With four digits; None for what is no number, which JSON does not have."""
    return [float(f"{x:.4g}") if np.isfinite(x) else None for x in values.tolist()]


_sent: WeakKeyDictionary[Any, Sent] = WeakKeyDictionary()
_lock = threading.Lock()
