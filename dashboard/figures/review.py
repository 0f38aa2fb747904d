"""The Review page's figures: results with their intervals, and settings beside a result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish, label
from diffusion_core.review.index import Value
from diffusion_core.text import value_text

DECADES = 20  # an axis whose largest value is so many times the smallest is logarithmic
MOST_TICKS = 8
LONGEST_TICK, LONGEST_TITLE = 14, 22  # characters


@dataclass(frozen=True)
class Dot:
    """A result with its 95 % interval."""

    line: str  # what stands beside it
    value: float
    low: float
    high: float
    colour: int  # number of the run


def interval_figure(dots: Sequence[Dot], title: str, floor: float | None) -> go.Figure:
    """A line for each result, the first on top; `floor`: that of held-out real images."""
    figure = go.Figure()
    for k, dot in enumerate(dots):
        colour = COLOURS[dot.colour % len(COLOURS)]
        figure.add_scatter(
            x=[dot.value],
            y=[-k],
            name=label(dot.line),
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [dot.high - dot.value],
                "arrayminus": [dot.value - dot.low],
                "color": colour,
            },
            mode="markers",
            marker={"color": colour, "size": 10},
            showlegend=False,
            hovertemplate=f"{label(dot.line)}<br>%{{x:.4~g}} ({dot.low:.4g} to {dot.high:.4g})"
            "<extra></extra>",
        )
        # Above its line, where a phone has room for it.
        figure.add_annotation(
            text=label(_short(dot.line, 48)),
            x=0,
            xref="paper",
            xanchor="left",
            y=-k,
            yshift=14,
            showarrow=False,
        )
    finish(figure, title, "", height=80 + 40 * len(dots))
    if floor is not None:
        figure.add_vline(floor, line={"color": GREY, "dash": "dash", "width": 1})
    return figure.update_yaxes(
        tickvals=[-k for k in range(len(dots))],
        showticklabels=False,
        range=[0.5 - len(dots), 0.8],
        uirevision=title,
    )


@dataclass(frozen=True)
class Axis:
    """One of the parallel axes: a value of each run, None where it has none."""

    name: str
    values: Sequence[Value | None]


def parallel_figure(axes: Sequence[Axis], result: Axis) -> go.Figure:
    """A line for each run through its values, coloured by its result, which all of them have."""
    dimensions = [_dimension(axis) for axis in (*axes, result)]
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": dimensions[-1]["values"],
                # Of a sequential scale one end is hardly to be seen.
                "colorscale": [[0, COLOURS[0]], [1, COLOURS[1]]],
                "showscale": False,
            },
            labelside="top",
            labelangle=-12,
        )
    )
    finish(figure, "", "", height=420)
    return figure.update_layout(margin={"l": 60, "r": 60, "t": 80, "b": 24})


def _dimension(axis: Axis) -> dict[str, object]:
    """Numbers where all values are, logarithmic over decades; else a place for each value."""
    name = axis.name if len(axis.name) <= LONGEST_TITLE else axis.name.rpartition(".")[2]
    found = {"label": label(_short(name, LONGEST_TITLE))}
    numbers = [
        float(value)
        for value in axis.values
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if len(numbers) < len(axis.values):
        texts = [value_text(value) for value in axis.values]
        places = {text: k for k, text in enumerate(sorted(set(texts)))}
        ticks = [(_short(text, LONGEST_TICK), float(k)) for text, k in places.items()]
        return found | _ticks([float(places[text]) for text in texts], ticks)
    logarithmic = min(numbers) > 0 and max(numbers) / min(numbers) >= DECADES
    places_of = [math.log10(number) if logarithmic else number for number in numbers]
    distinct = sorted(dict(zip(numbers, places_of, strict=True)).items())
    if len(distinct) <= MOST_TICKS:
        return found | _ticks(places_of, [(f"{number:.4g}", place) for number, place in distinct])
    if logarithmic:
        low, high = math.floor(min(places_of)), math.ceil(max(places_of))
        powers = range(low, high + 1)
        return found | _ticks(places_of, [(f"{10.0**power:g}", float(power)) for power in powers])
    return found | {"values": places_of}


def _ticks(values: Sequence[float], ticks: Sequence[tuple[str, float]]) -> dict[str, object]:
    ends = [*values, *(place for _, place in ticks)]
    low, high = min(ends), max(ends)
    return {
        "values": list(values),
        "tickvals": [place for _, place in ticks],
        "ticktext": [label(text) for text, _ in ticks],
        # A single value lies in the middle.
        "range": [low, high] if low < high else [low - 1, high + 1],
    }


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
