"""The Noising page's figure: how the values of x_t are spread, against N(0, 1)."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, finish

# Less than one value in a million of N(0, 1) is outside.
EDGES = np.linspace(-5, 5, 101)


def normal_density(x: np.ndarray) -> np.ndarray:
    """The density of N(0, 1)."""
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def spread_figure(values: np.ndarray) -> go.Figure:
    """The histogram of `values`, any shape, as a density, and the density of N(0, 1)."""
    density, _ = np.histogram(values.clip(EDGES[0], EDGES[-1]), EDGES, density=True)
    middles = (EDGES[:-1] + EDGES[1:]) / 2
    figure = go.Figure()
    figure.add_bar(
        x=middles,
        y=density,
        width=np.diff(EDGES),
        name="x<sub>t</sub>",
        marker={"color": COLOURS[0], "line": {"width": 0}},
        opacity=0.7,
        hovertemplate="around %{x:.2f}<br>density %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=EDGES,
        y=normal_density(EDGES),
        name="N(0, 1)",
        mode="lines",
        line={"color": COLOURS[1], "width": 2.5},
        hoverinfo="skip",
    )
    figure.update_layout(bargap=0)
    return finish(figure, "value", "density", height=320)
