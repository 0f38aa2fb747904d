"""Embedding: how a timestep becomes a row of numbers, before and after a network's `time_mlp`."""

from __future__ import annotations

import streamlit as st
from torch import nn

from dashboard.figures import embedding as embedding_figures
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.services.settings import get_settings
from dashboard.ui import pickers
from diffusion_core.process.embedding import (
    SinusoidalPositionEmbeddings,
    cosine_similarity,
    embed,
    spread_timesteps,
)
from diffusion_core.runs.checkpoint import CheckpointError
from diffusion_core.runs.run import list_runs

# A heatmap has hardly more lines than this on a screen; beyond it only the page gets heavy.
MOST_ROWS = 500
MOST_NUMBERS = 2**17
MOST_COMPARED = 300


def show_layer(layer: nn.Module, size: int, timesteps: int, t: int, name: str) -> None:
    """What a layer with rows of `size` numbers makes of all t, and how alike the rows are."""
    cursor = t if t < timesteps else None
    left, right = st.columns(2)
    with left:
        st.markdown("**Every timestep's row**")
        steps = spread_timesteps(timesteps, min(MOST_ROWS, MOST_NUMBERS // size))
        figure = embedding_figures.rows_figure(
            embed(layer, steps), steps, cursor, sines_and_cosines=name == "sinusoidal"
        )
        show(figure, f"{name}-rows", f"Heatmap of the {name} embedding over t and dimension.")
    with right:
        st.markdown("**How alike two timesteps are**")
        steps = spread_timesteps(timesteps, MOST_COMPARED)
        similarity = cosine_similarity(embed(layer, steps))
        figure = embedding_figures.similarity_figure(similarity, steps, cursor)
        show(figure, f"{name}-similarity", f"Heatmap of the similarity of {name} embeddings.")
    if cursor is None:
        st.caption(f"t = {t:,} is beyond this run's T = {timesteps:,}, so it is not marked.")


def show_trained(t: int) -> None:
    """The same two images for the `time_mlp` of a run's latest checkpoint."""
    usable, damaged = {}, []
    for run in list_runs(get_settings().runs_dir):
        if checkpoint := run.latest_checkpoint():
            usable[run] = checkpoint
        elif broken := run.checkpoints()[1]:
            damaged.append(f"No checkpoint of {run.name} can be used: {broken[-1]}")
    for sentence in damaged:
        st.warning(sentence)
    if not usable and not damaged:
        st.info(
            "No run has a checkpoint yet. Once one has been trained for a while, this shows what "
            "its network has made of the embedding."
        )
    if not usable:
        return
    run = pickers.pick_run(list(usable))
    for sentence in run.checkpoints()[1]:
        st.warning(f"{sentence} It is left out.")
    checkpoint = usable[run]
    try:
        network, schedule, config = cached.model(checkpoint)
    except CheckpointError as error:
        st.error(str(error))
        return
    size = embed(network.time_mlp, [0]).shape[1]
    st.caption(
        f"{run.name} at step {checkpoint.step:,}: preset {config.preset}, "
        f"T = {schedule.timesteps:,}, {size} numbers a timestep."
    )
    show_layer(network.time_mlp, size, schedule.timesteps, t, "learned")


st.title("Embedding")
st.markdown(
    r"""
The network must know how noisy the image is that it looks at, so it is told the timestep $t$. One
large number would be hard to work with. Instead $t$ is read off many clocks at once, half of them
sines and half cosines, from fast to slow, for $i = 0 \dots h-1$ with $h$ half the size:
"""
)
st.latex(
    r"\begin{gathered}\big[\,\sin(t f_i)\ \dots,\ \cos(t f_i)\ \dots\big]\\[4pt]"
    r"f_i = 10000^{-i/(h-1)}\end{gathered}"
)
st.markdown(
    r"""
The frequencies fall from $1$, a turn every 6.3 steps, to $1/10000$, a turn every 62,832. The fast
ones tell neighbouring steps apart but repeat themselves; the slow ones tell early from late but
hardly change from one step to the next. With a sine and a cosine of each, the step from $t$ to
$t+k$ is the same rotation wherever it starts, which a linear layer can learn.
"""
)
with st.container(horizontal=True):
    with st.container(width=165):
        size = st.number_input(
            "Embedding size",
            min_value=4,
            max_value=1024,
            value=32,
            step=2,
            help="An even number. The lecture's network has 32.",
            key="size",
            bind="query-params",
        )
    with st.container(width=165):
        timesteps = pickers.pick_timesteps()
try:
    layer = SinusoidalPositionEmbeddings(size)
except ValueError:
    st.error(f"The embedding size must be even: one sine and one cosine each. {size} is odd.")
    st.stop()
t = pickers.pick_timestep(timesteps, default=30)

show_layer(layer, size, timesteps, t, "sinusoidal")
st.caption(
    "Similarity is the cosine of the angle between two rows, 1 where they point the same way. Here "
    r"it is $\frac{1}{h}\sum_i \cos((t-s) f_i)$: it depends only on how far $t$ and $s$ are "
    "apart, and so is the same along each diagonal."
)

st.header(f"The row of t = {t:,}")
[row] = embed(layer, [t])
curve, numbers = st.columns([3, 2])
with curve:
    show(embedding_figures.row_figure(row), "row", f"The embedding of t = {t} over its dimensions.")
with numbers:
    st.dataframe(
        embedding_figures.row_table(row, layer.frequencies().numpy()),
        height=330,
        column_config={
            "frequency": st.column_config.NumberColumn("frequency fᵢ", format="%.6f"),
            "sine": st.column_config.NumberColumn("sin(t fᵢ)", format="%.4f"),
            "cosine": st.column_config.NumberColumn("cos(t fᵢ)", format="%.4f"),
        },
    )

st.header("What a trained network makes of it")
st.markdown(
    "Each network passes the row through a small part of its own, `time_mlp`, and gives the result "
    "to all its blocks. Training tends to draw together the timesteps that need much the same work "
    "and to keep the others apart."
)
show_trained(t)
