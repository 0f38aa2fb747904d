"""The form that starts a run: its layout, and what a choice changes in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import streamlit as st

from dashboard.services import cached
from dashboard.services.settings import Settings, get_settings
from dashboard.training.form_controls import (
    DATA,
    DATA_KEYS,
    KEYS,
    MAIN,
    MORE,
    SIZE,
    SNR,
    STEPS,
    TARGET,
    WARMUP,
    data_spec,
    detail_control,
    entries_of,
    make_config,
    usual_gamma,
    usual_warmup,
)
from dashboard.training.launch import Start, estimate, queue_note
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Control, Text
from dashboard.ui.outside import plain
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import sentence
from diffusion_core.data.sources import SOURCES
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.run import RunSnapshot

START = Choice(
    key="preset",
    label="Start from",
    default=Start(preset="small"),
    help="A preset, or the settings of another run. small: for two CPU cores. lecture: the "
    "lecture's network and training, 62 million parameters, slow without a GPU. base: 52 million "
    "parameters, for a GPU.",
)
NAME = Text(key=keys.NAME, label="Run name")


def show_form(settings: Settings, runs: list[RunSnapshot]) -> None:
    in_link = not (KEYS | {START.key, NAME.key}).isdisjoint(st.query_params)
    with st.expander(
        "Start a training run",
        expanded=not runs or in_link,
        icon=":material/add_circle:",
        key=keys.FORM_OPEN,
        on_change="rerun",
    ):
        _show_fields(settings, runs)


def take_settings(start: Start) -> None:
    """Copy the settings of a preset or a run to the form; a preset has no data, size or seed."""
    settings = get_settings()
    try:
        config = start.config(settings.runs_dir)
    except ConfigError:
        return  # the form says why
    st.session_state[START.key] = start
    for key, value in entries_of(config, settings.max_steps).items():
        if start.run or key not in DATA_KEYS:
            st.session_state[key] = value


def _show_fields(settings: Settings, runs: list[RunSnapshot]) -> None:
    _read_old_links()
    left, right = st.columns(2)
    options = [
        *(Start(preset=name) for name in PRESETS),
        *(Start(run=run.name) for run in runs),
    ]
    with left:
        start: Start = START.now(
            options=options, titles={option: option.title for option in options}
        ).ask(on_change=lambda: take_settings(st.session_state[START.key]))
    try:
        config = start.config(settings.runs_dir)
    except ConfigError as error:
        st.error(str(error))
        return
    entries = entries_of(config, settings.max_steps)
    with right:
        kind, detail = _pick_data(entries)
    hint = jobs.free_name(settings.runs_dir, start.run or f"{start.preset}-{kind}")
    with left:
        name = NAME.now(placeholder=hint).ask().strip() or hint
    if kind != entries[DATA.key]:
        entries[SIZE.key] = SOURCES[kind].size
    for column, controls in zip(st.columns(len(MAIN)), MAIN, strict=True):
        with column:
            _ask(controls, entries, settings)
    with st.expander("More settings", icon=":material/tune:"):
        warmup = f"{usual_warmup(config, entries[STEPS.key]):,}"
        for column, groups in zip(st.columns(len(MORE), gap="medium"), MORE, strict=True):
            with column:
                for title, group in groups.items():
                    st.markdown(f"**{title}**")
                    _ask(group, entries, settings, warmup)
        origin = start.title if start.run else f"preset {start.title}"
        st.caption(f"Other settings come from {origin}.")
    with st.container(horizontal=True):
        start_now = st.button("Start", type="primary", icon=":material/play_arrow:")
        pressed = start_now or st.button(
            "Create without starting",
            icon=":material/create_new_folder:",
            help="For example to start it on several machines.",
        )
    try:
        config = make_config(config, data_spec(kind, detail), entries, settings.max_steps)
        if pressed:
            with st.spinner("Checking the data …"):
                jobs.check_name(name)
                jobs.check_data(config)
            if start_now:
                jobs.start(settings.runs_dir, name, config, settings.device)
            else:
                jobs.create(settings.runs_dir, name, config)
            st.session_state[keys.NEW_RUN] = name
            st.rerun()
    except (ConfigError, DataError, jobs.JobError) as error:
        # Before a click the visitor may still be typing.
        (st.error if pressed else st.caption)(str(error))
        return
    device = str(cached.device())
    notes = f"{estimate(runs, config, device)} {queue_note(runs, device)}".strip()
    if notes:
        st.caption(notes)


def _pick_data(entries: dict[str, Any]) -> tuple[str, str | int]:
    """The kind of data and its detail: a number of images, a folder, a name."""
    kind = DATA.now(default=entries[DATA.key]).ask(on_change=_take_usual_size)
    control = detail_control(kind)
    detail = control.now(default=entries.get(kind, control.default)).ask()
    if str(detail).strip():
        _say_what_is_there(data_spec(kind, detail))
    return kind, detail


def _say_what_is_there(spec: str) -> None:
    try:
        found = cached.found(spec)
    except DataError as error:
        st.caption(plain(error))
        return
    if found is not None:
        (st.warning if found.left_out else st.caption)(plain(sentence(found)))


def _take_usual_size() -> None:
    st.session_state[SIZE.key] = SOURCES[st.session_state[DATA.key]].size


def _ask(
    controls: Iterable[Control], entries: dict[str, Any], settings: Settings, warmup: str = ""
) -> None:
    """Show controls that start at `entries`, and write their values back."""
    for control in controls:
        now = control.now(default=entries[control.key])
        if control is WARMUP:
            now = now.now(placeholder=warmup)
        if control is SNR:
            now = now.now(placeholder=f"{usual_gamma(entries):g}")
        if control is STEPS and settings.max_steps:
            now = now.now(high=settings.max_steps)
        entries[control.key] = now.ask()


def _read_old_links() -> None:
    """Take the values of links of earlier versions, where nothing has been chosen since."""
    start = st.query_params.get(START.key, "")
    if start.startswith("as ") and START.key not in st.session_state:
        st.session_state[START.key] = Start(run=start.removeprefix("as "))
    if st.query_params.get(TARGET.key) == "picture" and TARGET.key not in st.session_state:
        st.session_state[TARGET.key] = "x_0"
