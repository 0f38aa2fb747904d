"""The view Reading of the Data page: what a run gets of the images."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.explain.data_gallery import reduced, show_images
from dashboard.explain.data_set import Shown
from dashboard.ui.controls import Choice, Number, Toggle, whole_bounds
from dashboard.ui.images import show_image
from dashboard.ui.outside import plain
from diffusion_core.data.decode import CROP, PAD, SQUASH, ImageError, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.split import batches_per_epoch, split
from diffusion_core.data.store import to_grey
from diffusion_core.runs.config import RunConfig, meaning

WAYS = {
    SQUASH: "all of it, with another aspect ratio, as in the lecture",
    CROP: "its central square",
    PAD: "all of it, with white borders",
}
SIZE = Choice(key="size", label="Image size (px)", options=(16, 32, 64, 128, 256), segmented=True)
FLIP = Toggle(key="flip", label="Flipped", help=meaning("random_flip"))
INDEX = Number(key="picture", label="Image number", step=1, default=0)
BATCH, HELD_OUT, SEED = (
    Number(
        key=key,
        label=label,
        low=whole_bounds(RunConfig, field)[0],
        high=whole_bounds(RunConfig, field)[1],
        step=step,
        field=field,
        help=meaning(field),
        bind=True,
    )
    for key, label, field, step in (
        ("batch", "Batch size", "batch_size", 8),
        ("held_out", "Images to hold out", "validation_count", 16),
        ("seed", "Seed", "seed", 1),
    )
)
WIDTH = 168  # screen pixels of an image; two fit beside each other on a phone
MOST_HELD_OUT = 40  # images that are shown


def show_reading(shown: Shown) -> None:
    st.subheader("Resized to a square")
    _show_ways(shown)
    st.subheader("Held out, and in batches")
    _show_batches(shown)


def _show_ways(shown: Shown) -> None:
    config = shown.config
    with st.container(horizontal=True, vertical_alignment="bottom"):
        index = INDEX.now(high=shown.source.count - 1).ask(width=160)
        sizes = tuple(sorted({*SIZE.options, config.image_size}))
        size = SIZE.now(options=sizes, default=config.image_size).ask(width="content")
        flip = FLIP.ask(width="content")
    try:
        image, label = shown.source.read(index)
    except ImageError as error:
        st.error(plain(error))
        return
    whole = reduced(image, 2 * WIDTH)
    name = plain(f"Image {index:,}, {shown.source.classes[label]}")
    shown_images = [
        (np.asarray(whole), "file", f"**The file**, {image.width:,}×{image.height:,} px")
    ]
    for way, what in WAYS.items():
        pixels = to_size(image, size, way)
        if config.channels == 1:
            grey = to_grey(pixels.transpose(2, 0, 1)[None])[0, 0]
            pixels = np.repeat(grey[..., None], 3, axis=2)
        if flip:
            pixels = pixels[:, ::-1]
        used = " (used here)" if way == config.resize else ""
        shown_images.append((np.ascontiguousarray(pixels), way, f"**{way}**{used}: {what}"))
    with st.container(horizontal=True, gap="small"):
        for pixels, alt, caption in shown_images:
            show_image(pixels, alt, WIDTH, caption)
    flips = (
        "Each time that an image is shown in training, it is flipped with a chance of one half."
        if config.random_flip
        else "No image is flipped."
    )
    grey = " All are made grey." if config.channels == 1 else ""
    square = " It is square, so that all three are the same." if image.width == image.height else ""
    st.caption(f"{name}.{square} `resize` is a setting of a run. {flips}{grey}")


def _show_batches(shown: Shown) -> None:
    config, count = shown.config, shown.source.count
    with st.container(horizontal=True, vertical_alignment="bottom"):
        batch = BATCH.now(default=config.batch_size).ask(width=160)
        wanted = HELD_OUT.now(default=config.validation_count).ask(width=180)
        seed = SEED.now(default=config.seed, high=2**31 - 1).ask(width=160)
    try:
        trained, held_out = split(count, wanted, batch, seed, shown.spec)
    except DataError as error:
        st.warning(plain(error))
        return
    batches = batches_per_epoch(len(trained), batch)
    dropped = len(trained) - batches * batch
    columns = st.columns(4)
    share = len(held_out) / count
    columns[0].metric("Trained on", f"{len(trained):,}")
    columns[1].metric("Held out", f"{len(held_out):,} ({share:.1%})")
    columns[2].metric("Batches per epoch", f"{batches:,}")
    columns[3].metric("Dropped per epoch", f"{dropped:,}")
    st.latex(
        rf"\left\lfloor \frac{{{len(trained)}}}{{{batch}}} \right\rfloor = {batches}, \qquad "
        rf"{len(trained)} - {batches} \cdot {batch} = {dropped}"
    )
    st.caption(
        "At most a tenth is held out. Every epoch has a new order, and its last, incomplete batch "
        f"is dropped: each time other images. {config.steps:,} steps are "
        f"{config.steps / batches:,.1f} epochs."
    )
    if len(held_out):
        with st.expander(f"Which images are held out ({len(held_out):,})"):
            st.caption(f"Chosen with seed {seed}. The first {min(MOST_HELD_OUT, len(held_out))}:")
            show_images(shown, held_out[:MOST_HELD_OUT].tolist(), "data-held-out")
