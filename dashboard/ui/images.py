"""Pictures as the pages show them: crisp pixels, in rows that wrap on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from diffusion_core.data.decode import PictureError, open_picture
from diffusion_core.media.images import png

WIDTH = 128  # screen pixels of a picture in a row
MOST_WIDE = 1460  # pixels; Streamlit would blur what is wider to fit


def read_strip(path: Path, rows: int = 1) -> list[np.ndarray]:
    """The columns of a strip that has so many rows of square pictures, uint8 (rows H, H, 3) each.

    Raises PictureError, also where there is none.
    """
    strip = np.asarray(open_picture(path))
    side = strip.shape[0] // rows
    if not 0 < side <= strip.shape[1]:
        raise PictureError(f"{path.name} does not hold one whole picture.")
    return [strip[:, x : x + side] for x in range(0, strip.shape[1] - side + 1, side)]


def show_picture(
    picture: np.ndarray, alt: str, width: int, caption: str | None = None, *, stretch: bool = False
) -> None:
    """A picture uint8 (H, W, 3), `width` screen pixels wide, or with `stretch` about that and as
    wide as the place; its pixels stay sharp on a screen of twice the density."""
    enlarge = max(1, min(round(2 * width / picture.shape[1]), MOST_WIDE // picture.shape[1]))
    st.image(
        png(picture, enlarge),
        caption=caption,
        width="stretch" if stretch else width,
        output_format="PNG",  # else Streamlit makes a JPEG of it
        alt=alt,
    )


def show_row(
    pictures: Sequence[np.ndarray],
    alt: str,
    width: int = WIDTH,
    captions: Sequence[str] | None = None,
) -> None:
    """Pictures uint8 (H, W, 3) beside each other, each `width` wide, wrapping where they must.

    `alt` with "picture 1" and so on describes each, and its caption stands below it.
    """
    with st.container(horizontal=True, gap="xsmall"):
        for k, picture in enumerate(pictures):
            show_picture(
                picture, f"{alt}, picture {k + 1}", width, captions[k] if captions else None
            )


def offer_png(label: str, data: bytes, file_name: str) -> None:
    """A button that downloads a PNG."""
    st.download_button(
        label,
        data,
        file_name=file_name,
        mime="image/png",
        on_click="ignore",
        icon=":material/download:",
    )
