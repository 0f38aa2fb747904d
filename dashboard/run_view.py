"""One run on the Training page: its state, numbers, curves, samples, and what it can be asked.

Drawn anew every second while a run is at work: it reads the run folder and keeps nothing.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import pictures, resources, run_words
from dashboard.figures_training import curve_figure, loss_figure, timestep_figure
from dashboard.live_chart import show_live
from dashboard.settings import Settings, get_settings
from diffusion_core import jobs
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.metrics import BIN_NAMES, MetricsError
from diffusion_core.runs import ACTIVE, RESUMABLE, Run

CURVES = {
    "Gradient norm": ("gradient_norm", "gradient norm before clipping"),
    "Learning rate": ("learning_rate", "learning rate"),
    "Speed": ("images_per_second", "images per second"),
    "Memory": ("memory_bytes", "memory in use, bytes"),
}
LOG_BYTES = 4000  # of the end of train.log


def show_run(run: Run, runs: list[Run], settings: Settings) -> None:
    state = run.state
    show_state(run, state)
    if settings.may_operate:
        show_buttons(run, state)
    config = None
    try:
        config = run.config
    except ConfigError as error:
        st.warning(f"The settings of {run.name} cannot be used: {error}")
    if config is not None:
        st.caption(run_words.settings_line(config))
    try:
        show_numbers(run)
        left, right = st.columns([5, 2], gap="medium")
        with left:
            show_losses(run, {other.name: other for other in runs if other != run}, config)
        with right:
            show_samples(run, config)
        show_more(run, config)
    except MetricsError as error:
        st.warning(f"The curves of {run.name} or a run beside it cannot be drawn: {error}")


def ask(run: Run, action: str) -> None:
    """A button was pressed. A refusal is shown as a message that outlives the next update."""
    try:
        if action == "resume":
            jobs.resume(run, get_settings().device)
        else:
            jobs.request(run, action)
    except jobs.JobError as error:
        st.session_state["refusal"] = str(error)


def show_buttons(run: Run, state: str) -> None:
    """What can be asked of the run now; a later stop or pause takes the place of what waits."""
    waiting = jobs.pending_request(run) if state in ACTIVE else None
    buttons = []
    if state in RESUMABLE:
        buttons = [("resume", "Resume", ":material/play_arrow:")]
    elif state in ACTIVE - {"pausing", "stopping"}:
        buttons = [
            ("pause", "Pause", ":material/pause:"),
            ("stop", "Stop", ":material/stop:"),
        ]
    if state == "running":
        buttons += [
            ("sample", "Sample now", ":material/image:"),
            ("checkpoint", "Checkpoint now", ":material/save:"),
        ]
    with st.container(horizontal=True, gap="small"):
        for action, label, icon in buttons:
            st.button(
                label,
                icon=icon,
                type="primary" if action == "resume" else "secondary",
                disabled=waiting is not None
                and (action in (waiting, "sample", "checkpoint") or waiting == "stop"),
                on_click=ask,
                args=(run, action),
                key=f"ask-{action}",
            )


def show_state(run: Run, state: str) -> None:
    """The state in words, the progress, what went wrong."""
    status = run.status
    line = f"{run_words.ICONS[state]} {run_words.state_sentence(run, state)}"
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
            words += f", {run_words.duration(left)} left"
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
    with st.expander("The end of train.log", icon=":material/notes:"):
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
        numbers.append(("Memory", run_words.size(status["memory_bytes"])))
    if not numbers:
        return
    with st.container(horizontal=True, gap="medium"):
        for label, value in numbers:
            st.metric(label, value, width=150)


def show_losses(run: Run, others: dict[str, Run], config: RunConfig | None) -> None:
    """The loss chart with its controls."""
    controls = st.columns([2, 1, 2], vertical_alignment="bottom")
    smoothing = controls[0].slider(
        "Smoothing",
        0.0,
        0.99,
        0.9,
        0.01,
        help="The weight of the past in the thick curve.",
        key="smoothing",
        bind="query-params",
    )
    logarithmic = controls[1].toggle("Logarithmic", key="log", bind="query-params")
    compared = controls[2].multiselect(
        "Compare with",
        list(others),
        placeholder="Other runs" if others else "There are no other runs",
        disabled=not others,
        key="compare",
        bind="query-params",
    )
    losses, validation = {}, {}
    for each in [run, *(others[name] for name in compared)]:
        losses[each.name] = resources.curve(each, "loss")
        validation[each.name] = resources.curve(each, "validation_loss")
    if not any(len(curve["step"]) for curve in losses.values()):
        st.caption("The losses appear here after the first steps.")
        return
    with_lecture = config is not None and config.preset == "lecture"
    show_live(
        loss_figure(losses, validation, smoothing, logarithmic, with_lecture),
        key=f"loss-{run.name}",
        alt=f"The loss of {', '.join(losses)} over the steps",
    )
    if config is None:
        return
    words = run_words.objective_sentence(config)
    if with_lecture:
        words += f" {run_words.lecture_sentence(config)}"
    if compared:
        words += " Of runs with different objectives only the shapes can be compared."
    st.caption(words)


def show_samples(run: Run, config: RunConfig | None) -> None:
    """The newest sample strip, or an earlier one."""
    strips = dict(run.samples())
    if not strips:
        st.caption("The first samples appear here when the run draws them.")
        return
    steps = list(strips)
    # Whoever looks at the newest strip goes on to the next one; whoever looks back stays.
    if st.session_state.get("strip") in (None, st.session_state.get("newest_strip")):
        st.session_state["strip"] = steps[-1]
    if st.session_state["strip"] not in steps:
        st.session_state["strip"] = steps[-1]
    st.session_state["newest_strip"] = steps[-1]
    step = steps[-1]
    if len(steps) > 1:
        step = st.select_slider("Samples of step", steps, key="strip", format_func="{:,}".format)
    try:
        row = pictures.read_strip(strips[step])
    except OSError:
        st.warning(f"The samples in {strips[step].name} cannot be read.")
        return
    pictures.show_row(row, f"Samples of {run.name} at step {step:,}", width=112)
    if config is not None and config.sample_steps == 0:
        st.caption(f"Step {step:,}: one picture, from noise (last) to the finished one (first).")
    else:
        st.caption(f"Step {step:,}: always from the same noise, by the averaged weights.")


def show_more(run: Run, config: RunConfig | None) -> None:
    """The other curves and the settings; only what is open is read and drawn."""
    names = ["Loss by timestep", *CURVES, "Settings"]
    for name, tab in zip(names, st.tabs(names, key="more", bind="query-params"), strict=True):
        if not tab.open:
            continue
        with tab:
            if name == "Settings":
                show_settings(run, config)
            elif name == "Loss by timestep":
                show_timesteps(run)
            else:
                curve, title = CURVES[name]
                values = resources.curve(run, curve)
                if len(values["step"]):
                    key = f"{curve}-{run.name}"
                    show_live(curve_figure(values, title), key, f"The {title} over the steps")
                else:
                    st.caption("Nothing yet.")


def show_timesteps(run: Run) -> None:
    curves = {name: resources.curve(run, name) for name in BIN_NAMES}
    if not any(len(curve["step"]) for curve in curves.values()):
        st.caption("Nothing yet.")
        return
    show_live(
        timestep_figure(curves),
        key=f"timesteps-{run.name}",
        alt=f"The loss of {run.name} by tenth of the schedule over the steps",
    )
    st.caption(
        "The unweighted error of the training pictures by how noisy they were: little noise at "
        "the bottom, nearly only noise at the top."
    )


def show_settings(run: Run, config: RunConfig | None) -> None:
    if config is None:
        st.caption("The run has not written its settings yet.")
        return
    st.caption("Everything in config.json: the settings, and what they came to on the machine.")
    st.json((run.path / "config.json").read_text(), expanded=1)
