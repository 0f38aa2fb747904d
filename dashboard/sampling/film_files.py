"""A film to keep: the visitor chooses the kind of file, which is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import streamlit as st

from diffusion_core.media.animation import animate

# By what people call them: the format, the end of the file's name, and what browsers call it.
KINDS = {
    "WebP": ("webp", "webp", "image/webp"),
    "GIF": ("gif", "gif", "image/gif"),
    "MP4": ("mp4", "mp4", "video/mp4"),
    "moving PNG": ("png", "png", "image/png"),
}
SIDE = 768  # pixels that a film's longer side has at the most, unless it is larger by itself
IMAGE = 256  # and one image of it


def offer_film(
    make: Callable[[], np.ndarray], name: str, text: Mapping[str, str], side: int, key: str
) -> None:
    """A choice of formats and a button. `make` gives the frames uint8 (k, H, W, C), in which an
    image is `side` pixels high; `name`: of the file, without its end; `text`: see `animate`."""
    kind = st.segmented_control(
        "Kind of file", list(KINDS), default="WebP", required=True, key=f"{key}-kind"
    )
    format, end, mime = KINDS[kind]

    def film() -> bytes:
        frames = make()
        enlarge = max(1, min(IMAGE // side, SIDE // max(frames.shape[1:3])))
        return animate(frames, format, enlarge=enlarge, text=text)

    st.download_button(
        f"Film as {kind}",
        film,
        file_name=f"{name}.{end}",
        mime=mime,
        on_click="ignore",
        icon=":material/download:",
        key=f"{key}-download",
        help="WebP and PNG keep every value of every pixel, GIF has 256 colours, MP4 is the "
        "smallest and plays everywhere.",
    )
