"""The Embedding page's heatmaps: of the sinusoidal rows, and of a trained network's."""

from __future__ import annotations

import numpy as np
import streamlit as st
from torch import nn

from dashboard.figures import embedding as figures
from dashboard.figures.theme import show
from dashboard.services import cached
from dashboard.services.settings import get_settings
from dashboard.ui import pickers
from dashboard.ui.controls import Number
from dashboard.ui.outside import code, plain
from diffusion_core.process.embedding import (
    SinusoidalPositionEmbeddings,
    cosine_similarity,
    embed,
    spread_timesteps,
)
from diffusion_core.runs.checkpoint import CheckpointError
from diffusion_core.runs.run import list_runs

# The most rows of a heatmap that a screen can show; more would only make the page slow.
MOST_ROWS = 500
MOST_NUMBERS = 2**17
MOST_COMPARED = 300
SIZE = Number(
    key="size",
    label="Embedding size",
    low=4,
    high=1024,
    default=32,
    step=2,
    help="An even number; 32 in the lecture's network.",
)


def pick_embedding() -> tuple[SinusoidalPositionEmbeddings, int]:
    """The formula's layer of a chosen size, and T; an odd size is an error and stops the page."""
    with st.container(horizontal=True):
        with st.container(width=165):
            size = SIZE.ask()
        with st.container(width=165):
            timesteps = pickers.TIMESTEPS.ask()
    try:
        return SinusoidalPositionEmbeddings(size), timesteps
    except ValueError:
        st.error(f"The embedding size must be even, half sines and half cosines. {size} is odd.")
        st.stop()


def show_row(layer: SinusoidalPositionEmbeddings, t: int) -> None:
    """The row of one timestep, as curves and as numbers."""
    import pandas as pd

    [row] = embed(layer, [t])
    sines, cosines = np.split(row, 2)
    frequencies = layer.frequencies().numpy()
    curve, numbers = st.columns([3, 2])
    with curve:
        show(figures.row_figure(row), "row", f"The embedding of t = {t} over its dimensions.")
    with numbers:
        st.dataframe(
            pd.DataFrame(
                {"frequency": frequencies, "sine": sines, "cosine": cosines},
                index=pd.RangeIndex(len(frequencies), name="i"),
            ),
            height=330,
            column_config={
                "frequency": st.column_config.NumberColumn("frequency fᵢ", format="%.6f"),
                "sine": st.column_config.NumberColumn("sin(t fᵢ)", format="%.4f"),
                "cosine": st.column_config.NumberColumn("cos(t fᵢ)", format="%.4f"),
            },
        )


def show_trained(t: int) -> None:
    """The same heatmaps for the `time_mlp` of a run's latest checkpoint."""
    usable, damaged = {}, False
    for run in list_runs(get_settings().runs_dir):
        if checkpoint := run.latest_checkpoint():
            usable[run] = checkpoint
        elif broken := run.checkpoints()[1]:
            st.warning(f"No checkpoint of {code(run.name)} can be used: {plain(broken[-1])}")
            damaged = True
    if not usable:
        if not damaged:
            st.info(
                "No run has a checkpoint yet. Train a model, and its embedding of the timesteps "
                "appears here."
            )
        return
    run = pickers.pick_run(list(usable), last_first=True)
    for sentence in run.checkpoints()[1]:
        st.warning(f"{plain(sentence)} It is skipped.")
    checkpoint = usable[run]
    try:
        network, schedule, config = cached.model(checkpoint)
    except CheckpointError as error:
        st.error(plain(error))
        return
    time_mlp = network.get_submodule("time_mlp")
    size = embed(time_mlp, [0]).shape[1]
    st.caption(
        f"{code(run.name)} at step {checkpoint.step:,}: preset {code(config.preset)}, "
        f"T = {schedule.timesteps:,}, {size} dimensions per timestep."
    )
    show_embedding(time_mlp, schedule.timesteps, t, "learned")


def show_embedding(layer: nn.Module, timesteps: int, t: int, name: str) -> None:
    """A layer's embedding of all t, and how similar its rows are; `name` says what kind it is."""
    cursor = t if t < timesteps else None
    size = embed(layer, [0]).shape[1]
    left, right = st.columns(2)
    with left:
        st.markdown("**Embedding of every timestep**")
        steps = spread_timesteps(timesteps, min(MOST_ROWS, MOST_NUMBERS // size))
        is_formula = isinstance(layer, SinusoidalPositionEmbeddings)
        figure = figures.rows_figure(
            embed(layer, steps), steps, cursor, sines_and_cosines=is_formula
        )
        show(figure, f"{name}-rows", f"Heatmap of the {name} embedding over t and dimension.")
    with right:
        st.markdown("**Similarity between timesteps**")
        steps = spread_timesteps(timesteps, MOST_COMPARED)
        similarity = cosine_similarity(embed(layer, steps))
        figure = figures.similarity_figure(similarity, steps, cursor)
        show(figure, f"{name}-similarity", f"Heatmap of the similarity of {name} embeddings.")
    if cursor is None:
        st.caption(f"t = {t:,} is beyond this run's T = {timesteps:,} and is not marked.")
