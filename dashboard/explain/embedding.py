"""The Embedding page: the rows of the formula, and what their size and their base change."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import streamlit as st

from dashboard.components.chart.chart import Packed, pack, show_packed
from dashboard.components.sinusoids.sinusoids import show_row
from dashboard.figures import embedding as figures
from dashboard.ui import pickers
from dashboard.ui.controls import Choice, Number
from diffusion_core.process.sinusoids import (
    BASE,
    check_size,
    cosine_similarity,
    similarity_at,
    sinusoids,
    spread_timesteps,
)

# What a screen can show of a heatmap; more would only make the page slow.
MOST_ROWS, MOST_DIMENSIONS = 300, 256
MOST_NUMBERS = 2**17
MOST_COMPARED = 250
FORMULA, EFFECT, MLP, BLOCKS, TRAINING = VIEWS = (
    "Formula",
    "Size and base",
    "Time MLP",
    "Blocks",
    "Over training",
)
VIEW = Choice(key="view", label="View", options=VIEWS, default=FORMULA, segmented=True)
SIZE = Number(
    key="size",
    label="Embedding size",
    low=4,
    high=1024,
    default=32,
    step=2,
    help="An even number; 32 in the lecture's network.",
)
BASE_CONTROL = Number(
    key="base",
    label="Base",
    low=2,
    high=1_000_000,
    default=int(BASE),
    step=1000,
    help="The slowest frequency is 1 / base. 10,000 in the lecture and in every network here.",
)
SIZES, BASES = (8, 32, 128, 512), (10, 100, 1_000, 10_000, 100_000)
ALL_BASES = np.geomspace(2, 1_000_000, 21).round()
MOST_DISTANCES = 120  # of a figure


def pick_embedding() -> tuple[int, int, int]:
    """A size, a base and T; an odd size is an error and stops the page."""
    with st.container(horizontal=True):
        values = list[int]()
        for control in (SIZE, BASE_CONTROL, pickers.TIMESTEPS):
            with st.container(width=165):
                values.append(control.ask())
    size, base, timesteps = values
    try:
        check_size(size)
    except ValueError:
        st.error(f"The embedding size must be even, half sines and half cosines. {size} is odd.")
        st.stop()
    return size, base, timesteps


def show_formula() -> None:
    """The formula, all its rows, how similar they are, and one of them."""
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        size, base, timesteps = pick_embedding()
    right.latex(
        r"\begin{gathered}\big[\,\sin(t f_i)\ \dots,\ \cos(t f_i)\ \dots\,\big]\\[4pt]"
        r"f_i = \text{base}^{-i/(h-1)}, \quad h = \text{size}/2\end{gathered}"
    )
    pickers.pick_timestep(timesteps, default=30)
    rows, similarity = _formula_charts(size, base, timesteps)
    show_pair(rows, similarity, "sinusoidal")
    st.caption(
        r"Similarity is the cosine of the angle between two rows, here $\frac{1}{h}\sum_i "
        r"\cos((t-s) f_i)$: it depends on the distance $t-s$ alone, so each diagonal is even."
    )
    st.markdown("**The row of t**")
    show_row(size, base, "row")
    with st.expander("Why sines and cosines?"):
        st.markdown(
            f"The frequencies fall from $1$ (one turn in 6.3 steps) to $1/{base}$ (one turn in "
            f"{2 * np.pi * base:,.0f} steps). The fast ones tell neighbours apart but repeat; the "
            "slow ones tell early from late but hardly change between neighbours. With a sine and "
            "a cosine of each frequency, going from $t$ to $t+k$ is the same rotation for every "
            "$t$, which a linear layer can learn."
        )


def show_pair(rows: Packed, similarity: Packed, name: str) -> None:
    """The heatmaps of all rows of an embedding; `name` says of what kind it is."""
    left, right = st.columns(2)
    with left:
        st.markdown("**Embedding of every timestep**")
        alt = f"Heatmap of the {name} embedding over t and dimension."
        show_packed(rows, f"{name}-rows", alt, cursor="y")
    with right:
        st.markdown("**Similarity between timesteps**")
        alt = f"Heatmap of the similarity of {name} embeddings."
        show_packed(similarity, f"{name}-similarity", alt, cursor="xy")


@lru_cache(maxsize=8)
def _formula_charts(size: int, base: int, timesteps: int) -> tuple[Packed, Packed]:
    steps = spread_timesteps(timesteps, MOST_ROWS)
    some = np.arange(0, size, -(-size // MOST_DIMENSIONS))
    shown = sinusoids(steps, size, base)[:, some]
    rows = figures.rows_figure(shown, steps, dimensions=some, halves=size)
    steps = spread_timesteps(timesteps, MOST_COMPARED)
    similarity = similarity_at(steps, size, base)
    apart = np.abs(np.subtract.outer(np.arange(len(steps)), np.arange(len(steps))))
    return pack(rows), pack(figures.similarity_figure(similarity[apart], steps))


def show_effect() -> None:
    """What the size and the base change: which timesteps can be told apart."""
    size, base, timesteps = pick_embedding()
    bases, sizes, heatmap, angles = _effect_charts(size, base, timesteps)
    left, right = st.columns(2)
    with left:
        st.markdown(f"**Similarity over distance: bases, at size {size:,}**")
        alt = "Curves: the similarity of two timesteps over their distance, for several bases."
        show_packed(bases, "bases", alt)
        st.caption(
            "Where a curve is low, timesteps so far apart look different. A small base falls at "
            "once and then swings around 0: far and farther look the same. A large base falls "
            "slowly, so that near, far and farther differ, but neighbours less."
        )
    with right:
        st.markdown(f"**Similarity over distance: sizes, at base {base:,}**")
        alt = "Curves: the similarity of two timesteps over their distance, for several sizes."
        show_packed(sizes, "sizes", alt)
        st.caption(
            "The size hardly moves the trend. It smooths the curve: more frequencies leave fewer "
            "distances at which timesteps look alike by chance."
        )
    left, right = st.columns(2)
    with left:
        st.markdown(f"**Every base, at size {size:,}**")
        alt = "Heatmap of the similarity over distance and base; a line marks the chosen base."
        show_packed(heatmap, "every-base", alt)
        st.caption(
            "The colour is the similarity. The larger the base, the farther the likeness reaches, "
            "and the longer are the distances that can still be put in order."
        )
    with right:
        st.markdown("**The pair that is hardest to tell apart**")
        alt = "Curves: the angle between neighbours, and the smallest angle, over the base."
        show_packed(angles, "angles", alt)
        st.caption(
            "Where both curves lie on each other, neighbours are the hardest pair; where one falls "
            "below, it is two timesteps that lie apart (point at it for how far)."
        )


@lru_cache(maxsize=8)
def _effect_charts(size: int, base: int, timesteps: int) -> tuple[Packed, Packed, Packed, Packed]:
    all_distances = np.arange(1, timesteps)
    shown = np.unique(np.geomspace(1, max(1, timesteps - 1), MOST_DISTANCES).astype(np.int64))
    of_bases = {
        f"base {each:,}": similarity_at(shown, size, each) for each in sorted({*BASES, base})
    }
    of_sizes = {
        f"size {each:,}": similarity_at(shown, each, base) for each in sorted({*SIZES, size})
    }
    similarity = np.stack([similarity_at(all_distances, size, each) for each in ALL_BASES])
    angles = np.degrees(np.arccos(np.clip(similarity, -1, 1)))
    closest = angles.argmin(axis=1)
    return (
        pack(figures.profiles_figure(shown, of_bases, f"base {base:,}")),
        pack(figures.profiles_figure(shown, of_sizes, f"size {size:,}")),
        pack(figures.bases_figure(shown, ALL_BASES, similarity[:, shown - 1], base)),
        pack(
            figures.angles_figure(
                ALL_BASES, angles[:, 0], angles.min(axis=1), all_distances[closest], base
            )
        ),
    )


def charts_of_rows(rows: np.ndarray, steps: np.ndarray) -> tuple[Packed, Packed]:
    """The heatmaps of rows (N, size) of timesteps (N,), and of their similarity."""
    some = slice(None, None, -(-len(steps) // MOST_COMPARED))
    similarity = figures.similarity_figure(cosine_similarity(rows[some]), steps[some])
    return pack(figures.rows_figure(*thinned(rows, steps))), pack(similarity)


def thinned(rows: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, size) and their timesteps (N,), as many of them as a heatmap may have."""
    some = slice(None, None, -(-rows.size // MOST_NUMBERS))
    return rows[some], steps[some]
