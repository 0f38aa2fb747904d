"""The figures of a blind vote: how often each was chosen, and its strength."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish, label
from diffusion_core.evaluation.preference import Share, Strength

ROW = 44  # pixels of height


def share_figure(shares: Mapping[str, Share], chance: float | None) -> go.Figure:
    """In percent; a dashed line at `chance`, where it is the same for all."""
    figure = _figure(shares, "chosen (% of the votes with it)", scale=100)
    figure.update_xaxes(range=[0, 100])
    return figure if chance is None else _mark(figure, 100 * chance)


def strength_figure(strengths: Mapping[str, Strength]) -> go.Figure:
    """On a logarithmic axis."""
    figure = _figure(strengths, "Bradley–Terry strength")
    figure.update_xaxes(type="log")
    return _mark(figure, 1)


def _figure(
    found: Mapping[str, Share] | Mapping[str, Strength], title: str, scale: float = 1
) -> go.Figure:
    """A dot with its 95 % interval for each, the first on top."""
    names = list(found)[::-1]
    values = [found[name] for name in names]
    figure = go.Figure()
    figure.add_scatter(
        x=[scale * each.value for each in values],
        y=[label(name) for name in names],
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
        error_x={
            "array": [scale * (each.high - each.value) for each in values],
            "arrayminus": [scale * (each.value - each.low) for each in values],
            "color": COLOURS[0],
        },
        hovertemplate="%{y}: %{x:.3g}<extra></extra>",
    )
    finish(figure, title, "", height=110 + ROW * len(names))
    figure.update_yaxes(type="category", automargin=True)
    return figure


def _mark(figure: go.Figure, x: float) -> go.Figure:
    return figure.add_vline(x, line={"color": GREY, "dash": "dash", "width": 1})
