"""Sweeps on the Training page: the part of the form that starts one, and the list of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.services import cached, roles, run_deeds
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import Settings, SettingsError
from dashboard.services.shared_look import recent
from dashboard.training.form_controls import BY_FIELD, DESIGN, LOSS_ON, ONLY_WITH
from dashboard.training.launch import speed_of
from dashboard.training.run_controls import attempt
from dashboard.ui import keys
from dashboard.ui.controls import Choice, MultiChoice, Number, Text, Toggle
from dashboard.ui.navigation import entry
from dashboard.ui.outside import code, plain
from dashboard.ui.run_wording import count, duration
from diffusion_core.data.errors import DataError
from diffusion_core.process.tables import DESIGNED
from diffusion_core.review.index import Value, settings_of
from diffusion_core.runs import jobs, sweep
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.sweep_file import JUDGES, Plan, State, Sweep, read_sweeps
from diffusion_core.runs.sweep_plan import METHODS, MOST_RUNS, parse_dimension

MOST_VARIED = 6
SHOWN_SWEEPS = 5
RUNS_HEIGHT = 200  # of the table of runs, in pixels

NAME = Text(key="sweep-name", label="Sweep name", longest=70, bind=False)
VARIED = MultiChoice(
    key="sweep-varied",
    label="Settings to vary",
    one=Choice(key="", label=""),
    options=tuple(BY_FIELD),
    most=MOST_VARIED,
    bind=False,
)
METHOD = Choice(
    key="sweep-method",
    label="Method",
    options=METHODS,
    titles={"grid": "grid", "random": "random", "sobol": "Sobol"},
    default="grid",
    segmented=True,
    help="grid: all combinations. random: some of them. Sobol: some, spread evenly; best with a "
    "power of 2.",
    bind=False,
)
RUNS = Number(key="sweep-runs", label="Runs", low=1, high=MOST_RUNS, default=8, step=1, bind=False)
AT_MOST = Number(
    key="sweep-at-most",
    label="At once",
    low=1,
    high=MOST_RUNS,
    default=1,
    step=1,
    help="Runs of this sweep that train or wait in the queue at the same time.",
    bind=False,
)
HALVE = Text(
    key="sweep-halve",
    label="Halve at steps",
    placeholder="200, 400",
    help="After each of these steps the weaker half of the runs pauses. Empty: never.",
    bind=False,
)
USUAL = "usual"
JUDGE = Choice(
    key="sweep-judge",
    label="Judge by",
    options=(USUAL, *JUDGES),
    titles={USUAL: "automatic", **sweep.TITLES},
    default=USUAL,
    help="quality: Fréchet or sliced Wasserstein distance, measured during training. automatic: "
    "quality if it is measured, else the validation loss.",
    bind=False,
)


def show_sweep_form(settings: Settings, base: RunConfig, runs: list[RunSnapshot]) -> None:
    """Let the visitor start a sweep around `base`, the settings of the form above."""
    with st.expander("Sweep", icon=":material/grid_view:"):
        st.caption("Starts several runs with the settings above, of which some vary.")
        left, right = st.columns(2)
        with left:
            hint = free_name(settings.runs_dir)
            name = NAME.now(placeholder=hint).ask().strip() or hint
        with right:
            varied = VARIED.ask(max_selections=MOST_VARIED, placeholder="Choose settings")
        if not varied:
            return
        vary = _ask_values(varied, base)
        plan, configs = None, dict[str, RunConfig]()
        try:
            plan = _ask_plan(vary)
            configs = sweep.plan_runs(name, base, plan)
        except ConfigError as error:
            st.caption(plain(error))
        else:
            _show_plan(plan, configs, runs)
        if st.button("Start sweep", icon=":material/play_arrow:", disabled=plan is None):
            _start(name, base, plan)


def _ask_values(varied: list[str], base: RunConfig) -> list[str]:
    """SETTING=VALUES of each setting, as `--vary` takes it."""
    found = []
    columns = st.columns(min(3, len(varied)))
    for number, name in enumerate(varied):
        with columns[number % len(columns)]:
            values = Text(
                key=f"sweep-values-{name}",
                label=name,
                default=usual_values(name, base),
                help="Values with commas between them, or a range: `1e-4..1e-2`, "
                "`1e-4..1e-2:log`, five values of it `1e-4..1e-2:log:5`.",
                bind=False,
            ).ask()
        found.append(f"{name}={values.strip()}")
    return found


def usual_values(name: str, base: RunConfig) -> str:
    """All choices of a setting, or half of its number, the number and its double."""
    control = BY_FIELD[name]
    target, allowed = ONLY_WITH[LOSS_ON.key]
    if control is DESIGN or (control is LOSS_ON and getattr(base, target.field) not in allowed):
        return ""
    if isinstance(control, Choice):
        # One that is designed needs its points, too.
        return ", ".join(str(option) for option in control.options if option != DESIGNED)
    if isinstance(control, Toggle):
        return "true, false"
    value: Any = settings_of(base).get(name)
    if not isinstance(value, (int, float)) or not value:
        return ""
    if name.startswith("ema_decay"):  # doubled is the length of the average
        return ", ".join(f"{1 - (1 - value) * factor:g}" for factor in (2, 1, 0.5))
    values = [value / 2, value, value * 2] if isinstance(value, float) else [value, value * 2]
    return ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)


def _ask_plan(vary: list[str]) -> Plan:
    """Raises ConfigError."""
    left, middle, right = st.columns([2, 1, 1])
    with left:
        method = METHOD.ask()
    with middle:
        at_most = AT_MOST.ask()
    with right:
        made = RUNS.ask() if method != "grid" else None
    left, right = st.columns(2)
    with left:
        text = HALVE.ask().strip()
    with right:
        judge = JUDGE.ask() if text else USUAL
    words = text.replace(",", " ").split()
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise ConfigError(f"{HALVE.label}: write whole numbers with commas between them.")
    return Plan(
        vary=vary,
        method=method,
        runs=made,
        at_most=at_most,
        halve_at=[int(word) for word in words],
        judge=None if judge == USUAL else judge,
    )


def _show_plan(plan: Plan, configs: dict[str, RunConfig], runs: list[RunSnapshot]) -> None:
    names = [parse_dimension(text).name for text in plan.vary]
    device, seconds = str(cached.device()), 0.0
    for run, images in sweep.images_of(configs, plan).items():
        speed = speed_of(runs, configs[run], device)
        seconds += images / speed.images_per_second if speed else float("inf")
    about = f"About {duration(seconds)} in total." if seconds < float("inf") else ""
    st.caption(f"{count(len(configs), 'run')}. {about}".strip())
    values = {run: settings_of(config) for run, config in configs.items()}
    rows: list[dict[str, Value | None]] = [
        {"Run": run, **{name: values[run].get(name) for name in names}} for run in configs
    ]
    st.dataframe(
        rows,
        hide_index=True,
        height=min(RUNS_HEIGHT, 36 * (len(configs) + 1)),
        alt="Runs of the sweep",
    )


def _start(name: str, base: RunConfig, plan: Plan | None) -> None:
    assert plan is not None  # the button is disabled then
    try:
        with st.spinner("Creating the runs …"):
            made = run_deeds.start_sweep(name, base, plan)
    except (ConfigError, DataError, jobs.JobError, NotAllowed, SettingsError) as error:
        st.error(plain(error))
        return
    st.session_state[keys.NEW_RUN] = made.runs[0]
    st.rerun()


def free_name(runs_dir: Path) -> str:
    """The first of sweep-1, sweep-2, … that is neither a sweep nor has runs."""
    taken = {each.name for each in read_sweeps(runs_dir)}
    number = 1
    while f"sweep-{number}" in taken or os.path.exists(runs_dir / f"sweep-{number}-01"):
        number += 1
    return f"sweep-{number}"


def show_sweeps(settings: Settings, runs: list[RunSnapshot]) -> None:
    """The newest sweeps, with links to the Review page; nothing without any."""
    runs_dir = settings.runs_dir
    found = recent(("sweeps", runs_dir), lambda: read_sweeps(runs_dir))
    if not found:
        return
    st.header("Sweeps")
    for each in found[:SHOWN_SWEEPS]:
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.markdown(f"{code(each.name)} {plain(sweep.in_words(each, runs))}", width="stretch")
            _show_deed(each)
            review = entry("review.py")
            st.page_link(
                review.path,
                label="Review",
                icon=review.icon,
                query_params={"filter": each.filter},
            )
    if len(found) > SHOWN_SWEEPS:
        st.caption(f"`diffusion-lab sweep` lists {len(found) - SHOWN_SWEEPS} more.")


def _show_deed(each: Sweep) -> None:
    if each.state == State.RUNNING and roles.may(Deed.STOP):
        label, icon, deed = "Stop sweep", "stop", run_deeds.stop_sweep
    elif each.state == State.STOPPED and roles.may(Deed.RESUME):
        label, icon, deed = "Resume sweep", "play_arrow", run_deeds.resume_sweep
    else:
        return
    st.button(
        label,
        icon=f":material/{icon}:",
        on_click=attempt,
        args=(deed, each.name),
        key=f"sweep-{label}-{each.name}",
    )
