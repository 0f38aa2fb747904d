"""The loss chart of a run and the runs that it is compared with, on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import streamlit as st

from dashboard.components.chart.chart import Packed, pack, show_packed
from dashboard.figures.training import LECTURE_BATCH, Curve, loss_figure
from dashboard.services import cached
from dashboard.services.shared_look import metrics_stamp, once
from dashboard.training.alignment import ALIGNMENTS, axis_unit, place
from dashboard.training.events import events
from dashboard.ui import run_wording
from dashboard.ui.controls import Choice, MultiChoice, Number, Text, Toggle
from dashboard.ui.outside import code, plain
from diffusion_core.review.differences import differences
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.run import RunSnapshot

SMOOTHING = Number(
    key="smoothing",
    label="Smoothing",
    low=0.0,
    high=0.99,
    default=0.9,
    step=0.01,
    slider=True,
    help="Exponential smoothing of the bold curve: the weight of past values.",
)
LOGARITHMIC = Toggle(key="log", label="Logarithmic")
LOSS = "loss"
NOTHING: Curve = {key: np.zeros(0) for key in ("step", "value", "wall_time", "x")}
MOST_LINES = 8  # of settings, on the pointer
MOST_COMPARED = 100
COMPARED = MultiChoice(
    key="compare", label="Compare with", one=Text(key="", label=""), most=MOST_COMPARED
)
ALIGN = Choice(
    key="align",
    label="Align by",
    options=ALIGNMENTS,
    default="step",
    segmented=True,
    help="How curves and samples of several runs are aligned: by step, by number of images seen, "
    "or by training time without pauses.",
)


def show_losses(run: RunSnapshot, others: Sequence[RunSnapshot]) -> tuple[list[RunSnapshot], str]:
    """The chart with its controls; returns the runs to compare with and the alignment."""
    columns = st.columns([3, 2, 4, 4], vertical_alignment="bottom")
    with columns[0]:
        smoothing = SMOOTHING.ask()
    with columns[1]:
        logarithmic = LOGARITHMIC.ask()
    with columns[2]:
        compared = _pick_compared(others)
    with columns[3], st.container(gap=None):
        alignment = ALIGN.ask()
        st.space("xsmall")  # its buttons are lower than the field beside it
    made = show_curves([run, *compared], LOSS, smoothing, logarithmic, alignment)
    if made.chart is None:
        st.caption(run_wording.no_losses(run))
    elif run.config is not None:
        _show_caption(run.config, made, bool(compared))
    return compared, alignment


def show_curves(
    runs: Sequence[RunSnapshot], name: str, smoothing: float, logarithmic: bool, alignment: str
) -> Made:
    """The chart of one curve of some runs, with what was wrong; nothing where none has it."""
    # What the chart is made of; it is made once for all who see it.
    content = [(each.path, metrics_stamp(each.run), _settings_key(each)) for each in runs]
    made = once(
        ("losses", *content, name, smoothing, logarithmic, alignment),
        lambda: _make_chart(runs, name, smoothing, logarithmic, alignment),
    )
    for sentence in made.problems:
        st.warning(sentence)
    if made.chart is not None:
        show_packed(made.chart, key=f"{name}-{runs[0].name}", alt=made.alt)
    return made


class Made(NamedTuple):
    """The chart of some runs, and what is said of it."""

    chart: Packed | None = None  # None before the first steps
    alt: str = ""
    with_lecture: bool = False
    validated: bool = False  # the first of them has a validation loss
    changed: bool = False  # a setting of one of them was changed
    problems: tuple[str, ...] = ()


def _settings_key(run: RunSnapshot) -> str:
    """What differs when something of a run that the chart shows does, beside its curves."""
    return repr((run.start, run.changes, run.config, run.problem))


def _make_chart(
    runs: Sequence[RunSnapshot], name: str, smoothing: float, logarithmic: bool, alignment: str
) -> Made:
    """Of the first run and those that it is compared with."""
    run, problems = runs[0], list[str]()
    losses, validation, changes = {}, {}, {}
    for each in runs:
        losses[each.name] = _located_curve(each, name, alignment)
        validation[each.name] = NOTHING
        if name == LOSS:
            validation[each.name] = _located_curve(each, "validation_loss", alignment)
        # Why the settings of the run itself cannot be read is said above.
        is_said = each is run and run.config is None
        changes[each.name] = [] if is_said else _located_events(each, alignment, problems)
    ends = [curve["x"][-1] for curve in losses.values() if len(curve["x"])]
    if not ends:
        return Made(problems=tuple(problems))
    unit, title = axis_unit(alignment, max(ends))
    for curve in (*losses.values(), *validation.values()):
        curve["x"] = curve["x"] / unit
    config, about = run.config, None
    # The lecture printed no times.
    with_lecture = config is not None and config.preset == "lecture" and alignment != "time"
    with_lecture = with_lecture and name == LOSS
    if len(runs) > 1:
        about = {each.name: lines for each, lines in zip(runs, lines_about(runs), strict=True)}
    figure = loss_figure(
        losses,
        validation,
        smoothing,
        logarithmic,
        with_lecture,
        x_title=title,
        y_title=name.replace("_", " "),
        about=about,
        lecture_scale=LECTURE_BATCH if alignment == "images" else 1,
        changes={name: [(x / unit, text) for x, text in found] for name, found in changes.items()},
    )
    axis = "steps" if alignment == "step" else title.partition(",")[0]
    return Made(
        pack(figure),
        f"The {name.replace('_', ' ')} of {', '.join(losses)} over the {axis}",
        with_lecture,
        bool(len(validation[run.name]["x"])),
        any(changes.values()),
        tuple(problems),
    )


def lines_about(runs: Sequence[RunSnapshot]) -> list[list[str]]:
    """Of each run the first settings in which they differ: "learning_rate 0.001"."""
    found = [(each.name, each.texts()) for each in differences(runs)]
    lines = [[f"{name} {texts[k]}" for name, texts in found] for k in range(len(runs))]
    more = [f"and {len(found) - MOST_LINES:,} more settings"] if len(found) > MOST_LINES else []
    return [[*each[:MOST_LINES], *more] for each in lines]


def _pick_compared(others: Sequence[RunSnapshot]) -> list[RunSnapshot]:
    names = COMPARED.now(options=[other.name for other in others]).ask(
        placeholder="Other runs" if others else "No other runs"
    )
    return [other for name in names for other in others if other.name == name]


def _show_caption(config: RunConfig, made: Made, compared: bool) -> None:
    sentences = [run_wording.objective_sentence(config, validated=made.validated)]
    if made.with_lecture:
        sentences.append(run_wording.lecture_sentence(config))
    if compared:
        sentences.append("If objectives differ, only the shapes of the curves can be compared.")
    if made.changed:
        sentences.append("A dashed line marks where a setting was changed.")
    st.caption(" ".join(sentences))


def locate(run: RunSnapshot, steps: np.ndarray, alignment: str) -> np.ndarray | None:
    """The positions of a run's steps on the axis; None where not recorded. See `place`."""
    batch_size = run.config.batch_size if run.config else None
    return place(steps, alignment, batch_size, cached.curve(run.run, "loss"))


def _located_curve(run: RunSnapshot, name: str, alignment: str) -> Curve:
    """A curve with its positions on the axis; empty where they are not recorded."""
    curve = cached.curve(run.run, name)
    x = locate(run, curve["step"], alignment)
    return NOTHING if x is None else curve | {"x": x}


def _located_events(
    run: RunSnapshot, alignment: str, problems: list[str]
) -> list[tuple[float, str]]:
    """The positions on the axis at which a setting of a run was changed, and how.

    `problems` gets a sentence where that cannot be read.
    """
    try:
        found = events(run)
    except ConfigError as error:
        problems.append(f"The changes of {code(run.name)} cannot be shown: {plain(error)}")
        return []
    at = locate(run, np.array([step for step, _ in found]), alignment)
    return [] if at is None else [(x, text) for x, (_, text) in zip(at, found, strict=True)]
