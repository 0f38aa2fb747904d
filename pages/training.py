"""Training: start a run, watch it live, pause, resume or stop it; the list of all runs."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dashboard import resources, training_form
from dashboard.controls import pick_run
from dashboard.run_view import show_run
from dashboard.settings import Settings, get_settings
from diffusion_core import jobs
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.data.digits import COUNT as DIGITS_COUNT
from diffusion_core.data.store import CARS_COUNT, DataError
from diffusion_core.presets import PRESETS
from diffusion_core.runs import ACTIVE, Run, list_runs

FORM_KEYS = {"preset", "data", "cars", "digits", "folder", "torchvision", "steps", "batch", "lr"}
FORM_KEYS |= {"seed", "size", "every", "name"}


# ------------------------------------------------------------------------------ the form


def take_presets_numbers() -> None:
    """Another preset was chosen: its own numbers go into the form."""
    start = PRESETS[st.session_state["preset"]]
    most = get_settings().max_steps
    st.session_state["steps"] = min(start.steps, most) if most else start.steps
    st.session_state["batch"] = start.batch_size
    st.session_state["lr"] = start.learning_rate
    st.session_state["every"] = start.checkpoint_every


def take_datas_size() -> None:
    st.session_state["size"] = training_form.suggested_size(st.session_state["data"])


def pick_data() -> tuple[str, str]:
    """The kind of data and what belongs to it: a number of pictures, a folder, a name."""
    kind = st.selectbox(
        "Pictures",
        training_form.DATA,
        help="cars are drawn by this app, digits are real handwriting; or give a folder of your "
        "own, for example Stanford Cars, or a data set of torchvision.",
        on_change=take_datas_size,
        key="data",
        bind="query-params",
    )
    if kind in ("folder", "torchvision"):
        label = "Folder on this machine" if kind == "folder" else "Name in torchvision"
        hint = "/data/stanford_cars" if kind == "folder" else "CIFAR10"
        return kind, st.text_input(label, placeholder=hint, key=kind, bind="query-params")
    most = CARS_COUNT if kind == "cars" else DIGITS_COUNT
    number = st.number_input(
        "How many pictures",
        min_value=1,
        max_value=most,
        value=most,
        step=100,
        help="The first time that a set is used its pictures are made ready, which takes the "
        "longer the more they are.",
        key=kind,
        bind="query-params",
    )
    return kind, "" if number == most else str(number)


def pick_numbers(start: RunConfig, kind: str, max_steps: int | None) -> dict[str, float]:
    """The numbers of the form by their names in `make_config`."""
    columns = st.columns(3)
    fields = (
        ("steps", "Steps", "steps", start.steps, 1, max_steps or 10**7, 100),
        ("batch_size", "Batch size", "batch", start.batch_size, 1, 4096, 8),
        ("learning_rate", "Learning rate", "lr", start.learning_rate, 0.0, 10.0, 1e-4),
        ("image_size", "Picture size", "size", training_form.suggested_size(kind), 16, 256, 16),
        ("seed", "Seed", "seed", 0, 0, 2**31 - 1, 1),
        ("every", "Samples every", "every", start.checkpoint_every, 1, 10**7, 25),
    )
    helps = {
        "batch_size": "Pictures per step.",
        "image_size": "Pixels of each side; a multiple of 8, for the lecture's network of 16.",
        "seed": "The same settings and seed give the same run.",
        "every": "Steps between two sample strips, checkpoints and validations. The last step "
        "always has them.",
    }
    numbers: dict[str, float] = {}
    for k, (name, label, key, default, least, most, step) in enumerate(fields):
        numbers[name] = columns[k % 3].number_input(
            label,
            min_value=least,
            max_value=most,
            value=min(default, most),
            step=step,
            format="%.5g" if name == "learning_rate" else None,
            help=helps.get(name),
            key=key,
            bind="query-params",
        )
    return numbers


def show_form(settings: Settings, runs: list[Run], opened: bool) -> None:
    form = st.expander(
        "Start a run",
        expanded=opened,
        icon=":material/add_circle:",
        key="form_open",
        on_change="rerun",
    )
    with form:
        left, right = st.columns(2)
        with left:
            preset = st.selectbox(
                "Preset",
                list(PRESETS),
                index=list(PRESETS).index("small"),
                help="small: made for two CPU cores. lecture: the lecture's network and training, "
                "62 million parameters, slow without a GPU.",
                on_change=take_presets_numbers,
                key="preset",
                bind="query-params",
            )
        with right:
            kind, detail = pick_data()
        hint = training_form.suggested_name(settings.runs_dir, preset, kind)
        with left:
            name = st.text_input(
                "Name of the run", placeholder=hint, key="name", bind="query-params"
            )
        numbers = pick_numbers(PRESETS[preset], kind, settings.max_steps)
        pressed = st.button("Start", type="primary", icon=":material/play_arrow:")
        try:
            config = training_form.make_config(
                preset,
                training_form.data_spec(kind, detail),
                max_steps=settings.max_steps,
                **numbers,
            )
            if pressed:
                with st.spinner("Looking at the pictures …"):
                    run = training_form.start_run(settings, name.strip() or hint, config)
                st.session_state["started"] = run.name
                st.rerun()
        except (ConfigError, DataError, jobs.JobError) as error:
            # Before anybody pressed Start it may only be that they have not finished typing.
            (st.error if pressed else st.caption)(str(error))
            return
        device = str(resources.device())
        notes = [
            training_form.estimate(runs, config, device),
            training_form.queue_note(runs, device),
        ]
        if any(notes):
            st.caption(" ".join(filter(None, notes)))


# ------------------------------------------------------------------------------ all runs


def choose(key: str, names: list[str], before: str) -> None:
    """A row of the table was chosen, where it is another one than that of `before`.

    The browser also reports the row that the table was drawn with, maybe after the run was changed
    by other means.
    """
    rows = st.session_state[key]["selection"]["rows"]
    if rows and names[rows[0]] != before:
        st.session_state["run"] = names[rows[0]]


def table_row(run: Run) -> dict[str, object]:
    status = run.status
    try:
        config = run.config
    except ConfigError:
        config = None
    return {
        "Run": run.name,
        "State": run.state,
        "Step": f"{status.get('step', 0):,} / {status.get('total', 0):,}",
        "Loss": status.get("loss"),
        "Images/s": status.get("images_per_second"),
        "Started": datetime.fromtimestamp(run.created) if run.created else None,
        "Data": config.data if config else None,
        "Preset": config.preset if config else None,
    }


def show_table(runs: list[Run], chosen: Run) -> None:
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


def show_runs(settings: Settings, was_active: bool) -> None:
    """The fragment: everything that changes while a run goes on."""
    runs = list_runs(settings.runs_dir)
    if was_active != any(run.state in ACTIVE for run in runs):
        st.rerun()  # of the whole page, which starts or stops asking
    if refusal := st.session_state.pop("refusal", None):
        st.toast(refusal, icon=":material/error:", duration="long")
    if not runs:
        st.info(
            "There are no runs yet. "
            + ("Choose settings above and press Start: " if settings.may_operate else "Here ")
            + "the losses and the samples of a run appear here while it learns."
        )
        return
    with st.container(key="live"):
        run = pick_run(runs)
        show_run(run, runs, settings)
        st.header("All runs")
        show_table(runs, run)


# ------------------------------------------------------------------------------ the page

st.title("Training")
# What is about to be drawn anew every second must not fade each time.
st.html("<style>.st-key-live [data-stale=true] { opacity: 1 !important; }</style>")
st.markdown(
    r"""
Every step takes a batch of pictures $x_0$, draws a timestep $t$ and noise $\epsilon$ for each,
shows the network $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon$ and moves
its weights a little so that what it says was added comes closer to the truth:
$L = \mathbb{E}\,\lVert \epsilon - \epsilon_\theta(x_t, t) \rVert$. A run is a process of its own:
it goes on when this page is closed, and is found again.
"""
)
settings = get_settings()
if started := st.session_state.pop("started", None):
    st.session_state["run"] = started
    st.session_state["name"] = ""
    st.session_state["form_open"] = False
runs = list_runs(settings.runs_dir)
if settings.may_operate:
    asked_for = not FORM_KEYS.isdisjoint(st.query_params)
    st.fragment(show_form)(settings, runs, opened=not runs or asked_for)
else:
    st.info(
        "You can watch every run here. Starting, pausing and stopping is left to the operator of "
        "this installation.",
        icon=":material/visibility:",
    )
active = any(run.state in ACTIVE for run in runs)
wanted = st.query_params.get("run")
if wanted and runs and wanted not in {run.name for run in runs}:
    st.warning(f"There is no run called {wanted} here; this is the newest one.")
st.fragment(show_runs, run_every=1.0 if active else None)(settings, active)
