"""The Noising page's figures: mean and variance of x_t over many draws."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish

SYMBOLS = ("circle", "x")


def means_figure(wanted: np.ndarray, means: Mapping[str, np.ndarray], error: float) -> go.Figure:
    """The mean of each value over the draws, of several ways, against the one of the closed form.

    `error`: the standard error of a mean, of which two are marked.
    """
    figure = go.Figure()
    for k, (name, values) in enumerate(means.items()):
        figure.add_scatter(
            x=wanted,
            y=values,
            name=name,
            mode="markers",
            marker={"color": COLOURS[k], "symbol": SYMBOLS[k], "size": 4, "opacity": 0.6},
        )
    ends = np.array([wanted.min(), wanted.max()])
    for shift, shown in ((0, True), (-2 * error, False), (2 * error, False)):
        figure.add_scatter(
            x=ends,
            y=ends + shift,
            name="equal, ± 2 standard errors",
            mode="lines",
            line={"color": GREY, "width": 1.5, "dash": "solid" if shown else "dot"},
            showlegend=shown,
            hoverinfo="skip",
        )
    return finish(figure, "mean of the closed form", "mean over the draws", height=340)


def variances_figure(variances: Mapping[str, np.ndarray], wanted: float) -> go.Figure:
    """Histograms of the variance of each value over the draws, of several ways."""
    figure = go.Figure()
    edges = np.histogram_bin_edges(np.concatenate(list(variances.values())), 40)
    for k, (name, values) in enumerate(variances.items()):
        figure.add_scatter(
            x=(edges[:-1] + edges[1:]) / 2,
            y=np.histogram(values, edges)[0],
            name=name,
            mode="lines",
            line={"color": COLOURS[k], "shape": "hvh", "dash": "solid" if k == 0 else "dash"},
        )
    figure.add_vline(
        wanted, line={"color": GREY, "dash": "dot"}, annotation_text="1 − ᾱ<sub>t</sub>"
    )
    return finish(figure, "variance over the draws", "values", height=340)
