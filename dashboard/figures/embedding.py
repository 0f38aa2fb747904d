"""The Embedding page's figures: rows over timesteps, one row, and the timesteps' similarity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, DIVERGING, GREY, finish

CURSOR = {"color": GREY, "width": 1.5, "dash": "dot"}


def rows_figure(
    rows: np.ndarray, timesteps: np.ndarray, t: int | None, *, sines_and_cosines: bool = False
) -> go.Figure:
    """Heatmap of embedding rows (N, size), one a timestep (N,), t = 0 on top; a line at `t`.

    The colours are even around 0, up to the largest number there is.
    """
    size = rows.shape[1]
    most = float(np.abs(rows).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            x=np.arange(size),
            y=timesteps,
            z=rows,
            zmin=-most,
            zmax=most,
            colorscale=DIVERGING,
            colorbar={"thickness": 10, "nticks": 5},
            hovertemplate="dimension %{x}<br>t = %{y}<br>%{z:.4f}<extra></extra>",
        )
    )
    if t is not None:
        figure.add_hline(y=t, line=CURSOR)
    if sines_and_cosines:
        figure.add_vline(x=size / 2 - 0.5, line={"color": GREY, "width": 1})
        for name, x in (("sines", size / 4 - 0.5), ("cosines", size * 3 / 4 - 0.5)):
            figure.add_annotation(
                text=name, x=x, y=1, yref="paper", yanchor="bottom", showarrow=False
            )
    finish(figure, "dimension", "timestep t", height=420)
    figure.update_layout(uirevision=f"{size} {timesteps[-1]}")
    figure.update_yaxes(autorange="reversed")
    return figure


def row_figure(row: np.ndarray) -> go.Figure:
    """One row (size,) of the sinusoidal embedding, its sines and its cosines as two curves."""
    figure = go.Figure()
    half = len(row) // 2
    for name, part, colour in (
        ("sine", slice(0, half), COLOURS[0]),
        ("cosine", slice(half, None), COLOURS[1]),
    ):
        figure.add_scatter(
            x=np.arange(len(row))[part],
            y=row[part],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            hovertemplate=f"dimension %{{x}}<br>{name} %{{y:.4f}}<extra></extra>",
        )
    finish(figure, "dimension", "value", height=330)
    figure.update_yaxes(range=[-1.08, 1.08])
    return figure


def row_table(row: np.ndarray, frequencies: np.ndarray) -> pd.DataFrame:
    """The numbers of one row (size,), one line per frequency (size / 2,)."""
    half = len(frequencies)
    return pd.DataFrame(
        {"frequency": frequencies, "sine": row[:half], "cosine": row[half:]},
        index=pd.RangeIndex(half, name="i"),
    )


def similarity_figure(similarity: np.ndarray, timesteps: np.ndarray, t: int | None) -> go.Figure:
    """Heatmap of the similarity (N, N), in [-1, 1], between timesteps (N,); lines at `t`."""
    figure = go.Figure(
        go.Heatmap(
            x=timesteps,
            y=timesteps,
            z=similarity,
            zmin=-1,
            zmax=1,
            colorscale=DIVERGING,
            colorbar={"thickness": 10, "nticks": 5},
            hovertemplate="t = %{y} and t = %{x}<br>similarity %{z:.3f}<extra></extra>",
        )
    )
    if t is not None:
        figure.add_hline(y=t, line=CURSOR)
        figure.add_vline(x=t, line=CURSOR)
    finish(figure, "timestep t", "timestep t", height=420)
    figure.update_layout(uirevision=f"{timesteps[-1]}")
    figure.update_yaxes(autorange="reversed")
    return figure
