"""The controls that several pages share, each kept in the page's address."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.components.timestep.timestep import show_timestep
from dashboard.services import cached
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Number, Toggle
from dashboard.ui.outside import plain
from diffusion_core.process.schedule import SCHEDULE_KINDS, NoiseSchedule
from diffusion_core.runs.run import Run, RunSnapshot

KIND = Choice(
    key="kind",
    label="Schedule",
    options=SCHEDULE_KINDS,
    default="linear",
    help="The lecture uses linear.",
)
TIMESTEPS = Number(
    key="T",
    label="Timesteps T",
    low=2,
    high=4000,
    default=300,
    step=50,
    help="300 in the lecture, 1,000 in most papers.",
)
TIMESTEP = Number(key="t", label="Timestep t")
BETAS = tuple(
    Number(key=key, label=label, low=1e-6, high=0.999, default=default, step=step)
    for key, label, default, step in (
        ("beta_start", "First β", 1e-4, 1e-4),
        ("beta_end", "Last β", 0.02, 1e-3),
    )
)
ZERO_SNR = Toggle(
    key="zero_snr",
    label="End in pure noise",
    help="Rescale the schedule so that nothing of the image is left at the last timestep (zero "
    "terminal SNR, Lin et al. 2024).",
)

AnyRun = TypeVar("AnyRun", Run, RunSnapshot)


def pick_schedule() -> NoiseSchedule:
    """Kind, T, the ends of β and the rescaling, as a schedule; see `make_schedule`."""
    kind = KIND.ask()
    timesteps = TIMESTEPS.ask()
    with st.popover("More", icon=":material/tune:", width="stretch"):
        ends = pick_ends(takes_betas=SCHEDULE_KINDS[kind].takes_betas)
    return make_schedule(kind, timesteps, *ends)


def pick_timestep(timesteps: int, default: int) -> int:
    """A slider over t = 0 ... timesteps - 1, and where it rests; a t beyond a T that shrank becomes
    the last one.

    In the browser it moves all that follows it at once; see `components/shared/timestep.js`. The
    page's address alone keeps t.
    """
    last = timesteps - 1
    TIMESTEP.now(high=TIMESTEPS.high - 1).check_link()
    control = TIMESTEP.now(high=last, default=min(default, last))
    if TIMESTEP.key not in st.query_params:
        t = control.default
    elif (t := control.of_text(st.query_params[TIMESTEP.key])) > last:
        t = last
        st.query_params[TIMESTEP.key] = str(t)

    def rest(given: object) -> None:
        if not control.problem(given):
            st.query_params[TIMESTEP.key] = str(given)

    show_timestep(control.label, t, last, keys.TIMESTEP, rest)
    return t


def pick_ends(*, takes_betas: bool) -> tuple[float, float, bool]:
    """The first and the last β, and whether the schedule ends in pure noise."""
    first, last = (control.ask(disabled=not takes_betas) for control in BETAS)
    return first, last, ZERO_SNR.ask()


def make_schedule(
    kind: str, timesteps: int, beta_start: float, beta_end: float, zero_snr: bool
) -> NoiseSchedule:
    """The schedule of these settings; a contradiction is an error and stops the page."""
    try:
        return cached.schedule(kind, timesteps, beta_start, beta_end, zero_snr)
    except ValueError as error:
        st.error(plain(error))
        st.stop()


def pick_run(runs: list[AnyRun], *, last_first: bool = False) -> AnyRun:
    """One of the runs, by default the first, or with `last_first` the one that the visitor saw
    last on another page; `runs` must not be empty."""
    names = {run.name: run for run in runs}
    if last_first:
        start_from_last_run(keys.RUN, {name: name for name in names})
    name = Choice(key=keys.RUN, label="Run", options=list(names)).ask()
    st.session_state[keys.LAST_RUN] = name
    return names[name]


def start_from_last_run(key: str, options: Mapping[str, str]) -> None:
    """Where the visitor has come to the page just now, by no link with a value for the control
    `key`, let it start with the option that stands for the run seen last.

    The page's address has it, as it has a chosen one: a default would be missing there.
    """
    option = options.get(st.session_state.get(keys.LAST_RUN, ""))
    if option is not None and st.session_state[keys.ARRIVED] and key not in st.query_params:
        st.session_state[key] = option
        with suppress(StreamlitAPIException):  # it may still be that of the page before
            st.query_params[key] = option
