"""The Training page's figures: losses and the trainer's other curves over the steps."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from diffusion_core.metrics import BIN_NAMES, TIMESTEP_BINS

Curve = dict[str, np.ndarray]  # step, value, wall_time

LECTURE_LOSSES = Path(__file__).with_name("lecture_losses.csv")


@functools.cache
def lecture_losses() -> Curve:
    """The losses that the lecture printed, 252 steps from 1."""
    with LECTURE_LOSSES.open() as file:
        values = [float(row["l1_loss"]) for row in csv.DictReader(file)]
    return {"step": np.arange(1, len(values) + 1), "value": np.array(values)}


def smoothed(values: np.ndarray, smoothing: float) -> np.ndarray:
    """An exponential average with weight `smoothing` in [0, 1) on the past.

    Divided by the weight that has come together, so that it does not start from zero.
    """
    out = np.empty_like(values, dtype=np.float64)
    total = weight = 0.0
    for k, value in enumerate(values):
        total = smoothing * total + (1 - smoothing) * value
        weight = smoothing * weight + (1 - smoothing)
        out[k] = total / weight
    return out


def loss_figure(
    losses: dict[str, Curve],
    validation: dict[str, Curve],
    smoothing: float,
    logarithmic: bool,
    with_lecture: bool,
) -> go.Figure:
    """Raw (faint) and smoothed loss of each run, its validation loss, the lecture's own losses."""
    figure = go.Figure()
    colours = ["#2a78b8", "#d9822b", "#2f9e77", "#a45bb0", "#c0485a", "#7a7a2a"]
    for (name, curve), colour in zip(losses.items(), colours * 9, strict=False):
        several = f"{name}: " if len(losses) > 1 else ""
        line = {"color": colour, "width": 1}
        figure.add_scatter(
            x=curve["step"], y=curve["value"], name=f"{several}loss", line=line, opacity=0.35
        )
        if smoothing > 0:
            figure.add_scatter(
                x=curve["step"],
                y=smoothed(curve["value"], smoothing),
                name=f"{several}smoothed",
                line={"color": colour, "width": 2.5},
            )
        held_out = validation[name]
        if len(held_out["step"]):
            figure.add_scatter(
                x=held_out["step"],
                y=held_out["value"],
                name=f"{several}validation",
                mode="lines+markers",
                line={"color": colour, "width": 1.5, "dash": "dot"},
            )
    if with_lecture:
        printed = lecture_losses()
        figure.add_scatter(
            x=printed["step"],
            y=printed["value"],
            name="the lecture's loss",
            line={"color": "#8a8a8a", "width": 1.5},
        )
    return _finish(figure, "loss", logarithmic, height=420)


def timestep_figure(curves: dict[str, Curve]) -> go.Figure:
    """Loss by tenth of the schedule (rows; noisier upwards) over the steps (columns)."""
    known = [c for name in BIN_NAMES if len((c := curves[name])["step"])]
    if not known:
        return _finish(go.Figure(), "timesteps", False, height=420)
    low = min(c["step"][0] for c in known)
    high = max(c["step"][-1] for c in known)
    edges = np.linspace(low, high + 1, min(120, high - low + 1) + 1)
    rows = []
    for name in BIN_NAMES:
        curve = curves[name]
        total, _ = np.histogram(curve["step"], edges, weights=curve["value"])
        count, _ = np.histogram(curve["step"], edges)
        rows.append(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))
    tenths = [f"{k / TIMESTEP_BINS:.0%} to {(k + 1) / TIMESTEP_BINS:.0%}" for k in range(10)]
    figure = go.Figure(
        go.Heatmap(
            x=(edges[:-1] + edges[1:]) / 2,
            y=tenths,
            z=np.log10(np.maximum(rows, 1e-8)),
            customdata=np.array(rows),
            colorbar={"title": "log₁₀ loss", "thickness": 12},
            hovertemplate="step %{x:.0f}<br>t in %{y} of T<br>"
            "loss %{customdata:.4f}<extra></extra>",
            hoverongaps=False,
        )
    )
    return _finish(figure, "timestep t, of T", False, height=420)


def curve_figure(curve: Curve, title: str, logarithmic: bool = False) -> go.Figure:
    """One plain curve over the steps."""
    figure = go.Figure(go.Scatter(x=curve["step"], y=curve["value"], name=title))
    return _finish(figure, title, logarithmic, height=280)


def _finish(figure: go.Figure, title: str, logarithmic: bool, height: int) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="x unified" if title == "loss" else "closest",
        uirevision=title,  # zoom and hidden curves stay while new points come in
        xaxis={"title": "step"},
        yaxis={"title": title, "type": "log" if logarithmic else "linear"},
    )
    return figure
