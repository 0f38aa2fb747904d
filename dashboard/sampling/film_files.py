"""The download of a film: the visitor chooses the format; the file is made on the click."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import streamlit as st

from diffusion_core.media.animation import MEDIA_TYPES, animate

# By title: the format, which is also how the file's name ends.
FORMATS = {"WebP": "webp", "GIF": "gif", "MP4": "mp4", "animated PNG": "png"}
SIDE = 768  # pixels to which a film's longer side is enlarged at most
IMAGE = 256  # and one of its images


def offer_film(
    make: Callable[[], np.ndarray], name: str, text: Mapping[str, str], side: int, key: str
) -> None:
    """A choice of formats and a button.

    `make` gives the frames uint8 (k, H, W, C), in which an image is `side` pixels high. `name`: of
    the file, without the extension. `text`: see `animate`.
    """
    title = st.segmented_control(
        "Format", list(FORMATS), default="WebP", required=True, key=f"{key}-format"
    )
    format = FORMATS[title]

    def film() -> bytes:
        frames = make()
        enlarge = max(1, min(IMAGE // side, SIDE // max(frames.shape[1:3])))
        return animate(frames, format, enlarge=enlarge, text=text)

    st.download_button(
        f"Film as {title}",
        film,
        file_name=f"{name}.{format}",
        mime=MEDIA_TYPES[f".{format}"],
        on_click="ignore",
        icon=":material/download:",
        key=f"{key}-download",
        help="WebP and PNG are lossless, GIF has 256 colours, MP4 is small and plays everywhere.",
    )
