"""The Training page's figures: losses and the trainer's other curves over the steps."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, SEQUENTIAL, finish, label
from diffusion_core.runs.metrics import BIN_NAMES, TIMESTEP_BINS

# step, value, from a run wall_time; x: where it lies on the axis, if that is not the step.
Curve = dict[str, np.ndarray]

LECTURE_LOSSES = Path(__file__).with_name("lecture_losses.csv")
LECTURE_BATCH = 128
MOST_STRETCHES = 120  # columns of the heatmap
FEW_STEPS = 10  # up to so many an axis would have ticks between two of them
CHANGE_ROWS = 4  # the labels of changes take turns at so many heights


@functools.cache
def lecture_losses() -> Curve:
    """The losses that the lecture printed, 252 steps from 1."""
    values = np.loadtxt(LECTURE_LOSSES, delimiter=",", skiprows=1, usecols=2)
    return {"step": np.arange(1, len(values) + 1), "value": values}


def smoothed(values: np.ndarray, smoothing: float) -> np.ndarray:
    """An exponential average with weight `smoothing` in [0, 1) on the past.

    Divided by the weight that has come together, so that it does not start from zero.
    """

    def summed(values: np.ndarray) -> np.ndarray:
        return np.array(list(accumulate(values.tolist(), lambda past, new: smoothing * past + new)))

    return summed(values) / summed(np.ones(len(values)))


def loss_figure(
    losses: dict[str, Curve],
    validation: dict[str, Curve],
    smoothing: float,
    logarithmic: bool,
    with_lecture: bool,
    *,
    x_title: str = "step",
    y_title: str = "loss",
    lecture_scale: float = 1.0,
    about: Mapping[str, Sequence[str]] | None = None,
    changes: Mapping[str, Sequence[tuple[float, str]]] | None = None,
) -> go.Figure:
    """Raw (faint) and smoothed loss of each run, its validation loss, the lecture's own losses.

    Both dictionaries have the same runs by name; the first is on top. Of several runs each has
    one entry in the legend for its loss and one for its validation loss. `y_title`: the losses may
    be another curve. `lecture_scale`: a step of the lecture on the x axis. `about`: of each run,
    lines that are shown with its name on the pointer. `changes`: of each run, where its settings
    were changed on the x axis and how; a dashed grey line with these words marks it.
    """
    figure = go.Figure()
    several = len(losses) > 1
    longest, marks = _longest(losses.values()), 0
    for k, (name, curve) in enumerate(losses.items()):
        colour = COLOURS[k % len(COLOURS)]
        # A single run's curves stand on their own in the legend.
        run = {"legendgroup": name if several else None, "mode": "lines", "zorder": -k}
        told = _told(name, about, x_title, y_title)
        x = curve.get("x", curve["step"])
        figure.add_scatter(
            x=x,
            y=curve["value"],
            name=label(name) if several else y_title,
            line={"color": colour, "width": 1},
            opacity=0.35 if smoothing else 1,
            showlegend=not (several and smoothing),
            **({"hoverinfo": "skip"} if several and smoothing else told),
            **run,
        )
        if smoothing:
            figure.add_scatter(
                x=x,
                y=smoothed(curve["value"], smoothing),
                name=label(name) if several else "smoothed",
                line={"color": colour, "width": 2.5},
                **told,
                **run,
            )
        held_out = validation[name]
        if len(held_out["step"]):
            figure.add_scatter(
                x=held_out.get("x", held_out["step"]),
                y=held_out["value"],
                name=f"{label(name)}, validation" if several else "validation",
                line={"color": colour, "width": 1.5, "dash": "dot"},
                marker={"size": 5},
                mode="lines+markers",
                zorder=-k,
                **_told(name, about, x_title, f"validation {y_title}"),
            )
        for at, text in (changes or {}).get(name, ()):
            what = label(f"{name}, {text}" if several else text)
            # A curve on an axis of its own, since a shape has no tooltip.
            figure.add_scatter(
                x=[at, at, at],
                y=[0, 0.97 - 0.06 * (marks % CHANGE_ROWS), 1],
                yaxis="y2",
                name="change",
                text=["", f"\N{NO-BREAK SPACE}{what}\N{NO-BREAK SPACE}", ""],
                textposition="middle left" if at > longest / 2 else "middle right",
                textfont={"color": GREY},
                line={"color": GREY, "width": 1, "dash": "dash"},
                showlegend=False,
                hovertemplate=f"{what}<extra></extra>",
                **run | {"mode": "lines+text"},
            )
            marks += 1
    if with_lecture:
        printed = lecture_losses()
        figure.add_scatter(
            x=printed["step"] * lecture_scale,
            y=printed["value"],
            name="the lecture's loss",
            mode="lines",
            line={"color": GREY, "width": 1.5},
        )
    finish(figure, x_title, y_title, height=420, logarithmic=logarithmic)
    # A range that somebody zoomed to means something else on another kind of axis.
    figure.update_xaxes(uirevision=x_title, dtick=_whole_ticks(longest, x_title))
    figure.update_yaxes(uirevision="logarithmic" if logarithmic else "linear", tickformat=".2~g")
    if logarithmic:
        figure.update_yaxes(dtick="D2")  # labels at 1, 2 and 5 of each power
    return figure.update_layout(
        hovermode="closest" if about else "x unified",
        yaxis2={"overlaying": "y", "range": [0, 1], "fixedrange": True, "visible": False},
    )


def _told(
    name: str, about: Mapping[str, Sequence[str]] | None, x_title: str, y_title: str
) -> dict[str, str]:
    """What the pointer shows on the curve of a run; empty without anything about the runs."""
    if about is None:
        return {}
    lines = [f"<b>{label(name)}</b>", f"{y_title} %{{y:.4~g}}", f"{x_title} %{{x:.6~g}}"]
    return {"hovertemplate": "<br>".join([*lines, *map(label, about[name])]) + "<extra></extra>"}


def column_edges(curves: list[Curve]) -> np.ndarray:
    """Where the heatmap's columns begin and end, in steps.

    A number stands for the steps since the one before it, so columns end at numbers; a small batch
    does not meet every tenth each time, so they are wide enough for the rarest one.
    """
    steps = np.unique(np.concatenate([curve["step"] for curve in curves]))
    count = min(MOST_STRETCHES, *(len(curve["step"]) for curve in curves), len(steps))
    ends = steps[np.arange(1, count + 1) * len(steps) // count - 1]
    width = steps[1] - steps[0] if len(steps) > 1 else 1
    return np.concatenate([[max(0, steps[0] - width)], ends]) + 0.5


def timestep_figure(curves: dict[str, Curve]) -> go.Figure:
    """Loss by tenth of the schedule (rows, noisier upwards) over the steps (columns).

    `curves` has the names of BIN_NAMES; at least one must not be empty.
    """
    known = [curve for name in BIN_NAMES if len((curve := curves[name])["step"])]
    edges = column_edges(known)
    rows = []
    for name in BIN_NAMES:
        curve = curves[name]
        total, _ = np.histogram(curve["step"], edges, weights=curve["value"])
        count, _ = np.histogram(curve["step"], edges)
        rows.append(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))
    tenths = [
        f"{k / TIMESTEP_BINS:.0%} to {(k + 1) / TIMESTEP_BINS:.0%}" for k in range(TIMESTEP_BINS)
    ]
    figure = go.Figure(
        go.Heatmap(
            x=edges,
            y=tenths,
            z=np.log10(np.maximum(rows, 1e-8)),
            customdata=np.array(rows),
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "log₁₀ loss"}, "thickness": 12},
            hovertemplate="around step %{x:.0f}<br>t in %{y} of T<br>"
            "loss %{customdata:.4f}<extra></extra>",
            hoverongaps=False,
        )
    )
    if (empty := np.argwhere(np.isnan(rows))).size:
        figure.add_bar(
            orientation="h",
            y=[tenths[row] for row, _ in empty],
            base=edges[empty[:, 1]],
            x=np.diff(edges)[empty[:, 1]],
            width=1,
            name="no data yet",
            showlegend=True,
            hoverinfo="skip",
            marker={
                "color": "rgba(0,0,0,0)",
                "line": {"width": 0},
                "pattern": {"shape": "/", "size": 6, "solidity": 0.15, "fgcolor": GREY},
            },
        )
    finish(figure, "step", "timestep t, of T")
    figure.update_layout(barmode="overlay").update_xaxes(dtick=_whole_ticks(edges[-1], "step"))
    # `finish` makes a numbers' axis of it; its labels are long and need room beside the title.
    return figure.update_yaxes(type="category", showgrid=False, title_standoff=12)


def curve_figure(curves: dict[str, Curve], title: str, *, percent: bool = False) -> go.Figure:
    """Plain curves over the steps by their names, with a legend where there are several."""
    figure = go.Figure()
    for k, (name, curve) in enumerate(curves.items()):
        figure.add_scatter(
            x=curve["step"],
            y=curve["value"],
            name=name,
            mode="lines",
            line={"color": COLOURS[k % len(COLOURS)], "width": 1.5},
        )
    finish(figure, "step", title, height=300)
    figure.update_xaxes(dtick=_whole_ticks(_longest(curves.values()), "step"))
    if percent:
        figure.update_yaxes(tickformat=".0%", range=[0, 1.02])
    return figure


def evaluation_figure(
    curves: Mapping[str, tuple[Curve, Curve, Curve]],
    title: str,
    *,
    percent: bool = False,
    most: float | None = None,
) -> go.Figure:
    """Measured values over the steps with their intervals as bands, by the names of the runs.

    Each has its value and the ends of the interval. `most`: a dashed line at what is still likely.
    """
    figure = go.Figure()
    for k, (name, (value, low, high)) in enumerate(curves.items()):
        colour = COLOURS[k % len(COLOURS)]
        figure.add_scatter(
            x=np.concatenate([low["step"], high["step"][::-1]]),
            y=np.concatenate([low["value"], high["value"][::-1]]),
            fill="toself",
            fillcolor=colour,
            opacity=0.2,
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
        ends = np.stack([low["value"], high["value"]], axis=1)
        number = ".1%" if percent else ".3~g"
        figure.add_scatter(
            x=value["step"],
            y=value["value"],
            customdata=ends,
            name=label(name),
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"size": 7},
            legendgroup=name,
            showlegend=len(curves) > 1,
            hovertemplate=f"%{{x:,}}: %{{y:{number}}} (%{{customdata[0]:{number}}} to "
            f"%{{customdata[1]:{number}}})<extra>{label(name)}</extra>",
        )
    if most is not None:
        longest = _longest(value for value, *_ in curves.values())
        figure.add_scatter(
            x=[0, longest],
            y=[most, most],
            name="most without memorisation",
            mode="lines",
            line={"color": GREY, "width": 1.2, "dash": "dash"},
            showlegend=True,
            hovertemplate=f"%{{y:.1%}}<extra>{'most without memorisation'}</extra>",
        )
    finish(figure, "step", title, height=300)
    figure.update_xaxes(rangemode="tozero")
    return figure.update_yaxes(tickformat=".0%" if percent else ",~g", rangemode="tozero")


def _longest(curves: Iterable[Curve]) -> float:
    """Where the longest of some curves ends on the x axis."""
    return max((x[-1] for each in curves if len(x := each.get("x", each["step"]))), default=0)


def _whole_ticks(longest: float, x_title: str) -> int | None:
    """The distance of the ticks on an axis of so many steps; None: Plotly chooses."""
    return 1 if x_title == "step" and longest < FEW_STEPS + 1 else None
