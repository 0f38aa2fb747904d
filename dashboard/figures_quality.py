"""The Quality tab's figures: a metric over the training, and against what a picture costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from dashboard.figures import COLOURS, GREY, finish
from diffusion_core.intervals import Estimate
from diffusion_core.quality_results import METRICS, Result, number_words, yardsticks

HEIGHT = 340


def over_training(results: Sequence[Result]) -> list[Result]:
    """Those that were drawn in a way that was measured at several steps of the same training."""
    steps: dict[tuple[str, str, int], set[int]] = {}
    for result in results:
        order = result.order
        steps.setdefault((order.run, result.way(), order.n), set()).add(order.step)
    return [r for r in results if len(steps[r.order.run, r.way(), r.order.n]) > 1]


def training_figure(results: Sequence[Result], metric: str) -> go.Figure:
    """The metric over the steps of the training, a line for each way to draw and each run."""
    return _figure(
        results,
        metric,
        line_of=lambda r: r.way(),
        x_of=lambda r: r.order.step,
        x_title="step of the training",
    )


def cost_figure(results: Sequence[Result], metric: str) -> go.Figure:
    """The metric of each run's newest measured step against the evaluations of the network for a
    picture, on a logarithmic axis, a line for each sampler and run."""
    newest: dict[str, int] = {}
    for result in results:
        order = result.order
        newest[order.run] = max(newest.get(order.run, 0), order.step)
    figure = _figure(
        [r for r in results if r.order.step == newest[r.order.run]],
        metric,
        line_of=lambda r: r.way(with_steps=False),
        x_of=lambda r: r.evaluations,
        x_title="evaluations of the network for a picture",
    )
    counts = sorted({result.evaluations for result in results})
    figure.update_xaxes(type="log", tickvals=counts, ticktext=[f"{count:,}" for count in counts])
    return figure


def _figure(
    results: Sequence[Result],
    metric: str,
    *,
    line_of: Callable[[Result], str],
    x_of: Callable[[Result], float],
    x_title: str,
) -> go.Figure:
    """Lines with upright bars for the 95 % intervals; dashed, the floor."""
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    several_runs = len({result.order.run for result in results}) > 1
    several_counts = len({result.order.n for result in results}) > 1
    for result in results:
        if metric in result.metrics:
            name = f"{result.order.run}: {line_of(result)}" if several_runs else line_of(result)
            if several_counts:
                name += f", {result.order.n:,} pictures"
            lines.setdefault(name, []).append((x_of(result), result.metrics[metric]))
    figure = go.Figure()
    for k, (name, points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        values = [_shown(metric, e.value) for _, e in points]
        figure.add_scatter(
            x=[x for x, _ in points],
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": COLOURS[k % len(COLOURS)], "width": 1.5},
            marker={"size": 7},
            error_y={
                "array": [
                    _shown(metric, e.high) - y for (_, e), y in zip(points, values, strict=True)
                ],
                "arrayminus": [
                    y - _shown(metric, e.low) for (_, e), y in zip(points, values, strict=True)
                ],
                "thickness": 1.2,
                "width": 4,
            },
            customdata=[
                f"{number_words(metric, e.low)} to {number_words(metric, e.high)}"
                for _, e in points
            ],
            hovertemplate=f"%{{x:,}}: %{{y:.3~g}} (%{{customdata}})<extra>{name}</extra>",
        )
    floors = {r.floor[metric].value for r in yardsticks(list(results)) if metric in r.floor}
    for value in floors:
        figure.add_hline(
            y=_shown(metric, value), line={"color": GREY, "width": 1.2, "dash": "dash"}
        )
    if floors:
        figure.add_scatter(
            x=[None],
            y=[None],
            name="held-out real pictures",
            mode="lines",
            line={"color": GREY, "width": 1.2, "dash": "dash"},
        )
    about = METRICS[metric]
    title = about.title + (", %" if about.percent else "")
    finish(figure, x_title, title, height=HEIGHT)
    figure.update_layout(showlegend=True)
    # A range that somebody zoomed to means something else of another metric.
    figure.update_xaxes(uirevision=x_title)
    figure.update_yaxes(uirevision=metric, tickformat=",~g", rangemode="tozero")
    return figure


def _shown(metric: str, value: float) -> float:
    return 100 * value if METRICS[metric].percent else value
