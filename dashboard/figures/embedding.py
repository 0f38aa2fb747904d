"""The Embedding page's figures: rows over timesteps, one row, and the timesteps' similarity."""

from __future__ import annotations

import numpy as np
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
    hover = "dimension %{x}<br>t = %{y}<br>%{z:.4f}"
    figure = _heatmap(np.arange(size), timesteps, rows, most, "dimension", hover)
    if t is not None:
        figure.add_hline(y=t, line=CURSOR)
    if sines_and_cosines:
        figure.add_vline(x=size / 2 - 0.5, line={"color": GREY, "width": 1})
        for name, x in (("sines", size / 4 - 0.5), ("cosines", size * 3 / 4 - 0.5)):
            figure.add_annotation(
                text=name, x=x, y=1, yref="paper", yanchor="bottom", showarrow=False
            )
    return figure


def row_figure(row: np.ndarray) -> go.Figure:
    """One row (size,) of the sinusoidal embedding, its sines and its cosines as two curves."""
    figure = go.Figure()
    dimensions = np.split(np.arange(len(row)), 2)
    for name, x, colour in zip(("sine", "cosine"), dimensions, COLOURS, strict=False):
        figure.add_scatter(
            x=x,
            y=row[x],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            hovertemplate=f"dimension %{{x}}<br>{name} %{{y:.4f}}<extra></extra>",
        )
    finish(figure, "dimension", "value", height=330)
    return figure.update_yaxes(range=[-1.08, 1.08])


def similarity_figure(similarity: np.ndarray, timesteps: np.ndarray, t: int | None) -> go.Figure:
    """Heatmap of the similarity (N, N), in [-1, 1], between timesteps (N,); lines at `t`."""
    hover = "t = %{y} and t = %{x}<br>similarity %{z:.3f}"
    figure = _heatmap(timesteps, timesteps, similarity, 1, "timestep t", hover)
    if t is not None:
        figure.add_hline(y=t, line=CURSOR)
        figure.add_vline(x=t, line=CURSOR)
    return figure


def _heatmap(
    x: np.ndarray, timesteps: np.ndarray, z: np.ndarray, most: float, x_title: str, hover: str
) -> go.Figure:
    """Numbers z from -most to most, a row for each timestep."""
    heatmap = go.Heatmap(
        x=x,
        y=timesteps,
        z=z,
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        colorbar={"thickness": 10, "nticks": 5},
        hovertemplate=f"{hover}<extra></extra>",
    )
    figure = finish(go.Figure(heatmap), x_title, "timestep t", height=420)
    figure.update_layout(uirevision=f"{len(x)} {timesteps[-1]}")
    return figure.update_yaxes(autorange="reversed")
