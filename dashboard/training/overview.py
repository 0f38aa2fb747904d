"""All runs on the Training page: the fragment that is shown again while a run is active."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dashboard.services import roles
from dashboard.services.settings import SettingsError, get_settings
from dashboard.services.shared_look import keep_pace, look_anew, pace, runs_of
from dashboard.training import run_controls
from dashboard.training.demo_form import show_demo_form
from dashboard.training.form import show_form, take_settings
from dashboard.training.launch import Start
from dashboard.training.run_view import show_run
from dashboard.training.sweep_form import show_sweeps
from dashboard.ui import keys, run_wording
from dashboard.ui.outside import plain
from dashboard.ui.pickers import pick_run
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import ACTIVE

IDLE_SECONDS = 5.0  # between two looks at the runs while none is active; else see `pace`


def show_training() -> None:
    """The form, the runs and what can be done with them."""
    # What is shown again every second must not fade each time.
    st.html("<style>.st-key-live [data-stale=true] { opacity: 1 !important; }</style>")
    settings = get_settings()
    _apply_last_click()
    look_anew()
    runs = runs_of(settings)
    operator = roles.may_operate()
    if operator:
        # In each run of the page until there is an answer: it may be run again at any moment.
        to_delete = st.session_state.get(keys.TO_DELETE)
        for run in runs:
            if run.name == to_delete:
                run_controls.confirm_deletion(run.run)
        run_controls.show_undo()
        st.fragment(show_form)(runs)
    elif roles.may_train():
        show_demo_form()
    else:
        st.info(
            "You can watch every run here. Only the operator of this installation can start, "
            "change and stop runs.",
            icon=":material/visibility:",
        )
    active = any(run.state in ACTIVE for run in runs)
    seconds = pace(st.session_state.get(keys.PACE)) if active else IDLE_SECONDS
    st.session_state[keys.PACE] = seconds if active else None
    st.fragment(_show_runs, run_every=seconds)(operator, active, seconds, [runs])
    if operator:
        run_controls.show_deleted(settings)


def _apply_last_click() -> None:
    """Apply what a button has left in the session state for this run of the page."""
    state = st.session_state
    if keys.FORM_OPEN not in state:  # the visitor comes from another page
        state.pop(keys.DELETED, None)
        state.pop(keys.TO_DELETE, None)
    if name := state.pop(keys.NEW_RUN, None):
        # In this run of the page and in the next: the browser may have requested the fragment
        # before it heard of the new run, and would bring back the old one.
        state[keys.SHOWN_NEW_RUN] = (name, 2)
        state[keys.NAME] = ""
        state[keys.FORM_OPEN] = False
    for key, distils in ((keys.DUPLICATE, False), (keys.DISTIL, True)):
        if name := state.pop(key, None):
            state[keys.NAME] = ""
            state[keys.FORM_OPEN] = True
            take_settings(Start(run=name, distils=distils))


def _show_runs(
    was_operator: bool, was_active: bool, seconds: float, seen: list[list[RunSnapshot]]
) -> None:
    """The fragment: everything that changes during a run.

    `seen`: what the page has just read; the first run of the fragment takes it.
    """
    try:
        settings = get_settings()
        runs = seen.pop() if seen else runs_of(settings)
    except SettingsError as error:
        st.error(plain(error))
        return
    active = any(run.state in ACTIVE for run in runs)
    if (was_operator, was_active) != (roles.may_operate(), active):
        st.rerun()  # of the whole page: other controls, another interval
    if was_active:
        keep_pace(seconds)
    run_controls.show_refusal()
    if not runs:
        start = "Choose settings above and press Start. " if roles.may_train() else ""
        st.info(f"There are no runs yet. {start}Losses and samples appear here during training.")
        return
    _show_new_run(runs)
    with st.container(key="live"):
        run = pick_run(runs)
        st.set_page_config(page_title=run_wording.tab_title(run))
        show_run(run, runs)
        run_controls.show_queue(runs)
        show_sweeps(settings, runs)
        st.header("All runs")
        _show_table(runs, run)


def _show_new_run(runs: list[RunSnapshot]) -> None:
    name, times = st.session_state.get(keys.SHOWN_NEW_RUN, ("", 0))
    if times and any(run.name == name for run in runs):
        st.session_state[keys.RUN] = name
        st.session_state[keys.SHOWN_NEW_RUN] = (name, times - 1)


def _show_table(runs: list[RunSnapshot], chosen: RunSnapshot) -> None:
    names = [run.name for run in runs]
    key = f"runs-{len(runs)}-{chosen.name}"
    rows = [_row(run) for run in runs]
    if any(run.problem for run in runs):
        rows = [row | {"Problem": run.problem} for row, run in zip(rows, runs, strict=True)]
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "Loss": st.column_config.NumberColumn(format="%.4f"),
            "Images/s": st.column_config.NumberColumn(format="%.1f"),
            "Started": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
        placeholder="",
        on_select=lambda: _choose(key, names, chosen.name),
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [names.index(chosen.name)]}},
        key=key,
        alt="All runs",
    )


def _row(run: RunSnapshot) -> dict[str, object]:
    status, config = run.status, run.config
    return {
        "Run": run.name,
        "State": run.state,
        "Step": f"{status.step:,} / {status.total:,}",
        "Loss": status.loss,
        "Images/s": status.images_per_second,
        "Started": datetime.fromtimestamp(run.created) if run.created else None,
        "Data": config.data if config else None,
        "Preset": run_wording.preset_title(config) if config else None,
    }


def _choose(key: str, names: list[str], before: str) -> None:
    """Show the run of the selected row, unless it is `before`, the one that was shown.

    The browser also reports the row that the table started with, maybe after another control has
    changed the run.
    """
    rows = st.session_state[key]["selection"]["rows"]
    if rows and names[rows[0]] != before:
        st.session_state[keys.RUN] = names[rows[0]]
