"""The Network page's figures: a trace as a U, and what each of its blocks costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, finish
from diffusion_core.models.inside import Histogram
from diffusion_core.models.trace import Shape, Trace, TraceRow

QUIET = COLOURS[6]
# What a part of the network is called in the legend, and its colour.
PARTS = {
    "image": ("input and output", QUIET),
    "down": ("down", COLOURS[0]),
    "middle": ("middle", COLOURS[2]),
    "up": ("up", COLOURS[1]),
    "time": ("timestep and class", COLOURS[3]),
}
PART_OF = {"downs": "down", "middle": "middle", "ups": "up"}
PART_OF |= {"time_mlp": "time", "label_embedding": "time"}

GAP = 7.0  # between rectangles, in the unit of their width: the root of a channel
ROW = 10.0  # height of the highest rectangle
LANE = 1.6  # between two skips of one row
BAR = {
    "textposition": "inside",
    "insidetextanchor": "middle",
    "insidetextfont": {"size": 12},
    "textangle": 0,  # a narrow box has none rather than one that is turned
    "hovertemplate": "%{customdata[0]}<extra></extra>",
}
FRAME = {"line": {"color": COLOURS[4], "width": 3}, "layer": "above"}
Rows = dict[int, tuple[float, float]]  # where the row of a resolution lies: bottom and top


@dataclass(frozen=True)
class Box:
    """A rectangle of the U: what a block hands on, or the skip that is joined to it."""

    row: int  # its index in Trace.rows; -1: the image that goes in
    part: str
    shape: Shape
    hover: str
    left: float
    skip_from: int | None = None

    @property
    def width(self) -> float:
        return max(3.0, self.shape[1] ** 0.5)

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def centre(self) -> float:
        return self.left + self.width / 2


def short(number: float) -> str:
    """A count in three figures: 512, 62.4 M, 5.73 G."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:,.0f}" if isinstance(number, int) or number >= 1000 else f"{number:.3g}"


def shape_text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"


def unet_figure(trace: Trace, chosen: str = "", legend: bool = True) -> go.Figure:
    """The U: a rectangle for what each block hands on, in order from left to right.

    Width follows the root of the channels, height the root of the resolution; a row of the figure
    is a resolution. A skip ends where its copy is joined to what comes up. `chosen`: the block with
    a frame. `customdata` of a rectangle is what it says and its block.
    """
    boxes = _boxes(trace)
    lanes = _lanes(boxes)
    rows: Rows = {}
    y = 0.0
    for size in sorted({box.shape[2] for box in boxes}, reverse=True):
        in_row = [lanes[k] for k, box in enumerate(boxes) if k in lanes and box.shape[2] == size]
        top = y - 1.5 - LANE * max(in_row, default=0)
        y = top - ROW * max(0.2, (size / trace.image[2]) ** 0.5)
        rows[size] = (y, top)

    figure = go.Figure()
    _add_flow(figure, boxes, rows)
    _add_skips(figure, boxes, lanes, rows)
    for part, (name, colour) in PARTS.items():
        own = [box for box in boxes if box.part == part and box.skip_from is None]
        _add_boxes(figure, trace, own, rows, name=name, marker=_marker(colour))
    skips = [box for box in boxes if box.skip_from is not None]
    _add_boxes(
        figure,
        trace,
        skips,
        rows,
        name="skip, concatenated",
        marker={"color": "rgba(0, 0, 0, 0)", "line": {"width": 1.5, "color": COLOURS[0]}},
        insidetextfont={"size": 12, "color": COLOURS[0]},
    )
    ticks = {f"{size}×{size}": (bottom + top) / 2 for size, (bottom, top) in rows.items()}
    ticks |= _add_conditions(figure, trace, boxes, y)

    pixels = 24 * len(rows) + 9 * -y
    finish(figure, "", "", height=round(pixels) + 60)
    figure.update_layout(
        barmode="overlay",
        hovermode="closest",
        uniformtext={"minsize": 8, "mode": "hide"},
        margin={"l": 52},
        dragmode=False,
        uirevision=None,
        showlegend=legend,
    )
    for x, base, width, height, (_, block) in _rectangles(figure):
        if chosen and block == chosen:
            corners = {"x0": x - width / 2, "x1": x + width / 2, "y0": base, "y1": base + height}
            figure.add_shape(type="rect", **corners, **FRAME)
    figure.update_xaxes(visible=False, fixedrange=True, range=[-2, boxes[-1].right + 2])
    return figure.update_yaxes(
        tickvals=list(ticks.values()),
        ticktext=list(ticks),
        automargin=False,
        showgrid=False,
        showline=False,
        zeroline=False,
        fixedrange=True,
    )


def _rectangles(figure: go.Figure) -> Iterator[tuple[float, float, float, float, list[str]]]:
    """Of each rectangle centre, base, width, height, and what it says."""
    for bar in figure.data:
        if bar.type == "bar":
            yield from zip(bar.x, bar.base, bar.width, bar.y, bar.customdata, strict=True)


def _boxes(trace: Trace) -> list[Box]:
    """The rectangles from left to right; a skip's stands right behind what it is joined to."""
    image = f"<b>x_t</b>, the noisy image<br>{shape_text(trace.image)}"
    boxes = [Box(-1, "image", trace.image, image, 0.0)]
    for index, row in enumerate(trace.rows):
        part = PART_OF.get(row.part, "image")
        same_shape = row.inputs[0] == row.output and not row.multiply_adds
        if row.depth or part == "time" or same_shape:
            continue
        if row.skip_from is None:
            boxes.append(Box(index, part, row.output, hover_text(row), boxes[-1].right + GAP))
        else:
            hover = (
                f"<b>{row.what}</b><br>{' + '.join(map(shape_text, row.inputs))}"
                f"<br>gives {shape_text(row.output)}"
            )
            boxes.append(Box(index, "up", row.inputs[1], hover, boxes[-1].right, row.skip_from))
    return boxes


def block_of(trace: Trace, box: Box) -> str:
    """The block of a rectangle: of a skip the one that it comes from; empty where there is none."""
    row = trace.rows[box.row if box.skip_from is None else box.skip_from]
    return row.name if box.row >= 0 and row.parameters else ""


def _lanes(boxes: list[Box]) -> dict[int, int]:
    """For each skip's rectangle how high its line runs: 1 is the lowest, inside the others."""
    lanes: dict[int, int] = {}
    for k, box in enumerate(boxes):
        if box.skip_from is not None:
            inside = [
                lanes[j]
                for j in lanes
                if boxes[j].shape[2] == box.shape[2] and (boxes[j].skip_from or 0) > box.skip_from
            ]
            lanes[k] = 1 + max(inside, default=0)
    return lanes


def _marker(colour: str) -> dict[str, Any]:
    return {"color": colour, "line": {"width": 0}}


def _add_boxes(figure: go.Figure, trace: Trace, boxes: list[Box], rows: Rows, **look: Any) -> None:
    if not boxes:
        return
    spans = [rows[box.shape[2]] for box in boxes]
    figure.add_bar(
        x=[box.centre for box in boxes],
        y=[top - bottom for bottom, top in spans],
        base=[bottom for bottom, _ in spans],
        width=[box.width for box in boxes],
        text=[str(box.shape[1]) for box in boxes],
        customdata=[[box.hover, block_of(trace, box)] for box in boxes],
        **BAR | look,
    )


def _add_flow(figure: go.Figure, boxes: list[Box], rows: Rows) -> None:
    """Arrows from each rectangle to the next."""
    paths = []
    for box, after in pairwise(boxes):
        if after.skip_from is not None:
            continue
        here, there = rows[box.shape[2]], rows[after.shape[2]]
        middle, target = sum(here) / 2, sum(there) / 2
        if here == there:
            paths.append([(box.right, middle), (after.left, middle)])
        elif there < here:
            paths.append([(box.centre, here[0]), (box.centre, target), (after.left, target)])
        else:
            paths.append([(box.right, middle), (after.centre, middle), (after.centre, there[0])])
    _add_arrows(figure, paths, "flow", QUIET)


def _add_skips(figure: go.Figure, boxes: list[Box], lanes: dict[int, int], rows: Rows) -> None:
    made_by: dict[int | None, Box] = {box.row: box for box in boxes if box.skip_from is None}
    paths = []
    for k, lane in lanes.items():
        source, copy = made_by[boxes[k].skip_from], boxes[k]
        _, top = rows[copy.shape[2]]
        over = top + LANE * lane
        start, end = source.centre, copy.centre
        paths.append([(start, top), (start, over), (end, over), (end, top)])
    _add_arrows(figure, paths, "skips", COLOURS[0])


def _add_arrows(
    figure: go.Figure, paths: list[list[tuple[float, float]]], name: str, colour: str
) -> None:
    """A line through the points (x, y) of each path, with a head at its end."""
    gap = (None, None)
    points = [point for path in paths for point in (*path, gap)]
    ends = [after == gap for after in [*points[1:], gap]]
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={
            "color": colour,
            "symbol": ["arrow" if end else "circle" for end in ends],
            "size": [8 if end else 0 for end in ends],
            "angleref": "previous",
            "line": {"width": 0},
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _add_conditions(
    figure: go.Figure, trace: Trace, boxes: list[Box], y: float
) -> dict[str, float]:
    """Bars below the U for the step and the class, as wide as the blocks that are given them.

    Returns the labels beside them and their heights.
    """
    rows = [row for row in trace.blocks if PART_OF.get(row.part) == "time"]
    # Those are given the embedding of t beside their image.
    told = [
        box
        for box in boxes
        if box.row >= 0 and box.skip_from is None and len(trace.rows[box.row].inputs) == 2
    ]
    name, colour = PARTS["time"]
    ticks = {}
    for row in rows:
        y -= 3.2
        ticks["t" if row.part == "time_mlp" else "class"] = y + 1
        figure.add_bar(
            x=[(told[0].left + told[-1].right) / 2],
            y=[2.0],
            base=[y],
            width=[told[-1].right - told[0].left],
            text=[f"{row.output[1]} dimensions, given to every block above"],
            customdata=[[hover_text(row), row.name]],
            name=name,
            legendgroup="time",
            showlegend=row is rows[0],
            marker={"color": colour, "line": {"width": 0}},
            **BAR,
        )
    return ticks


def hover_text(row: TraceRow) -> str:
    inputs = " and ".join(map(shape_text, row.inputs))
    return (
        f"<b>{row.name}</b>, {row.what}<br>in {inputs}<br>out {shape_text(row.output)}"
        f"<br>parameters {row.parameters:,}<br>multiply-adds {row.multiply_adds:,}"
    )


def cost_figure(trace: Trace, quantity: str) -> go.Figure:
    """`quantity` ("parameters" or "multiply_adds") of every block that has any, as bars."""
    rows = [row for row in trace.blocks if row.parameters or row.multiply_adds]
    return bars_figure(rows, [getattr(row, quantity) for row in rows], quantity.replace("_", "-"))


def bars_figure(rows: Sequence[TraceRow], values: Sequence[float], unit: str) -> go.Figure:
    """A value of each of some blocks as bars."""
    total = sum(values) or 1.0
    colours = [PARTS[PART_OF.get(row.part, "image")][1] for row in rows]
    figure = go.Figure()
    figure.add_bar(
        x=list(values),
        y=[row.name for row in rows],
        orientation="h",
        marker={"color": colours, "line": {"width": 0}},
        text=[short(value) for value in values],
        textposition="outside",  # inside a bar it is made too small to read
        customdata=[
            f"<b>{row.name}</b>, {row.what}<br>{exact(value)} {unit}<br>{value / total:.1%} of all"
            for row, value in zip(rows, values, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
    finish(figure, unit, "", height=60 + 24 * len(rows))
    figure.update_layout(showlegend=False, uirevision=None)
    room = 1.2 * max(values)  # for the text of the longest bar, on a phone too
    figure.update_xaxes(tickformat="~s", nticks=6, fixedrange=True, range=[0, room])
    return figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[row.name for row in reversed(rows)],
        dtick=1,
        showgrid=False,
        fixedrange=True,
    )


def exact(value: float) -> str:
    """12,345 or 0.123."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def histogram_figure(found: Histogram, name: str) -> go.Figure:
    """How the values of a block are spread."""
    edges = found.edges
    figure = go.Figure()
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=found.counts,
        width=np.diff(edges),
        marker={"color": COLOURS[0], "line": {"width": 0}},
        customdata=[
            f"{low:.3g} to {high:.3g}<br>{count:,} {name}"
            for low, high, count in zip(edges[:-1], edges[1:], found.counts, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
    finish(figure, name, "", height=240)
    figure.update_layout(showlegend=False, uirevision=None, bargap=0)
    return figure


def skips_figure(errors: Mapping[str, Mapping[str, float]], unit: str) -> go.Figure:
    """The errors without each skip: by what is predicted, by the skip's name."""
    figure = go.Figure()
    for (predicted, of_skips), colour in zip(errors.items(), COLOURS, strict=False):
        figure.add_bar(
            x=list(of_skips.values()),
            y=list(of_skips),
            orientation="h",
            name=predicted,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{y}<br>%{x:.3g}<extra>" + predicted + "</extra>",
        )
    names = next(iter(errors.values()))
    finish(figure, unit, "", height=90 + 34 * len(names))
    figure.update_layout(uirevision=None)
    figure.update_xaxes(fixedrange=True, rangemode="tozero")
    return figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=list(names)[::-1],
        dtick=1,
        showgrid=False,
        fixedrange=True,
    )
