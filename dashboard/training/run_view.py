"""One run on the Training page: its state, numbers, curves, samples and settings.

It is shown again every second while a run is active: it reads the run folder and keeps nothing.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st

from dashboard.components.chart.chart import pack, show_packed
from dashboard.components.film.film import Strips, show_film
from dashboard.figures.theme import COLOURS
from dashboard.figures.training import Curve, curve_figure, timestep_figure
from dashboard.quality import show_quality
from dashboard.remarks import name_now, say_about, show_summary
from dashboard.services import cached, reports, roles, run_deeds, users
from dashboard.services.shared_look import metrics_stamp, once, recent
from dashboard.training.comparison import numbers_of, show_comparison
from dashboard.training.evaluations import show_advice, show_evaluations
from dashboard.training.history import show_history
from dashboard.training.launch import ENOUGH_STEPS
from dashboard.training.losses import locate, show_losses
from dashboard.training.notify import show_notify_button
from dashboard.training.run_controls import show_buttons, show_edited
from dashboard.ui import run_wording
from dashboard.ui.controls import Choice
from dashboard.ui.outside import code, plain
from dashboard.ui.report_file import offer_report
from dashboard.ui.tabs import open_tab
from diffusion_core.data.found import sentence
from diffusion_core.runs.metrics import BIN_NAMES, MetricsError
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import AT_WORK, RunState

MISSING = "Not recorded for this run."


class CurveTab(NamedTuple):
    """One tab of curves: the axis title, and the legend entry of each stored curve."""

    title: str
    curves: dict[str, str]
    unit: float = 1  # that the values are divided by
    percent: bool = False
    missing: str = MISSING


CURVES = {
    "Gradient norm": CurveTab("gradient norm before clipping", {"gradient_norm": "gradient norm"}),
    "Update size": CurveTab(
        "update size relative to the weights", {"update_ratio": "update-to-weight ratio"}
    ),
    "Learning rate": CurveTab("learning rate", {"learning_rate": "learning rate"}),
    "Speed": CurveTab("images per second", {"images_per_second": "images per second"}),
    "Device use": CurveTab(
        "share of time that the device is busy",
        {"utilisation": "device use"},
        percent=True,
        missing="Not available on this device.",
    ),
    "Threads": CurveTab(
        "threads of the CPU",
        {"threads": "threads"},
        missing="Recorded for runs on a CPU.",
    ),
    "Memory": CurveTab(
        "memory (GB)", {"memory_bytes": "in use", "peak_memory_bytes": "peak"}, unit=1e9
    ),
}
# The other tabs.
BY_TIMESTEP, QUALITY, SETTINGS, HISTORY = "Loss by timestep", "Quality", "Settings", "History"
MORE = Choice(key="more", label="Tab")
LOG_BYTES = 4000  # of the end of train.log


def show_run(seen: RunSnapshot, runs: list[RunSnapshot]) -> None:
    """One of `runs`."""
    show_state(seen, runs)
    show_summary(seen.run)
    say_about(seen.run)
    if roles.may_operate():
        show_edited(seen)
        show_buttons(seen, runs)
    else:
        show_notify_button(seen, runs)
    if seen.problem:
        st.warning(f"{code(seen.name)} cannot be read in full. {plain(seen.problem)}")
    if seen.config is not None:
        st.caption(run_wording.settings_line(seen.config))
        if seen.config.init_from:
            st.caption(run_wording.origin_sentence(seen.config))
    try:
        show_advice(seen)
        show_numbers(seen)
        compared, alignment = show_losses(seen, [other for other in runs if other is not seen])
        if compared:
            show_comparison([seen, *compared])
        show_samples([seen, *compared], alignment)
        show_more(seen, compared)
    except MetricsError as error:
        st.warning(
            f"The curves of {code(seen.name)} or a run compared with it cannot be shown: "
            f"{plain(error)}"
        )


def show_state(run: RunSnapshot, runs: list[RunSnapshot]) -> None:
    """The state as a sentence, the progress, what went wrong."""
    state, status = run.state, run.status
    show = {RunState.FAILED: st.error, RunState.LOST: st.warning}.get(state, st.markdown)
    show(run_wording.state_sentence(run, runs))
    if status.total:
        text = f"Step {status.step:,} of {status.total:,}"
        # Of the first steps the speed says little.
        steps = status.step - (status.resumed_from or 0)
        if state == RunState.RUNNING and status.eta_seconds is not None and steps >= ENOUGH_STEPS:
            text += f", {run_wording.duration(status.eta_seconds)} left"
        st.progress(min(status.step / status.total, 1.0), text=text)
    if status.warning:
        st.warning(plain(status.warning))
    if status.found is not None:
        show_found = st.warning if status.found.left_out else st.caption
        show_found(plain(sentence(status.found)))
    for problem in recent(("broken", run.path), lambda: run.run.checkpoints()[1]):
        st.warning(f"A checkpoint is skipped: {plain(problem)}")
    if state in (RunState.FAILED, RunState.LOST):
        show_log(run.path / "train.log")


def show_log(log: Path) -> None:
    if not os.path.isfile(log):
        return
    with st.expander("End of train.log", icon=":material/notes:"):
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - LOG_BYTES))
                text = file.read().decode(errors="replace")
        except OSError as error:
            text = f"train.log cannot be read: {error.strerror}."
        st.code(text or "(empty)", language=None, wrap_lines=True)


def show_numbers(run: RunSnapshot) -> None:
    numbers = {label: value for label, value in numbers_of(run).items() if value}
    with st.container(horizontal=True, gap="medium"):
        for label, value in numbers.items():
            st.metric(label, value, width=150)


def show_samples(runs: list[RunSnapshot], alignment: str) -> None:
    """The sample strips of the runs, one row each, under one slider."""
    st.subheader("Samples through training")
    films, first = [], runs[0]
    if first.pending == "sample":
        st.caption("Sampling at the next step …")
    elif first.state in AT_WORK and first.status.sampling_step is not None:
        st.caption(f"Sampling at step {first.status.sampling_step:,} …")
    for k, run in enumerate(runs):
        files = recent(("samples", run.path), run.run.samples)
        # Whether a strip shows one image forming, as in the lecture.
        forming = run.config is not None and run.config.sample_steps == 0
        at = locate(run, np.array([step for step, _ in files]), alignment)
        if not files:
            if k:
                st.caption(f"{code(run.name)} has no samples yet.")
        elif at is None:
            missing = "batch size" if alignment == "images" else "times"
            st.caption(f"{code(run.name)} is not shown: it has recorded no {missing}.")
        else:
            films.append(Strips(run.name, files, at, k % len(COLOURS), forming))
    if not films:
        st.caption(run_wording.no_samples(first))
        return
    show_film(films, alignment)
    text = "All strips of a run are generated from the same noise, with the averaged weights."
    if len(films) > 1:
        text += " Each run shows its newest strip at or before the slider's position."
    st.caption(text)


def show_more(run: RunSnapshot, compared: list[RunSnapshot]) -> None:
    """The other curves and the settings; only the open tab is read and shown."""
    names = [BY_TIMESTEP, *CURVES, QUALITY, SETTINGS, HISTORY]
    for name in open_tab(MORE.now(options=names)):
        if name == SETTINGS:
            show_settings(run)
        elif name == HISTORY:
            show_history(run.run, MISSING)
        elif name == QUALITY:
            show_evaluations(run, compared)
            show_quality(run.run, [other.run for other in compared])
        elif name == BY_TIMESTEP:
            show_timesteps(run.run)
        else:
            show_curves(run.run, name)


def show_curves(run: Run, name: str) -> None:
    tab = CURVES[name]
    curves: dict[str, Curve] = {}
    for stored, legend in tab.curves.items():
        curve = cached.curve(run, stored)
        if len(curve["step"]):
            curves[legend] = curve | {"value": curve["value"] / tab.unit}
    if not curves:
        st.caption(tab.missing)
        return
    chart = once(
        ("curves", run.path, name, metrics_stamp(run)),
        lambda: pack(curve_figure(curves, tab.title, percent=tab.percent)),
    )
    show_packed(chart, f"{name}-{run.name}", f"The {tab.title} over the steps")


def show_timesteps(run: Run) -> None:
    curves = {name: cached.curve(run, name) for name in BIN_NAMES}
    if not any(len(curve["step"]) for curve in curves.values()):
        st.caption(MISSING)
        return
    show_packed(
        once(("timesteps", run.path, metrics_stamp(run)), lambda: pack(timestep_figure(curves))),
        key=f"timesteps-{run.name}",
        alt=f"The loss of {run.name} by tenth of the schedule over the steps",
    )
    st.caption(
        "Unweighted training error by noise level: little noise at the bottom, almost pure noise "
        "at the top."
    )


def show_settings(run: RunSnapshot) -> None:
    if run.config is None:
        st.caption("The run has not written its settings yet.")
        return
    st.caption(
        "The contents of config.json: the settings, and what they resolved to on the machine."
    )
    path = run.path / "config.json"
    if path.is_file():  # an earlier version kept the settings elsewhere until the run began
        st.json(path.read_text(encoding="utf-8"), expanded=1)
    by = users.name() if roles.may_operate() else None
    recorded = bool(cached.last_values(run.run))
    with st.container(horizontal=True):
        for format, name in (("csv", "CSV"), ("parquet", "Parquet")):
            st.download_button(
                f"All metrics as {name}",
                # Made on the click: it reads every row of every curve.
                functools.partial(run_deeds.export, run.run, format, by),
                file_name=f"{run.name}-metrics.{format}",
                icon=":material/download:",
                disabled=not recorded,
                help=None if recorded else "No metrics have been recorded yet.",
                on_click="ignore",
                key=f"metrics-{format}",
            )
        offer_report([run.run], ".html", reports.parts_for(reports.PARTS, name_now()))
