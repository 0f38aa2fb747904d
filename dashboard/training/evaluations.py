"""What a run has measured of itself while it trained: quality over the steps, near copies, and
whether its averaged weights are behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.chart.chart import Packed, pack, show_packed
from dashboard.figures.training import Curve, evaluation_figure
from dashboard.services import cached
from dashboard.services.shared_look import metrics_stamp, once
from dashboard.training.forecast import show_forecast
from dashboard.ui.outside import plain
from diffusion_core.evaluation.evaluator import FEWEST
from diffusion_core.evaluation.metrics import COPIES, METRICS, Metric
from diffusion_core.evaluation.progress import (
    average_sentence,
    memorisation_sentence,
)
from diffusion_core.runs.metrics import EXPECTED, HIGH, LOW, QUALITY
from diffusion_core.runs.run import Run, RunSnapshot


def show_advice(run: RunSnapshot) -> None:
    """An alarm where the run memorises its images; a hint where its average is behind."""
    last = cached.last_values(run.run)
    if alarm := memorisation_sentence(last):
        st.warning(f"{plain(alarm)} The tab *Quality* shows them.", icon=":material/content_copy:")
    if run.config is not None and (behind := average_sentence(run.config, last)):
        st.caption(f":material/info: {plain(behind)}")


def show_evaluations(run: RunSnapshot, compared: Sequence[RunSnapshot]) -> None:
    """The curves of the run and of those that it is compared with; nothing where it measures
    nothing itself."""
    last = cached.last_values(run.run)
    name = once(("compared by", run.path, metrics_stamp(run.run)), run.run.compared_by)
    config = run.config
    if name is None:
        if config is not None and config.evaluate_every:
            share = f"{100 * config.evaluate_share:.0f} %"
            st.caption(
                f"Quality is measured every {config.evaluate_every:,} steps, where that takes at "
                f"most {share} of the time. Nothing is measured yet."
            )
        return
    metric = METRICS[name]
    st.markdown("**During training**")
    runs = [run.run, *(other.run for other in compared)]
    for column, each in zip(st.columns(2), (metric, COPIES), strict=True):
        with column:
            if QUALITY[each.name] in last:
                _show_curve(runs, each)
            else:
                st.caption(_why_no_copies(run))
    show_forecast(run, metric)
    st.caption(" ".join(_sentences(run, metric)))


def _show_curve(runs: Sequence[Run], metric: Metric) -> None:
    name = QUALITY[metric.name]
    stamps = [(run.path, metrics_stamp(run)) for run in runs]

    def make() -> Packed:
        ends = (name, name + LOW, name + HIGH)
        curves: dict[str, tuple[Curve, Curve, Curve]] = {}
        for run in runs:
            value, low, high = (cached.curve(run, end) for end in ends)
            if len(value["step"]):
                curves[run.name] = value, low, high
        most = cached.last_values(runs[0]).get(name + EXPECTED)
        return pack(
            evaluation_figure(curves, metric.title, percent=metric.percent, most=most and most[1])
        )

    chart = once(("evaluations", name, *stamps), make)
    show_packed(
        chart,
        key=f"evaluations-{name}-{runs[0].name}",
        alt=f"{metric.title} of {', '.join(run.name for run in runs)} over the steps",
    )


def _why_no_copies(run: RunSnapshot) -> str:
    count = run.details.validation_pictures if run.details else 0
    return (
        f"Near copies are not measured: they need at least {FEWEST} held-out images, and this run "
        f"has {count}. Set *validation_count* for the next run; at most a tenth of the images is "
        "held out."
    )


def _sentences(run: RunSnapshot, metric: Metric) -> list[str]:
    name = QUALITY[metric.name]
    found = ["Bands: 95 % intervals."]
    best = once(
        ("best", run.path, metrics_stamp(run.run), tuple(run.run.weights())),
        run.run.best_quality_step,
    )
    if best is not None:
        curve = cached.curve(run.run, name)
        [value] = curve["value"][curve["step"] == best][:1]
        found.append(f"Best checkpoint: step {best:,} ({metric.format(float(value))}).")
    config = run.config
    if config is not None:
        found.append(
            f"{config.evaluate_images:,} images of the averaged weights, "
            f"{config.evaluate_steps:,} sampling steps, always the same noise."
        )
    found.append(
        "Near copies: samples nearer to a training image than 95 % of held-out images are; about "
        "5 % means that nothing is memorised."
    )
    return found
