"""Images as the pages show them: crisp pixels, in rows that wrap on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from diffusion_core.data.decode import ImageError, open_image
from diffusion_core.media.images import png

WIDTH = 128  # screen pixels of an image in a row
MOST_WIDE = 1460  # pixels; Streamlit blurs wider images to fit


def read_strip(path: Path, rows: int = 1) -> list[np.ndarray]:
    """The columns of a strip with so many rows of square images, uint8 (rows H, H, 3) each.

    Raises ImageError, also if there is no such file.
    """
    strip = np.asarray(open_image(path))
    side = strip.shape[0] // rows
    if not 0 < side <= strip.shape[1]:
        raise ImageError(f"{path.name} does not hold one whole image.")
    return [strip[:, x : x + side] for x in range(0, strip.shape[1] - side + 1, side)]


def show_image(
    image: np.ndarray, alt: str, width: int, caption: str | None = None, *, stretch: bool = False
) -> None:
    """An image uint8 (H, W, 3), `width` screen pixels wide, or with `stretch` as wide as the
    container; its pixels stay sharp on a screen of twice the density."""
    enlarge = max(1, min(round(2 * width / image.shape[1]), MOST_WIDE // image.shape[1]))
    st.image(
        png(image, enlarge),
        caption=caption,
        width="stretch" if stretch else width,
        output_format="PNG",  # by default Streamlit sends a JPEG
        alt=alt,
    )


def show_row(
    images: Iterable[np.ndarray],
    alt: str,
    width: int = WIDTH,
    captions: Sequence[str] | None = None,
) -> None:
    """Images uint8 (H, W, 3) side by side, each `width` wide, wrapping as needed.

    `alt` with the number of the image describes each; its caption is below it.
    """
    with st.container(horizontal=True, gap="xsmall"):
        for k, image in enumerate(images):
            show_image(image, f"{alt}, image {k + 1}", width, captions[k] if captions else None)


def offer_png(label: str, data: bytes, file_name: str, *, stretch: bool = False) -> None:
    """A button that downloads a PNG, with `stretch` as wide as the container."""
    st.download_button(
        label,
        data,
        file_name=file_name,
        mime="image/png",
        on_click="ignore",
        icon=":material/download:",
        width="stretch" if stretch else "content",
    )
