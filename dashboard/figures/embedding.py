"""The Embedding page's figures: rows over timesteps, their similarity, a network's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, DIVERGING, GREY, SEQUENTIAL, finish, label

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def rows_figure(
    rows: np.ndarray,
    timesteps: np.ndarray,
    *,
    dimensions: np.ndarray | None = None,
    halves: int = 0,
    along: str = "dimension",
) -> go.Figure:
    """Heatmap of rows (N, D), one a timestep (N,), t = 0 on top.

    `dimensions` (D,): their numbers where not all are shown. `halves`: the size of an embedding
    whose sines and cosines are named. The colours are even around 0, up to the largest number
    there is.
    """
    if dimensions is None:
        dimensions = np.arange(rows.shape[1])
    most = float(np.abs(rows).max()) or 1.0
    hover = f"{along} %{{x}}<br>t = %{{y}}<br>%{{z:.4f}}"
    figure = _heatmap(dimensions, timesteps, rows, most, along, hover)
    if halves:
        figure.add_vline(x=halves / 2 - 0.5, line={"color": GREY, "width": 1})
        for name, x in (("sines", halves / 4 - 0.5), ("cosines", halves * 3 / 4 - 0.5)):
            figure.add_annotation(
                text=name, x=x, y=1, yref="paper", yanchor="bottom", showarrow=False
            )
    return figure


def similarity_figure(similarity: np.ndarray, timesteps: np.ndarray) -> go.Figure:
    """Heatmap of the similarity (N, N), in [-1, 1], between timesteps (N,)."""
    hover = "t = %{y} and t = %{x}<br>similarity %{z:.3f}"
    return _heatmap(timesteps, timesteps, similarity, 1, "timestep t", hover)


def profiles_figure(
    distances: np.ndarray, profiles: Mapping[str, np.ndarray], chosen: str
) -> go.Figure:
    """Similarity over the distance of two timesteps, one curve a name, at most 6.

    That of `chosen` comes first and is thick.
    """
    figure = go.Figure()
    others = [name for name in profiles if name != chosen]
    for k, name in enumerate((chosen, *others)):
        figure.add_scatter(
            x=distances,
            y=profiles[name],
            name=name,
            mode="lines+markers" if len(distances) == 1 else "lines",
            line={"color": COLOURS[k], "dash": DASHES[k], "width": 1.5 if k else 3},
            hovertemplate=f"{name}<br>distance %{{x}}<br>similarity %{{y:.3f}}<extra></extra>",
        )
    finish(figure, "distance between two timesteps", "similarity", height=340)
    return figure.update_xaxes(type="log").update_yaxes(range=[-1.05, 1.05])


def bases_figure(
    distances: np.ndarray, bases: np.ndarray, similarity: np.ndarray, chosen: float
) -> go.Figure:
    """Heatmap of the similarity (bases, distances), with a line at the chosen base."""
    heatmap = go.Heatmap(
        x=distances,
        y=bases,
        z=similarity,
        zmin=-1,
        zmax=1,
        colorscale=DIVERGING,
        colorbar={"thickness": 10, "nticks": 5},
        hovertemplate="base %{y:,.0f}<br>distance %{x}<br>similarity %{z:.3f}<extra></extra>",
    )
    figure = finish(go.Figure(heatmap), "distance between two timesteps", "base", height=340)
    figure.add_hline(y=chosen, line={"color": GREY, "width": 1.5, "dash": "dot"})
    return figure.update_xaxes(type="log").update_yaxes(type="log")


def angles_figure(
    bases: np.ndarray,
    neighbours: np.ndarray,
    closest: np.ndarray,
    distances: np.ndarray,
    chosen: float,
) -> go.Figure:
    """Degrees between neighbours and between the most similar timesteps, over the base.

    `distances` (bases,): how far the most similar ones lie apart.
    """
    figure = go.Figure()
    curves = (("t and t + 1", neighbours, np.ones_like(distances)), ("closest", closest, distances))
    for k, (name, angles, apart) in enumerate(curves):
        figure.add_scatter(
            x=bases,
            y=angles,
            name=name,
            customdata=apart,
            mode="lines+markers",
            line={"color": COLOURS[k], "dash": DASHES[2 * k], "width": 2},
            marker={"size": 6, "symbol": ("circle", "diamond")[k]},
            hovertemplate=f"{name}<br>base %{{x:,.0f}}<br>%{{y:.2f}}° at distance "
            "%{customdata:,}<extra></extra>",
        )
    finish(figure, "base", "angle in degrees", height=340)
    figure.add_vline(x=chosen, line={"color": GREY, "width": 1.5, "dash": "dot"})
    return figure.update_xaxes(type="log").update_yaxes(rangemode="tozero")


def sizes_figure(
    sizes: np.ndarray, across: np.ndarray, blocks: Sequence[str], what: str
) -> go.Figure:
    """Heatmap of root mean squares (blocks, N), the first block on top, over `what`."""
    heatmap = go.Heatmap(
        x=across,
        y=list(blocks),
        z=sizes,
        zmin=0,
        zmax=float(sizes.max()) or 1,
        colorscale=SEQUENTIAL,
        colorbar={"thickness": 10, "nticks": 5},
        hovertemplate=f"%{{y}}<br>{what} %{{x:,}}<br>%{{z:.3f}}<extra></extra>",
    )
    figure = finish(go.Figure(heatmap), what, "", height=420)
    return figure.update_yaxes(autorange="reversed", type="category")


def curves_figure(
    timesteps: np.ndarray, curves: Mapping[str, np.ndarray], y: str, *, in_order: bool = False
) -> go.Figure:
    """Curves over t, one a name from outside; `in_order`: the later, the darker."""
    figure = go.Figure()
    for k, (name, values) in enumerate(curves.items()):
        place = 3 + round(6 * k / max(1, len(curves) - 1))
        colour = SEQUENTIAL[place][1] if in_order else COLOURS[k % len(COLOURS)]
        figure.add_scatter(
            x=timesteps,
            y=values,
            name=label(name),
            mode="lines",
            line={"color": colour, "dash": DASHES[k % len(DASHES)], "width": 2},
            hovertemplate=f"{label(name)}<br>t = %{{x:,}}<br>%{{y:.3f}}<extra></extra>",
        )
    finish(figure, "timestep t", y, height=420)
    return figure.update_yaxes(rangemode="tozero").update_layout(showlegend=True)


def _heatmap(
    x: np.ndarray, timesteps: np.ndarray, z: np.ndarray, most: float, x_title: str, hover: str
) -> go.Figure:
    """Numbers z from -most to most, a row for each timestep."""
    heatmap = go.Heatmap(
        x=x,
        y=timesteps,
        z=z.astype(np.float32),  # enough for four digits, and half the bytes for the browser
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        colorbar={"thickness": 10, "nticks": 5},
        hovertemplate=f"{hover}<extra></extra>",
    )
    figure = finish(go.Figure(heatmap), x_title, "timestep t", height=420)
    figure.update_layout(uirevision=f"{len(x)} {timesteps[-1]}")
    return figure.update_yaxes(autorange="reversed")
