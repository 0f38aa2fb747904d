"""Compare: what differs between the chosen runs, their curves, results and cost, and which setting
goes with which result."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.components.comparison.comparison import Line, show_table
from dashboard.figures.review import Dot, interval_figure
from dashboard.quality.results import METRIC
from dashboard.quality.results import show_table as show_results_table
from dashboard.review.compare_goes_with import GOES_WITH, show_goes_with
from dashboard.services import cached
from dashboard.services.shared_look import metrics_stamp, once, recent
from dashboard.training.comparison import (
    CORNER,
    NONE_DIFFER,
    NOT_READABLE,
    SETTINGS,
    lines_of,
    numbers_of,
    setting_lines,
)
from dashboard.training.losses import ALIGN, LOGARITHMIC, LOSS, SMOOTHING, show_curves
from dashboard.ui import run_wording
from dashboard.ui.controls import Choice
from dashboard.ui.outside import code, plain
from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.evaluation.results import Result, known_metrics, read_results, yardsticks
from diffusion_core.review.index import Row
from diffusion_core.runs.cost import Cost, cost_of
from diffusion_core.runs.metrics import BIN_NAMES, EXPECTED, HIGH, LOW, MetricsError
from diffusion_core.runs.run import RunSnapshot

CURVE = Choice(key="curve", label="Curve", default=LOSS)
CONTROLS = (CURVE, SMOOTHING, LOGARITHMIC, ALIGN, METRIC, *GOES_WITH)
MEASURED = "Measured"
COSTS = {
    "Images seen": "Training images, each as often as it was seen.",
    "Training time": "Without pauses and the time between two starts.",
    "Energy": "Of the device with all programs on it. Few systems let a program read it.",
}


def show_compare(chosen: Sequence[RunSnapshot], rows: Sequence[Row]) -> None:
    """The chosen runs beside each other, then what all runs of the table say about settings."""
    if len(chosen) < 2:
        more = "one more run" if chosen else "two to eight runs"
        st.info(f"Select {more} in the table to compare them.", icon=":material/compare_arrows:")
    else:
        readable = [run for run in chosen if _can_be_read(run)]
        # These first, so that the colours of the table are those of the curves.
        chosen = [*readable, *(run for run in chosen if run not in readable)]
        results = _results_of(chosen)
        _show_beside(chosen, readable, results)
        _show_curves(readable)
        _show_quality(chosen, results)
    show_goes_with(rows, {run.name for run in chosen})


def _can_be_read(run: RunSnapshot) -> bool:
    """Whether its curves can; says where they cannot, and where its settings cannot."""
    if run.problem:
        st.warning(f"{code(run.name)} cannot be read in full. {plain(run.problem)}")
    try:
        cached.last_values(run.run)
    except MetricsError as error:
        st.warning(f"The curves of {code(run.name)} cannot be shown: {plain(error)}")
        return False
    return True


def _results_of(runs: Sequence[RunSnapshot]) -> list[Result]:
    """The results of the last step of each run that has any."""
    results = []
    for run in runs:
        found, _ = recent(("results", run.path), functools.partial(read_results, run.path))
        last = max((result.spec.step for result in found), default=0)
        results += [result for result in found if result.spec.step == last]
    return results


def _show_beside(
    runs: Sequence[RunSnapshot], readable: Sequence[RunSnapshot], results: Sequence[Result]
) -> None:
    """Settings, results and cost, with a column for each run."""
    settings = setting_lines(runs)
    figures, costs = [], []
    for run in runs:
        there = run in readable
        figures.append(
            {"State": str(run.state), "Step": f"{run.status.step:,}"}
            | (numbers_of(run) if there else {})
        )
        costs.append(cost_texts(_cost_of(run) if there else Cost(None, None, None)))
    parts: dict[str, list[Line]] = {
        SETTINGS: settings,
        "Figures": lines_of(figures),
        "Quality": quality_lines(runs, one_of_each(results)),
        "Cost": lines_of(costs, COSTS),
    }
    show_table([run.name for run in runs], parts, "The chosen runs", "beside", CORNER)
    if settings:
        st.caption(
            "Names are those of `--set`; each says what it means. Marked: not as in the first run."
        )
    else:
        st.caption(NONE_DIFFER)


def quality_lines(runs: Sequence[RunSnapshot], results: Sequence[Result]) -> list[Line]:
    """`results`: at most one of each run."""
    of_run = {result.spec.run: result for result in results}
    columns = []
    for run in runs:
        column = {}
        if result := of_run.get(run.name):
            column[MEASURED] = (
                f"step {result.spec.step:,}, {result.way()}, {result.spec.n:,} images"
            )
            for name, estimate in result.metrics.items():
                column[METRICS[name].title] = METRICS[name].format_estimate(estimate)
        columns.append(column)
    meanings = {
        each.title: f"{each.help} {each.direction.capitalize()}." for each in METRICS.values()
    }
    return lines_of(columns, meanings)


def _cost_of(run: RunSnapshot) -> Cost:
    config = run.config
    key = ("cost", run.path, metrics_stamp(run.run), run.status.step, config and config.batch_size)
    return once(key, lambda: cost_of(run))


def cost_texts(cost: Cost) -> dict[str, str]:
    images, hours, energy = COSTS
    joules = cost.joules
    return {
        images: NOT_READABLE if cost.images is None else f"{cost.images:,}",
        hours: "not recorded" if cost.seconds is None else run_wording.duration(cost.seconds),
        energy: NOT_READABLE if joules is None else run_wording.energy(joules),
    }


def _show_curves(runs: Sequence[RunSnapshot]) -> None:
    st.subheader("Curves")
    if not runs:
        st.caption("None of these runs has curves that can be read.")
        return
    known = {
        name
        for run in runs
        for name in cached.last_values(run.run)
        if name not in BIN_NAMES and not name.endswith((LOW, HIGH, EXPECTED))
    }
    names = [LOSS, *sorted(known - {LOSS})]
    columns = st.columns([4, 3, 2, 4], vertical_alignment="bottom")
    with columns[0]:
        name = CURVE.now(options=names).ask()
    with columns[1]:
        smoothing = SMOOTHING.ask()
    with columns[2]:
        logarithmic = LOGARITHMIC.ask()
    with columns[3]:
        alignment = ALIGN.ask()
    made = show_curves(runs, name, smoothing, logarithmic, alignment)
    if made.chart is None:
        st.caption("None of these runs has this curve yet.")
        return
    without = [run.name for run in runs if not len(cached.curve(run.run, name)["step"])]
    sentences = []
    if without:
        sentences.append(f"Without this curve: {', '.join(map(code, without))}.")
    if name == LOSS:
        sentences.append("If objectives differ, only the shapes of the curves can be compared.")
    sentences.append("Point at a curve to see the settings of its run.")
    if made.changed:
        sentences.append("A dashed line marks where a setting was changed.")
    st.caption(" ".join(sentences))


def _show_quality(runs: Sequence[RunSnapshot], results: list[Result]) -> None:
    """One result of each run in the figure, all in the table."""
    st.subheader("Quality")
    colours = {run.name: k for k, run in enumerate(runs)}
    if not results:
        st.caption("None of these runs has been measured. Measure them on the Training page.")
        return
    metrics = [METRICS[name] for name in known_metrics(results)]
    by_title = {metric.title: metric for metric in metrics}
    metric = by_title[METRIC.now(options=tuple(by_title)).ask()]
    st.caption(f"{metric.help} {metric.direction.capitalize()}.")
    scale = 100 if metric.percent else 1
    dots = [
        Dot(
            f"{result.spec.run}: {result.way()}, step {result.spec.step:,}",
            scale * estimate.value,
            scale * estimate.low,
            scale * estimate.high,
            colours[result.spec.run],
        )
        for result in one_of_each([r for r in results if metric.name in r.metrics])
        if (estimate := result.metrics[metric.name])
    ]
    title = f"{metric.title} (%)" if metric.percent else metric.title
    floor = _floor(results, metric.name)
    figure = interval_figure(dots, title, None if floor is None else scale * floor)
    show_live(figure, "intervals", f"{metric.title} of each run, with its 95 % interval")
    sentences = ["Bars are 95 % intervals. The table has all results."]
    if floor is not None:
        sentences.append("Dashed: held-out real images.")
    if len({(result.spec.n, result.content or result.fingerprint) for result in results}) > 1:
        sentences.append("Compare only results of the same data and number of images.")
    st.caption(" ".join(sentences))
    show_results_table(results, metrics, several=True)
    unmeasured = [run.name for run in runs if run.name not in {r.spec.run for r in results}]
    if unmeasured:
        st.caption(f"Not measured: {', '.join(map(code, unmeasured))}.")


def one_of_each(results: Sequence[Result]) -> list[Result]:
    """Of each run the result whose way to sample most runs share; of several the newest."""
    shares = Counter((result.way(), result.spec.n) for result in results)
    best: dict[str, Result] = {}
    for result in sorted(results, key=lambda r: (shares[r.way(), r.spec.n], r.written)):
        best[result.spec.run] = result
    runs = dict.fromkeys(result.spec.run for result in results)
    return [best[run] for run in runs]


def _floor(results: list[Result], metric: str) -> float | None:
    """The value of held-out real images, where it is the same for all results."""
    found = {end.floor[metric].value for end in yardsticks(results) if metric in end.floor}
    return found.pop() if len(found) == 1 else None
