"""An image of the visitor's own, from a file or the camera."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.services import budgets, cached, roles, uploads
from dashboard.services.budgets import OverBudget
from dashboard.services.settings import get_settings
from dashboard.services.visitors import visitor
from dashboard.ui import keys
from dashboard.ui.controls import Choice
from dashboard.ui.older_names import update_address
from diffusion_core.data import decode
from diffusion_core.data.decode import ImageError

FIT = Choice(
    key="fit",
    label="Resize to a square",
    options=decode.FITS,
    default=decode.CROP,
    segmented=True,
    help="crop: the central square. pad: the whole image, with white borders. squash: the whole "
    "image with another aspect ratio, as in the lecture.",
)
RESIZED = {decode.CROP: "cropped", decode.PAD: "padded", decode.SQUASH: "squashed"}


def pick_own(source: str, size: int, what_for: str) -> tuple[np.ndarray | None, str]:
    """An image, uint8 (size, size, 3), and a text about it; before a choice None and a hint.

    `source`: `camera` or `upload`; `what_for` ends the hint: "to …". Raises ImageError.
    """
    update_address()
    settings = get_settings()
    if source == "camera":
        file = st.camera_input("Camera", key=keys.CAMERA)
        waiting = f"Allow the camera and take an image {what_for}."
    else:
        limit = settings.upload_mb(roles.may_operate())
        file = st.file_uploader("Image file", key=keys.UPLOAD, max_upload_size=limit)
        waiting = f"Choose an image file, or drop it on the field, {what_for}."
        if file is not None and file.size > limit * 2**20:
            raise ImageError(f"The file is larger than {limit} MB. Make it smaller and try again.")
    fit = FIT.ask()
    st.caption("Your image is kept in this session only. Links do not contain it.")
    if sentence := budgets.uploads_sentence(visitor(), settings):
        st.caption(sentence)
    if file is None:
        return None, waiting
    uploads.keep(file.file_id)
    try:
        image, (width, height) = cached.uploaded_image(file.file_id, size, fit, file.getvalue())
    except OverBudget as error:
        raise ImageError(str(error)) from error
    resized = f"resized from {width:,}×{height:,}"
    return image, f"{resized}, {RESIZED[fit]} to a square" if width != height else resized
