"""The One step page's figures: errors over t, and where a step lands in one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, finish

DASHES = ("solid", "dash", "dot")
DECADES = 5  # of errors, at most
WIDE = 4.0  # standard deviations on each side


def errors_figure(timesteps: Sequence[int], curves: Mapping[str, Sequence[float]]) -> go.Figure:
    """Errors at timesteps, a curve for each name."""
    figure = go.Figure()
    for k, (name, values) in enumerate(curves.items()):
        figure.add_scatter(
            x=list(timesteps),
            y=list(values),
            name=name,
            mode="lines+markers",
            line={"color": COLOURS[k], "width": 2, "dash": DASHES[k % len(DASHES)]},
            marker={"size": 5},
            hovertemplate="t = %{x}<br>%{y:.4g}",
        )
    finish(figure, "timestep t", "error", height=320, logarithmic=True)
    found = np.log10([value for values in curves.values() for value in values if value > 0])
    if found.size and np.isfinite(found).all():
        top = found.max() + 0.2
        # A weight that vanishes would press the others together.
        figure.update_yaxes(range=[max(found.min() - 0.2, top - DECADES), top], dtick=1)
    return figure.update_yaxes(exponentformat="power")


def landing_figure(
    means: Mapping[str, float], std: float, points: Mapping[str, float]
) -> go.Figure:
    """Normal densities of one value of x_{t-1}, and the values that steps have landed on.

    `std` is above 0 and that of all the densities.
    """
    spots = [*means.values(), *points.values()]
    low, high = min(spots) - WIDE * std, max(spots) + WIDE * std
    x = np.linspace(low, high, 400)
    figure = go.Figure()
    for k, (name, mean) in enumerate(means.items()):
        figure.add_scatter(
            x=x,
            y=np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi)),
            name=name,
            mode="lines",
            line={"color": COLOURS[k], "width": 2, "dash": DASHES[k]},
            hovertemplate="%{x:.4f}: density %{y:.3g}",
        )
    for k, (name, value) in enumerate(points.items()):
        figure.add_scatter(
            x=[value],
            y=[0],
            name=name,
            mode="markers",
            marker={"color": COLOURS[len(means) + k], "size": 12, "symbol": k},
            hovertemplate="%{x:.4f}",
        )
    return finish(figure, "value of the pixel", "density", height=320)
