"""Training: start a run, watch it live, control it; the queue; the list of all runs."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dashboard.services.settings import Settings, get_settings
from dashboard.training import run_controls
from dashboard.training.form import FORM_KEYS, show_form, take_settings
from dashboard.training.form_values import AS_RUN
from dashboard.training.run_view import show_run
from dashboard.ui.pickers import pick_run
from diffusion_core.runs.run import RunSnapshot, snapshots
from diffusion_core.runs.status import ACTIVE

# Seconds between two looks at the runs: while one is at work, and while none is.
AT_WORK, IDLE = 1.0, 5.0


# ------------------------------------------------------------------------------ all runs


def choose(key: str, names: list[str], before: str) -> None:
    """A row of the table was chosen, where it is another one than that of `before`.

    The browser also reports the row that the table was drawn with, maybe after the run was changed
    by other means.
    """
    rows = st.session_state[key]["selection"]["rows"]
    if rows and names[rows[0]] != before:
        st.session_state["run"] = names[rows[0]]


def table_row(run: RunSnapshot) -> dict[str, object]:
    status, config = run.status, run.config
    return {
        "Run": run.name,
        "State": run.state,
        "Step": f"{status.step:,} / {status.total:,}",
        "Loss": status.loss,
        "Images/s": status.images_per_second,
        "Started": datetime.fromtimestamp(run.created) if run.created else None,
        "Data": config.data if config else None,
        "Preset": config.preset if config else None,
    }


def show_table(runs: list[RunSnapshot], chosen: RunSnapshot) -> None:
    names = [run.name for run in runs]
    key = f"runs-{len(runs)}-{chosen.name}"
    st.dataframe(
        [table_row(run) for run in runs],
        hide_index=True,
        column_config={
            "Loss": st.column_config.NumberColumn(format="%.4f"),
            "Images/s": st.column_config.NumberColumn(format="%.1f"),
            "Started": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
        placeholder="",
        on_select=lambda: choose(key, names, chosen.name),
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [names.index(chosen.name)]}},
        key=key,
        alt="All runs",
    )


def show_new(name: str) -> None:
    """Let the page show a run that has just been started or brought back.

    In this run of the script and in the next one: a look of the fragment may be under way that the
    browser asked for before it heard of the new run, and would bring back the old one.
    """
    st.session_state["new"] = (name, 2)


def insist_on_new(runs: list[RunSnapshot]) -> None:
    name, times = st.session_state.get("new", ("", 0))
    if times and name in {run.name for run in runs}:
        st.session_state["run"] = name
        st.session_state["new"] = (name, times - 1)


def show_runs(settings: Settings, was_active: bool) -> None:
    """The fragment: everything that changes while a run goes on."""
    runs = snapshots(settings.runs_dir)
    if was_active != any(run.state in ACTIVE for run in runs):
        st.rerun()  # of the whole page, which looks more often or more rarely
    run_controls.show_refusal()
    if not runs:
        st.info(
            "There are no runs yet. "
            + ("Choose settings above and press Start: " if settings.may_operate else "Here ")
            + "the losses and the samples of a run appear here while it learns."
        )
        return
    insist_on_new(runs)
    with st.container(key="live"):
        run = pick_run(runs)
        show_run(run, runs, settings)
        run_controls.show_queue(runs, settings)
        st.header("All runs")
        show_table(runs, run)


# ------------------------------------------------------------------------------ the page

st.title("Training")
# What is about to be drawn anew every second must not fade each time.
st.html("<style>.st-key-live [data-stale=true] { opacity: 1 !important; }</style>")
st.markdown(
    r"""
Every step takes a batch of images $x_0$, draws a timestep $t$ and noise $\epsilon$ for each,
shows the network $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon$ and moves
its weights a little so that what it says was added comes closer to the truth:
$L = \mathbb{E}\,\lVert \epsilon - \epsilon_\theta(x_t, t) \rVert$. A run is a process of its own:
it goes on when this page is closed, and is found again.
"""
)
settings = get_settings()
if "form_open" not in st.session_state:  # somebody comes from another page
    st.session_state.pop("deleted", None)
    st.session_state.pop("to_delete", None)
if started := st.session_state.pop("started", None):
    show_new(started)
    st.session_state["name"] = ""
    st.session_state["form_open"] = False
if like := st.session_state.pop("like", None):
    st.session_state["preset"] = AS_RUN + like
    st.session_state["name"] = ""
    st.session_state["form_open"] = True
    take_settings(AS_RUN + like)
runs = snapshots(settings.runs_dir)
names = {run.name: run for run in runs}
if settings.may_operate:
    # Asked in each run of the page until there is an answer: it may be run again at any moment.
    to_delete = names.get(st.session_state.get("to_delete", ""))
    if to_delete is not None:
        run_controls.confirm_deletion(to_delete.run)
    run_controls.show_undo()
    asked_for = not FORM_KEYS.isdisjoint(st.query_params)
    st.fragment(show_form)(settings, runs, opened=not runs or asked_for)
else:
    st.info(
        "You can watch every run here. Starting, changing and stopping is left to the operator of "
        "this installation.",
        icon=":material/visibility:",
    )
active = any(run.state in ACTIVE for run in runs)
gone = st.session_state.get("deleted")
wanted = st.query_params.get("run")
if wanted and runs and wanted not in names and not (gone and gone.name == wanted):
    st.warning(f"There is no run called {wanted} here; this is the newest one.")
st.fragment(show_runs, run_every=AT_WORK if active else IDLE)(settings, active)
if settings.may_operate:
    run_controls.show_deleted(settings)
