"""The views Statistics and Near duplicates of the Data page, which share one examination."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import streamlit as st

from dashboard.components.gallery.gallery import Row, show_gallery
from dashboard.explain.data_gallery import MOST_LABELS, SIDE, tile_of
from dashboard.explain.data_set import Shown
from dashboard.figures.data import aspect_figure, class_figure, colour_figure, size_figure
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.services.roles import may_operate
from dashboard.services.sampling_tasks import Load, OnStep, Task
from dashboard.ui.controls import Choice, Number
from dashboard.ui.images import show_image
from dashboard.ui.outside import plain
from dashboard.ui.progress import press, session_job, show_running
from diffusion_core.data import analysis
from diffusion_core.data.analysis import ALIKE, LEAST_ALIKE, Examined
from diffusion_core.sampling.spec import SamplingSpec

KEY = "examine"  # of the session's job
LIMIT = Choice(
    key="examine",
    label="Images to examine",
    options=(500, 2_000, 10_000),
    default=2_000,
    segmented=True,
    help="Evenly spaced in the set. Each is read at 64×64 px and compared with all others.",
)
FEWEST = LIMIT.now(options=(500, 2_000))  # for viewers
THRESHOLD = Number(
    key="alike",
    label="Correlation from which two images are near duplicates",
    low=LEAST_ALIKE,
    high=1.0,
    default=ALIKE,
    step=0.005,
    slider=True,
)
MOST_SHOWN = 24  # pairs
IMAGES_AN_EVALUATION = 10  # that are read in the time of a sampling network


def show_statistics(shown: Shown) -> None:
    _show_classes(shown)
    found = _examined(shown)
    if found is None:
        return
    left, right = st.columns(2)
    with left:
        st.subheader("Sizes")
        show(
            size_figure(found.sizes),
            "data-sizes",
            f"How many files have each width and height, {_range(found.sizes)}",
        )
    with right:
        st.subheader("Aspect ratios")
        show(
            aspect_figure(found.sizes),
            "data-aspects",
            "Histogram of width divided by height of the files",
        )
    st.subheader("Colours")
    means, stds = found.channel_mean, found.channel_std
    show(
        colour_figure(found.histogram),
        "data-colours",
        "Histogram of the values of red, green and blue over all pixels",
    )
    st.table(
        {
            "channel": ["red", "green", "blue"],
            "mean (0 to 255)": [f"{mean:.1f}" for mean in means],
            "std": [f"{std:.1f}" for std in stds],
            "mean (−1 to 1)": [f"{mean / 127.5 - 1:+.3f}".replace("-", "−") for mean in means],
            "std in it": [f"{std / 127.5:.3f}" for std in stds],
        },
        hide_index=True,
    )
    st.subheader("Mean and standard deviation of each pixel")
    with st.container(horizontal=True):
        mean = found.mean.round().astype(np.uint8)
        show_image(mean, "The mean of all images", 192, "mean")
        most = max(float(found.std.max()), 1e-9)
        std = (found.std / most * 255).round().astype(np.uint8)
        show_image(std, "The standard deviation", 192, f"std, white is {most:.0f} grey levels")


def show_duplicates(shown: Shown) -> None:
    found = _examined(shown)
    if found is None:
        return
    threshold = THRESHOLD.ask()
    n = len(found.rows)
    st.markdown(
        f"{n:,} of {shown.source.count:,} images were compared. **{len(found.copies):,}** have "
        f"the same pixels as an earlier one; of the others, **{found.pairs_above(threshold):,}** "
        f"pairs have thumbnails (32×32 px, in colour) that correlate at {threshold:.3f} or more. "
        "Brightness and contrast do not change the correlation."
    )
    pairs = [(*pair, "the same pixels") for pair in found.copies.tolist()]
    pairs += [
        (*pair, f"correlation {value:.3f}")
        for pair, value in zip(found.pairs.tolist(), found.correlations.tolist(), strict=True)
        if value >= threshold
    ]
    if not pairs:
        st.success("No two of them are near duplicates.")
        return
    rows = []
    for first, second, what in pairs[:MOST_SHOWN]:
        tiles = [tile_of(shown, row) for row in (first, second)]
        there = tuple(filter(None, tiles))
        rows.append(Row(there, SIDE, SIDE, 2, f"{first:,} and {second:,}", what))
    show_gallery(
        rows, "Pairs of images that are nearly the same", "data-pairs", beside=2 * SIDE + 8
    )
    if len(pairs) > MOST_SHOWN:
        st.caption(f"The {MOST_SHOWN} most similar pairs are shown.")


def _show_classes(shown: Shown) -> None:
    source = shown.source
    st.subheader("Classes")
    labels = cached.labels(shown.spec, MOST_LABELS)
    counts = np.bincount(labels[labels >= 0], minlength=len(source.classes))
    least, most = int(counts.min()), int(counts.max())
    some = f" of the first {len(labels):,} images" if len(labels) < source.count else ""
    if len(counts) == 1:
        st.write(f"One class: {plain(source.classes[0])}, {most:,} images{some}.")
        return
    st.write(
        f"{len(counts):,} classes{some}. The largest has {most:,} images, the smallest {least:,}."
    )
    show(
        class_figure(source.classes, counts),
        "data-classes",
        f"Images of each of {len(counts)} classes, from {least:,} to {most:,}",
    )


def _examined(shown: Shown) -> Examined | None:
    """What the examination found; before there is one, the button that starts it."""
    limit = (LIMIT if may_operate() else FEWEST).ask()
    images = cached.fingerprint(shown.spec, analysis.SIZE, 3, shown.config.resize)
    file = analysis.file_of(images, limit)
    found = analysis.load(file)
    if found is None:
        total = min(limit, shown.source.count)
        press(
            f"Examine {total:,} images",
            lambda: _task(shown, limit, total),
            KEY,
            icon=":material/query_stats:",
        )
        show_running()
        job = session_job(KEY)
        if job is not None and not job.active and job.snapshot().sentence:
            st.error(plain(job.snapshot().sentence))
        return None
    n, count = len(found.rows), shown.source.count
    part = "All" if n == count else f"{n:,} of"
    broken = f" {len(found.broken):,} could not be read." if len(found.broken) else ""
    st.caption(f"{part} {count:,} images, read at 64×64 px ({shown.config.resize}).{broken}")
    return found


def _task(shown: Shown, limit: int, total: int) -> Task:
    spec, resize = shown.spec, shown.config.resize

    def work(load: Load, on_step: OnStep) -> Generator[int, None, None]:
        yield from analysis.examine(spec, limit, resize)

    return Task(
        SamplingSpec(run="data", step=0),
        f"Statistics of {total:,} images",
        total,
        -(-total // IMAGES_AN_EVALUATION),
        ("examine", 1),
        work,
    )


def _range(sizes: np.ndarray) -> str:
    low, high = sizes.min(0), sizes.max(0)
    return f"{low[0]:,}×{low[1]:,} to {high[0]:,}×{high[1]:,} px"
