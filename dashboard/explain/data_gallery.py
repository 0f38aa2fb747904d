"""The view Gallery of the Data page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st
from PIL import Image

from dashboard.components.gallery.gallery import Row, Tile, address_of, show_gallery
from dashboard.explain.data_set import Shown
from dashboard.services import cached
from dashboard.ui.controls import Choice, Number
from dashboard.ui.images import MOST_WIDE
from dashboard.ui.outside import plain, readable
from diffusion_core.data.decode import ImageError
from diffusion_core.media.images import png

PER_PAGE = 40
SIDE = 96  # pixels of an image in the gallery
THINNEST = 4  # pixels
MOST_LABELS = 100_000  # images whose class is looked up
ALL = "all classes"
CLASS = Choice(key="class", label="Class", options=(ALL,), default=ALL)
PAGE = Number(key="sheet", label="Page", low=1, high=1, default=1, step=1)


def show_gallery_view(shown: Shown) -> None:
    left, right = st.columns(2)
    with left:
        rows = _pick_rows(shown)
    pages = max(1, -(-len(rows) // PER_PAGE))
    with right:
        page = PAGE.now(high=pages).ask(disabled=pages == 1)
    here = rows[(page - 1) * PER_PAGE : page * PER_PAGE]
    show_images(shown, here, "data-gallery")
    st.caption(f"Page {page:,} of {pages:,}, {len(rows):,} images, each whole.")


def _pick_rows(shown: Shown) -> Sequence[int]:
    """The numbers of the images to show."""
    source = shown.source
    if len(source.classes) < 2:
        return range(source.count)
    name = CLASS.now(options=(ALL, *source.classes)).ask()
    if name == ALL:
        return range(source.count)
    labels = cached.labels(shown.spec, MOST_LABELS)
    if len(labels) < source.count:
        st.caption(f"Of the first {len(labels):,} images.")
    return np.flatnonzero(labels == source.classes.index(name)).tolist()


def show_images(shown: Shown, rows: Sequence[int], key: str) -> None:
    """The gallery of these images."""
    tiles: dict[int, Tile] = {}
    with st.spinner("Reading the images …"):
        for row in rows:
            if (tile := tile_of(shown, row)) is not None:
                tiles[row] = tile
    if not tiles:
        st.info("None of these images can be read." if len(rows) else "There are no such images.")
        return
    there = list(tiles)
    show_gallery(
        [Row(tuple(tiles.values()), SIDE, SIDE)],
        "Images of the data set",
        key,
        on_original=lambda number: show_original(shown, there[number]),
    )
    if broken := len(rows) - len(tiles):
        st.caption(f"{broken:,} more cannot be read and are left out.")


def tile_of(shown: Shown, row: int) -> Tile | None:
    """An image as the gallery has it; None where it cannot be read."""
    try:
        file, name, (width, height) = cached.tile(shown.spec, row, SIDE)
    except ImageError:
        return None
    text = f"image {row:,}, {readable(name)}, {width:,}×{height:,} px"
    return Tile(address_of(file), text, f"image-{row}.png")


def reduced(image: Image.Image, most: int) -> Image.Image:
    """With at most so many pixels a side, and at least a few: Streamlit fails on a thinner line."""
    scale = min(1, most / max(image.size))
    width, height = (max(THINNEST, round(scale * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


@st.dialog("Full size", width="large")
def show_original(shown: Shown, row: int) -> None:
    try:
        image, label = shown.source.read(row)
    except ImageError as error:
        st.error(plain(error))
        return
    width, height = image.size
    image = reduced(image, MOST_WIDE)
    name = plain(f"Image {row:,}, {shown.source.classes[label]}, {width:,}×{height:,} px.")
    smaller = f" Shown at {image.width:,}×{image.height:,} px." if image.width < width else ""
    st.image(png(np.asarray(image)), caption=f"{name}{smaller}", output_format="PNG")
    if (file := shown.source.name(row)) != f"image {row}":
        st.caption(plain(f"File: {file}"))
