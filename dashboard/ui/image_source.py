"""A picture of the visitor's own, from a file or the camera, for any page that wants one."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.services import cached
from dashboard.services.settings import get_settings
from diffusion_core.data.decode import PictureError


def pick_own(source: str, size: int, what_for: str) -> tuple[np.ndarray | None, str]:
    """A picture, uint8 (size, size, 3), and what it is; None, and what to do, until there is one.

    `source`: `camera` or `upload`; `what_for` ends the sentence that asks for it. Raises
    PictureError.
    """
    if source == "camera":
        file = st.camera_input("Take a picture", key="camera")
        waiting = f"Allow the camera and take a picture; {what_for}."
    else:
        limit = get_settings().max_upload_mb
        file = st.file_uploader("Picture file", key="upload", max_upload_size=limit)
        waiting = f"Choose a picture file, or drop it on the field; {what_for}."
        if file is not None and file.size > limit * 2**20:
            raise PictureError(f"The file has more than {limit} MB. Make it smaller and try again.")
    st.caption("Your picture stays in this session; a link to this page does not carry it.")
    if file is None:
        return None, waiting
    picture, (width, height) = cached.uploaded_picture(file.file_id, size, file.getvalue())
    resized = f"resized from {width:,}×{height:,}"
    return picture, f"{resized}, the aspect not kept" if width != height else resized
