"""The Data page's figures: classes, sizes, aspect ratios and colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish, label

MOST_CLASSES = 50  # bars
DASHES = ("solid", "dash", "dot")


def class_figure(names: Sequence[str], counts: np.ndarray) -> go.Figure:
    """The images of each class, most first; of many classes the largest and the smallest."""
    order = np.argsort(-counts, kind="stable")
    if len(order) > MOST_CLASSES:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    figure = go.Figure()
    figure.add_bar(
        x=[label(names[k]) for k in order],
        y=counts[order],
        marker={"color": COLOURS[0]},
        hovertemplate="%{x}<br>%{y:,} images<extra></extra>",
    )
    figure.add_hline(y=counts.mean(), line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_xaxes(type="category", tickangle=-45 if len(order) > 8 else 0)
    return finish(figure, "class (dashed: all alike)", "images", height=320)


def size_figure(sizes: np.ndarray) -> go.Figure:
    """Each width and height that files have; the area of a mark grows with their number."""
    pairs, counts = np.unique(sizes, axis=0, return_counts=True)
    figure = go.Figure()
    figure.add_scatter(
        x=pairs[:, 0],
        y=pairs[:, 1],
        mode="markers",
        marker={
            "color": COLOURS[0],
            "size": 6 + 24 * np.sqrt(counts / counts.max()),
            "opacity": 0.7,
        },
        customdata=counts,
        hovertemplate="%{x:,}×%{y:,} px<br>%{customdata:,} files<extra></extra>",
    )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    return finish(figure, "width (px)", "height (px)", height=320)


def aspect_figure(sizes: np.ndarray) -> go.Figure:
    """How many files have which width divided by height, on a logarithmic axis."""
    ratios = np.log2(sizes[:, 0] / sizes[:, 1])
    most = max(1.0, float(np.abs(ratios).max()))
    counts, edges = np.histogram(ratios, np.linspace(-most - 1e-9, most + 1e-9, 42))
    middles = 2 ** ((edges[:-1] + edges[1:]) / 2)
    figure = go.Figure()
    figure.add_bar(
        x=middles,
        y=counts,
        width=2 ** edges[1:] - 2 ** edges[:-1],
        marker={"color": COLOURS[0]},
        hovertemplate="about %{x:.2f}<br>%{y:,} files<extra></extra>",
    )
    figure.add_vline(x=1, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(bargap=0)
    figure.update_xaxes(type="log")
    return finish(figure, "width / height (dashed: square)", "files", height=320)


def colour_figure(histogram: np.ndarray) -> go.Figure:
    """The share of the values 0 to 255 in each channel."""
    shares = 100 * histogram / histogram.sum(1, keepdims=True)
    grey = bool((histogram == histogram[0]).all())
    figure = go.Figure()
    names = ("all channels",) if grey else ("red", "green", "blue")
    for k, name in enumerate(names):
        figure.add_scatter(
            x=np.arange(256),
            y=shares[k],
            name=name,
            mode="lines",
            line={"color": COLOURS[k], "width": 1.5, "dash": DASHES[k]},
            hovertemplate=f"{name} %{{x}}<br>%{{y:.3f}} %<extra></extra>",
        )
    figure.update_yaxes(dtick=1)
    return finish(figure, "value", "% of the pixels", height=320, logarithmic=True)
