"""Below generated images: how they formed from noise."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.components.flipbook.flipbook import Book, Histogram, Sent, show_flipbook
from dashboard.figures.sampling import change_figure, noise_figure
from dashboard.figures.theme import show
from dashboard.sampling.film_files import offer_film
from dashboard.services.sampling_tasks import GeneratedImages
from dashboard.ui.controls import Choice, Number
from dashboard.ui.images import offer_png, show_image
from dashboard.ui.outside import plain
from diffusion_core.media.images import grid, png, strip
from diffusion_core.sampling.metadata import Kind, entries
from diffusion_core.sampling.spec import SamplingSpec
from diffusion_core.sampling.trajectory import EDGES, Trajectory

LOOKS = 10  # images in the strip, as in the lecture
X_T, X_0, BOTH = "noisy x_t", "predicted x_0", "both"
ONE, ALL = "one", "all"
# Also of a series.
IMAGE = Number(key="picture", label="Image", low=1, high=1, default=1)
FILM_OF = Choice(
    key="trajectory-of", label="Film of", options=(ONE, ALL), segmented=True, bind=False
)


def show_trajectory(spec: SamplingSpec, made: GeneratedImages) -> int:
    """The chosen image from the noise on; returns its number, from 1."""
    walk = made.trajectory
    kept = walk.x_t.shape[1]
    st.subheader("From noise to image")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = pick_image(spec)
        image = made.images[number - 1]
        single = png(image, text=entries(spec, number - 1))
        offer_png("This image as PNG", single, file_name(spec, f"image-{number}") + ".png")
    if number > kept:
        show_image(
            image, f"Image {number}, enlarged", 256, f"Image {plain(image_name(spec, number))}"
        )
        first = "the first image" if kept == 1 else f"the first {kept} images"
        st.caption(f"The steps are kept for {first} only; choose one of these to see them.")
    else:
        st.markdown(
            r"Drag the slider from noise to image: $x_t$ is the sampler's image after the step "
            r"that starts at $t$, $\hat x_0$ the clean image that the network predicts there."
        )
        sent = show_flipbook(
            walk, lambda: book_of(spec, walk), "trajectory", number, on_pick=remember
        )
        st.caption(sent_text(spec, walk, sent))
        show_lecture_strip(spec, walk, number - 1)
        offer_trajectory(spec, walk, number)
    numbers = st.expander(
        "Steps in numbers", icon=":material/show_chart:", key="numbers", on_change="rerun"
    )
    if numbers.open:
        with numbers:
            show_numbers(walk)
    return number


def pick_image(spec: SamplingSpec) -> int:
    if spec.n == 1:
        return 1
    return int(IMAGE.now(high=spec.n).ask(width=160))


def remember(number: int) -> None:
    """The choice in the flipbook holds for the whole page."""
    st.session_state[IMAGE.key] = number


def image_name(spec: SamplingSpec, number: int) -> str:
    """The number with the class, if it has one."""
    name = spec.class_of(number - 1)
    return f"{number}{f', {name}' if name else ''}"


def file_name(spec: SamplingSpec, what: str) -> str:
    return f"{spec.run}-step-{spec.step}-seed-{spec.seed}-{what}"


def book_of(spec: SamplingSpec, walk: Trajectory) -> Book:
    total = len(walk.timesteps)
    numbers = range(1, walk.x_t.shape[1] + 1)
    return Book(
        {X_T: walk.x_t, X_0: walk.x_0},
        [f"step {k + 1:,} of {total:,}, t = {walk.timesteps[k]:.4g}" for k in walk.kept],
        [image_name(spec, number) for number in numbers],
        {
            "change of x_t": walk.change_x_t[walk.kept],
            "change of the predicted x_0": walk.change_x_0[walk.kept],
            "size of the predicted noise": walk.epsilon[walk.kept],
        },
        Histogram("Predicted noise and N(0,\N{NO-BREAK SPACE}1)", EDGES, walk.counts),
    )


def sent_text(spec: SamplingSpec, walk: Trajectory, sent: Sent) -> str:
    total = len(walk.timesteps)
    first, last = sent.first + 1, sent.first + sent.images
    which = f"Image {first}" if first == last else f"Images {first} to {last}"
    if (first, last) == (1, spec.n):
        which = "The image" if spec.n == 1 else f"All {spec.n} images"
    elif spec.n > 1:
        which += f" of {spec.n}"
    steps = "every step" if sent.frames == total else f"{sent.frames} of {total:,} steps"
    return (
        f"{which}, {steps}, {sent.bytes / 1e6:.1f} MB. Changes and sizes are root mean squares "
        "over an image's values; noise from N(0, 1) has size 1."
    )


def show_lecture_strip(spec: SamplingSpec, walk: Trajectory, k: int) -> None:
    """Ten steps of an image, the finished one on the left, as the lecture shows them."""
    looks = walk.evenly(LOOKS)[::-1]
    whole = strip([walk.x_t[look, k] for look in looks])
    name = f"Image {k + 1}" if spec.n > 1 else "The image"
    timesteps = [f"{walk.timesteps[walk.kept[look]]:.4g}" for look in looks]
    caption = (
        f"{name} on the left, its noise on the right, as in the lecture: x_t after the steps from "
        f"t = {', '.join(timesteps)}."
    )
    show_image(whole, f"{name} from noise", 72 * len(looks), caption, stretch=True)
    text = entries(spec, k, kind=Kind.STRIP)
    offer_png(
        "This strip as PNG", png(whole, text=text), file_name(spec, f"strip-{k + 1}") + ".png"
    )


def offer_trajectory(spec: SamplingSpec, walk: Trajectory, number: int) -> None:
    """As a film of the image or of all that are kept."""
    kept, side = walk.x_t.shape[1:3]
    titles = {ONE: f"image {number}", ALL: "all images" if kept == spec.n else f"the first {kept}"}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of = FILM_OF.now(titles=titles).ask() if kept > 1 else ONE
        what = st.segmented_control("Content", [X_T, X_0, BOTH], default=X_T, required=True)
        k = number - 1 if of == ONE else None
        offer_film(
            lambda: film_of(walk, k, what, spec.columns()),
            file_name(spec, f"image-{number}" if of == ONE else "all-images"),
            entries(spec, k, kind=Kind.FILM),
            side,
            key="trajectory",
        )


def film_of(walk: Trajectory, k: int | None, shown: str, columns: int | None) -> np.ndarray:
    """Frames of image k, or of a grid of all (None): of x_t, of x_0 or of both side by side."""
    parts = [walk.x_t] * (shown != X_0) + [walk.x_0] * (shown != X_T)
    if k is not None:
        films = [part[:, k] for part in parts]
    else:
        films = [np.stack([grid(frame, columns) for frame in part]) for part in parts]
    return np.concatenate(films, axis=2)


def show_numbers(walk: Trajectory) -> None:
    left, right = st.columns(2)
    with left:
        alt = "The change of x_t and of the predicted x_0 in each step"
        show(change_figure(walk), "changes", alt)
    with right:
        show(noise_figure(walk), "noise", "The size of the predicted noise in each step")
    st.caption(
        "Lines are means over the images; dotted lines are the minimum and the maximum. Where the "
        "predicted image hardly changes any more, most of it is decided."
    )
