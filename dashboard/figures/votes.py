"""The figures of a blind vote: how often each was chosen, and its strength."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish, label
from diffusion_core.evaluation.preference import Share, Strength

ROW = 44  # pixels of height


def share_figure(shares: Mapping[str, Share], chance: float | None) -> go.Figure:
    """In percent, the greatest on top; a dashed line at `chance`, where it is the same for all."""
    figure = go.Figure()
    names = list(shares)[::-1]
    found = [shares[name] for name in names]
    figure.add_bar(
        x=[100 * each.value for each in found],
        y=[label(name) for name in names],
        orientation="h",
        marker={"color": COLOURS[0]},
        error_x={
            "array": [100 * (each.high - each.value) for each in found],
            "arrayminus": [100 * (each.value - each.low) for each in found],
            "color": GREY,
        },
        hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
    )
    if chance is not None:
        figure.add_vline(100 * chance, line={"color": GREY, "dash": "dash", "width": 1})
    finish(figure, "chosen (% of the votes with it)", "", height=110 + ROW * len(names))
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(type="category", automargin=True)
    return figure


def strength_figure(strengths: Mapping[str, Strength]) -> go.Figure:
    """On a logarithmic axis, the greatest on top."""
    names = list(strengths)[::-1]
    found = [strengths[name] for name in names]
    figure = go.Figure()
    figure.add_scatter(
        x=[each.value for each in found],
        y=[label(name) for name in names],
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
        error_x={
            "array": [each.high - each.value for each in found],
            "arrayminus": [each.value - each.low for each in found],
            "color": COLOURS[0],
        },
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    figure.add_vline(1, line={"color": GREY, "dash": "dash", "width": 1})
    finish(figure, "Bradley–Terry strength", "", height=110 + ROW * len(names))
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="category", automargin=True)
    return figure
