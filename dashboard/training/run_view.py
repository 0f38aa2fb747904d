"""One run on the Training page: its state, numbers, curves, samples and settings.

Shown anew every second while a run is at work: it reads the run folder and keeps nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.components.film.film import Strips, show_film
from dashboard.figures.theme import COLOURS
from dashboard.figures.training import (
    LECTURE_BATCH,
    Curve,
    curve_figure,
    loss_figure,
    timestep_figure,
)
from dashboard.quality.view import show_quality
from dashboard.services import cached
from dashboard.services.settings import Settings
from dashboard.training.alignment import ALIGNMENTS, axis_unit, place
from dashboard.training.events import events
from dashboard.training.run_controls import show_buttons
from dashboard.ui import run_wording
from diffusion_core.runs import export, jobs
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.metrics import BIN_NAMES, MetricsError
from diffusion_core.runs.run import Run

# Each tab's axis title, and its curves by name with their legend entries.
CURVES = {
    "Gradient norm": ("gradient norm before clipping", {"gradient_norm": "gradient norm"}),
    "Update size": (
        "update size relative to the weights",
        {"update_ratio": "update-to-weight ratio"},
    ),
    "Learning rate": ("learning rate", {"learning_rate": "learning rate"}),
    "Speed": ("images per second", {"images_per_second": "images per second"}),
    "Device use": ("share of time that the device is busy", {"utilisation": "device use"}),
    "Memory": ("memory (GB)", {"memory_bytes": "in use", "peak_memory_bytes": "peak"}),
}
LOG_BYTES = 4000  # of the end of train.log


def show_run(run: Run, runs: list[Run], settings: Settings) -> None:
    state = run.state
    show_state(run, state)
    if settings.may_operate:
        show_buttons(run, state, settings)
    config = known = None
    try:
        config = run.config
        known = jobs.settings_of(run)  # also of one that has not begun
    except ConfigError as error:
        st.warning(f"The settings of {run.name} cannot be used: {error}")
    if known is not None:
        st.caption(run_wording.settings_line(known))
    try:
        show_numbers(run)
        compared, alignment = show_losses(run, [other for other in runs if other != run], config)
        show_samples([run, *compared], alignment)
        show_more(run, config, compared)
    except MetricsError as error:
        st.warning(f"The curves of {run.name} or a run compared with it cannot be shown: {error}")


def show_state(run: Run, state: str) -> None:
    """The state in words, the progress, what went wrong."""
    status = run.status
    line = f"{run_wording.ICONS[state]} {run_wording.state_sentence(run, state)}"
    if state == "failed":
        st.error(line)
    elif state == "lost":
        st.warning(line)
    else:
        st.markdown(line)
    step, total = status.get("step", 0), status.get("total", 0)
    if total:
        words = f"Step {step:,} of {total:,}"
        left = status.get("eta_seconds")
        if state == "running" and left is not None:
            words += f", {run_wording.duration(left)} left"
        st.progress(min(step / total, 1.0), text=words)
    if "warning" in status:
        st.warning(status["warning"])
    for sentence in run.checkpoints()[1]:
        st.warning(f"A checkpoint is skipped: {sentence}")
    if state in ("failed", "lost"):
        show_log(run.path / "train.log")


def show_log(log: Path) -> None:
    if not log.exists():
        return
    with st.expander("End of train.log", icon=":material/notes:"):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            text = file.read().decode(errors="replace")
        st.code(text or "(empty)", language=None, wrap_lines=True)


def show_numbers(run: Run) -> None:
    status, last = run.status, run.last_values()
    numbers = []
    if "loss" in last:
        numbers.append(("Loss", f"{last['loss'][1]:.4f}"))
    if "validation_loss" in last:
        numbers.append(("Validation loss", f"{last['validation_loss'][1]:.4f}"))
    if "images_per_second" in status:
        numbers.append(("Images per second", f"{status['images_per_second']:,.1f}"))
    if "memory_bytes" in status:
        numbers.append(("Memory", run_wording.size(status["memory_bytes"])))
    if not numbers:
        return
    with st.container(horizontal=True, gap="medium"):
        for label, value in numbers:
            st.metric(label, value, width=150)


def show_losses(run: Run, others: list[Run], config: RunConfig | None) -> tuple[list[Run], str]:
    """The loss chart with its controls; returns the runs to compare with and the alignment."""
    controls = st.columns([3, 2, 4, 4], vertical_alignment="bottom")
    smoothing = controls[0].slider(
        "Smoothing",
        0.0,
        0.99,
        0.9,
        0.01,
        help="Exponential smoothing of the bold curve: the weight of past values.",
        key="smoothing",
        bind="query-params",
    )
    logarithmic = controls[1].toggle("Logarithmic", key="log", bind="query-params")
    by_name = {other.name: other for other in others}
    names = controls[2].multiselect(
        "Compare with",
        list(by_name),
        placeholder="Other runs" if others else "No other runs",
        disabled=not others,
        key="compare",
        bind="query-params",
    )
    alignment = controls[3].segmented_control(
        "Align by",
        ALIGNMENTS,
        default="step",
        required=True,
        help="How curves and samples of several runs are aligned: by step, by number of images "
        "seen, or by training time without pauses.",
        key="align",
        bind="query-params",
    )
    compared = [by_name[name] for name in names]
    losses, validation, changes = {}, {}, {}
    for each in [run, *compared]:
        losses[each.name] = located_curve(each, "loss", alignment)
        validation[each.name] = located_curve(each, "validation_loss", alignment)
        changes[each.name] = locate_events(each, alignment)
    if not any(len(curve["step"]) for curve in losses.values()):
        st.caption("The losses appear here after the first steps.")
        return compared, alignment
    longest = max(curve["x"][-1] for curve in losses.values() if len(curve["x"]))
    unit, title = axis_unit(alignment, longest)
    for curve in (*losses.values(), *validation.values()):
        curve["x"] = curve["x"] / unit
    # The lecture printed no times.
    with_lecture = config is not None and config.preset == "lecture" and alignment != "time"
    show_live(
        loss_figure(
            losses,
            validation,
            smoothing,
            logarithmic,
            with_lecture,
            x_title=title,
            lecture_scale=LECTURE_BATCH if alignment == "images" else 1,
            changes={
                name: [(x / unit, words) for x, words in found] for name, found in changes.items()
            },
        ),
        key=f"loss-{run.name}",
        alt=f"The loss of {', '.join(losses)} over the "
        + ("steps" if alignment == "step" else title.partition(",")[0]),
    )
    if config is not None:
        words = run_wording.objective_sentence(config)
        if with_lecture:
            words += f" {run_wording.lecture_sentence(config)}"
        if compared:
            words += " If objectives differ, only the shapes of the curves can be compared."
        if any(changes.values()):
            words += " A vertical line marks where a setting was changed."
        st.caption(words)
    return compared, alignment


def locate(run: Run, steps: np.ndarray, alignment: str) -> np.ndarray | None:
    """Where steps of a run lie on the axis; None where that is not recorded. See `place`."""
    batch_size = None
    if alignment == "images":
        try:
            batch_size = run.config.batch_size if run.config else None
        except ConfigError:
            return None
    return place(steps, alignment, batch_size, cached.curve(run, "loss"))


def located_curve(run: Run, name: str, alignment: str) -> Curve:
    """A curve with its positions on the axis; empty where they are not recorded."""
    curve = cached.curve(run, name)
    x = locate(run, curve["step"], alignment)
    if x is None:
        return {key: values[:0] for key, values in curve.items()} | {"x": np.zeros(0)}
    return curve | {"x": x}


def locate_events(run: Run, alignment: str) -> list[tuple[float, str]]:
    """Where on the axis a setting of a run was changed, and in words."""
    try:
        found = events(run)
    except ConfigError as error:
        st.warning(f"The changes of {run.name} cannot be shown: {error}")
        return []
    at = locate(run, np.array([step for step, _ in found]), alignment)
    return [] if at is None else [(x, words) for x, (_, words) in zip(at, found, strict=True)]


def show_samples(runs: list[Run], alignment: str) -> None:
    """The sample strips of the runs, one row each, under one slider."""
    st.subheader("Samples through training")
    films = []
    for k, run in enumerate(runs):
        files = run.samples()
        at = locate(run, np.array([step for step, _ in files]), alignment)
        if not files:
            if k:
                st.caption(f"{run.name} has no samples yet.")
        elif at is None:
            what = "batch size" if alignment == "images" else "times"
            st.caption(f"{run.name} is not shown: it has recorded no {what}.")
        else:
            films.append(Strips(run.name, files, at, k % len(COLOURS), is_forming(run)))
    if not films:
        st.caption("The first samples appear here during training.")
        return
    show_film(films, alignment)
    words = "All strips of a run are generated from the same noise, with the averaged weights."
    if len(films) > 1:
        words += " Each run shows its newest strip at or before the slider's position."
    st.caption(words)


def is_forming(run: Run) -> bool:
    """Whether a strip of the run shows one image forming, as in the lecture."""
    try:
        config = run.config
    except ConfigError:
        return False
    return config is not None and config.sample_steps == 0


def show_more(run: Run, config: RunConfig | None, compared: list[Run]) -> None:
    """The other curves and the settings; only the open tab is read and shown."""
    names = ["Loss by timestep", *CURVES, "Quality", "Settings"]
    for name, tab in zip(names, st.tabs(names, key="more", bind="query-params"), strict=True):
        if not tab.open:
            continue
        with tab:
            if name == "Settings":
                show_settings(run, config)
            elif name == "Quality":
                show_quality(run, compared)
            elif name == "Loss by timestep":
                show_timesteps(run)
            else:
                show_curves(run, name)


def show_curves(run: Run, tab: str) -> None:
    title, names = CURVES[tab]
    curves: dict[str, Curve] = {}
    for name, words in names.items():
        curve = cached.curve(run, name)
        if len(curve["step"]):
            curves[words] = curve | {"value": curve["value"] / (1e9 if tab == "Memory" else 1)}
    if not curves:
        words = "Not available on this device." if tab == "Device use" else "Not recorded for this run."
        st.caption(words)
        return
    figure = curve_figure(curves, title, percent=tab == "Device use")
    show_live(figure, f"{tab}-{run.name}", f"The {title} over the steps")


def show_timesteps(run: Run) -> None:
    curves = {name: cached.curve(run, name) for name in BIN_NAMES}
    if not any(len(curve["step"]) for curve in curves.values()):
        st.caption("Not recorded for this run.")
        return
    show_live(
        timestep_figure(curves),
        key=f"timesteps-{run.name}",
        alt=f"The loss of {run.name} by tenth of the schedule over the steps",
    )
    st.caption(
        "Unweighted training error by noise level: little noise at the bottom, almost pure noise "
        "at the top."
    )


def show_settings(run: Run, config: RunConfig | None) -> None:
    if config is None:
        st.caption("The run has not written its settings yet.")
        return
    st.caption("The contents of config.json: the settings, and what they resolved to on the machine.")
    st.json((run.path / "config.json").read_text(), expanded=1)
    with st.container(horizontal=True):
        for format, name in (("csv", "CSV"), ("parquet", "Parquet")):
            st.download_button(
                f"All metrics as {name}",
                # Made when it is asked for: it reads every row of every curve.
                functools.partial(export.metrics_table, run, format),
                file_name=f"{run.name}-metrics.{format}",
                icon=":material/download:",
                disabled=not run.last_values(),
                on_click="ignore",
                key=f"metrics-{format}",
            )
