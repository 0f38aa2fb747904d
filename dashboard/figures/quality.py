"""The Quality tab's figures: a metric over training, and versus compute."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle

import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish, label
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.metrics import Metric
from diffusion_core.evaluation.results import Result, yardsticks
from diffusion_core.runs.post_hoc import length_in

# Of the legend: what says how images were sampled may be long, and a phone is narrow.
CHARACTERS_A_ROW, ROWS_A_NAME = 44, 4
ROW_HEIGHT, MOST_ROWS = 19, 20  # pixels; rows that make the figure higher


def over_training(results: Sequence[Result]) -> list[Result]:
    """Results of a way to sample that was measured at several steps of the same run."""
    steps = defaultdict(set)
    for r in results:
        steps[r.spec.run, r.way(), r.spec.n].add(r.spec.step)
    return [r for r in results if len(steps[r.spec.run, r.way(), r.spec.n]) > 1]


def over_cost(results: Sequence[Result]) -> list[Result]:
    """Results to plot against their cost: of each run and number of images, one training step.

    That is the newest step at which one way to sample was measured at several costs, so that its
    curve stays while later steps are measured at one; otherwise the newest step. A number of images
    with only one cost in all is left out.
    """
    costs = defaultdict(set)
    for r in results:
        costs[r.spec.run, r.spec.n, r.spec.step, r.way(with_steps=False)].add(r.evaluations)
    best: dict[tuple[str, int], tuple[bool, int]] = {}
    for (run, n, step, _), found in costs.items():
        best[run, n] = max(best.get((run, n), (False, 0)), (len(found) > 1, step))
    taken = [r for r in results if r.spec.step == best[r.spec.run, r.spec.n][1]]
    of_n = defaultdict(set)
    for r in taken:
        of_n[r.spec.n].add(r.evaluations)
    return [r for r in taken if len(of_n[r.spec.n]) > 1]


def end_names(ends: Sequence[Result], results: Sequence[Result], text: str) -> list[str]:
    """`text` for each of the results' yardsticks, followed by what tells it from the others."""
    several_data = len({end.data for end in ends}) > 1
    several_counts = len({end.spec.n for end in ends}) > 1
    several_runs = len({result.spec.run for result in results}) > 1
    names = []
    for end in ends:
        parts = [text]
        if several_data:
            parts.append(end.data)
        if several_counts:
            parts.append(f"for {end.spec.n:,} images")
        # The same data may have another size in another run, or change during one.
        alike = [e for e in ends if (e.data, e.spec.n) == (end.data, end.spec.n)]
        if len(alike) > 1 and several_runs:
            held = [r for r in results if (r.data, r.fingerprint) == (end.data, end.fingerprint)]
            parts.append(f"as in {' and '.join(dict.fromkeys(r.spec.run for r in held))}")
        elif any(other.written > end.written for other in alike):
            parts.append("before the data changed")
        names.append(", ".join(parts))
    return names


def training_figure(results: Sequence[Result], metric: Metric) -> go.Figure | None:
    """The metric over the training steps, a line for each run and way to sample.

    None if no way was measured at several steps.
    """
    return _figure(
        results,
        metric,
        over_training,
        line_of=lambda r: r.way(),
        x_of=lambda r: r.spec.step,
        x_title="training step",
    )


def cost_figure(results: Sequence[Result], metric: Metric) -> go.Figure | None:
    """The metric versus network evaluations per image, on a logarithmic axis, of the results that
    `over_cost` chooses.

    A line for each run, step and way to sample. None if there is only one cost.
    """
    return _figure(
        results,
        metric,
        over_cost,
        line_of=lambda r: f"{r.way(with_steps=False)}, step {r.spec.step:,}",
        x_of=lambda r: r.evaluations,
        x_title="network evaluations per image",
        logarithmic=True,
    )


def over_length(results: Sequence[Result]) -> list[Result]:
    """Results of post-hoc averages, of which one way to sample was measured with several."""
    of = defaultdict(set)
    post_hoc = [r for r in results if length_in(r.spec.average) is not None]
    for r in post_hoc:
        of[_apart_from_length(r)].add(r.spec.average)
    return [r for r in post_hoc if len(of[_apart_from_length(r)]) > 1]


def _apart_from_length(result: Result) -> tuple[str, int, int, str]:
    spec = result.spec
    return spec.run, spec.n, spec.step, result.way(with_average=False)


def length_figure(results: Sequence[Result], metric: Metric) -> go.Figure | None:
    """The metric over the length of the averaged weights, a line for each run, step and way.

    None if no way was measured with several post-hoc averages of the same step.
    """
    return _figure(
        results,
        metric,
        over_length,
        line_of=lambda r: f"{r.way(with_average=False)}, step {r.spec.step:,}",
        x_of=lambda r: length_in(r.spec.average) or 0.0,
        x_title="length of the average, as a share of the training",
        logarithmic=True,
    )


def wrapped(name: str) -> str:
    """The name of a line for the legend, in several rows where it is long."""
    parts = textwrap.wrap(name, CHARACTERS_A_ROW, max_lines=ROWS_A_NAME, placeholder="…")
    return "<br>".join(label(part) for part in parts)


def _figure(
    results: Sequence[Result],
    metric: Metric,
    choose: Callable[[Sequence[Result]], list[Result]],
    *,
    line_of: Callable[[Result], str],
    x_of: Callable[[Result], float],
    x_title: str,
    logarithmic: bool = False,  # the x axis, with a tick at every value
) -> go.Figure | None:
    """Lines with bars for the 95 % intervals; the floors are grey and dashed.

    The name of a line includes its run and number of images if all results with the metric, chosen
    or not, differ in them.
    """
    measured = [result for result in results if metric.name in result.metrics]
    taken = choose(measured)
    if not taken:
        return None
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    several_runs = len({result.spec.run for result in measured}) > 1
    several_counts = len({result.spec.n for result in measured}) > 1
    for result in taken:
        name = f"{result.spec.run}: {line_of(result)}" if several_runs else line_of(result)
        if several_counts:
            name += f", {result.spec.n:,} images"
        lines.setdefault(name, []).append((x_of(result), result.metrics[metric.name]))
    figure = go.Figure()
    scale = 100 if metric.percent else 1
    legend = [wrapped(name) for name in lines]
    for k, (name, points) in enumerate(zip(legend, lines.values(), strict=True)):
        points.sort(key=lambda point: point[0])
        estimates = [estimate for _, estimate in points]
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[scale * e.value for e in estimates],
            name=name,
            mode="lines+markers",
            line={"color": COLOURS[k % len(COLOURS)], "width": 1.5},
            marker={"size": 7},
            error_y={
                "array": [scale * (e.high - e.value) for e in estimates],
                "arrayminus": [scale * (e.value - e.low) for e in estimates],
                "thickness": 1.2,
                "width": 4,
            },
            customdata=[f"{metric.format(e.low)} to {metric.format(e.high)}" for e in estimates],
            hovertemplate=f"%{{x:,}}: %{{y:.3~g}} (%{{customdata}})<extra>{name}</extra>",
        )
    floors = [end for end in yardsticks(taken) if metric.name in end.floor]
    names = list(map(wrapped, end_names(floors, taken, "held-out real images")))
    for end, name, dash in zip(floors, names, cycle(("dash", "dot", "dashdot"))):
        line = {"color": GREY, "width": 1.2, "dash": dash}
        figure.add_hline(y=scale * end.floor[metric.name].value, line=line)
        figure.add_scatter(x=[None], y=[None], name=name, mode="lines", line=line)  # its legend
    title = metric.title + (", %" if metric.percent else "")
    rows = sum(name.count("<br>") + 1 for name in (*legend, *names))
    finish(figure, x_title, title, height=300 + ROW_HEIGHT * min(rows, MOST_ROWS))
    figure.update_layout(showlegend=True)
    # A zoomed range is meaningless for another metric.
    figure.update_xaxes(uirevision=x_title)
    figure.update_yaxes(uirevision=metric.name, tickformat=",~g", rangemode="tozero")
    if not logarithmic:
        return figure.update_xaxes(tickformat=",~r")
    values = sorted({x_of(result) for result in taken})
    ticks = [f"{value:,}" for value in values]
    return figure.update_xaxes(type="log", tickvals=values, ticktext=ticks)
