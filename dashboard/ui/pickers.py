"""The controls that several pages have in common, each kept in the page's URL.

A control's key is its name in the URL; what equals its default is left out there.
"""

from __future__ import annotations

from typing import TypeVar

import streamlit as st

from dashboard.services import cached
from diffusion_core.process.schedule import SCHEDULE_KINDS, NoiseSchedule
from diffusion_core.runs.run import Run, RunSnapshot

MAX_TIMESTEPS = 4000

AnyRun = TypeVar("AnyRun", Run, RunSnapshot)


def pick_schedule() -> NoiseSchedule:
    """Kind, T, the ends of β and the rescaling; where they contradict, says so and stops."""
    kind = st.selectbox(
        "Schedule",
        list(SCHEDULE_KINDS),
        help="The lecture's is linear.",
        required=True,
        key="kind",
        bind="query-params",
    )
    timesteps = pick_timesteps()
    with st.popover("More", icon=":material/tune:", width="stretch"):
        beta_start, beta_end = pick_betas(disabled=not SCHEDULE_KINDS[kind].takes_betas)
        zero_snr = pick_zero_snr()
    return make_schedule(kind, timesteps, beta_start, beta_end, zero_snr)


def pick_timesteps() -> int:
    return st.number_input(
        "Steps T",
        min_value=2,
        max_value=MAX_TIMESTEPS,
        value=300,
        step=50,
        help="The lecture has 300, most papers 1,000.",
        key="T",
        bind="query-params",
    )


def pick_timestep(timesteps: int, default: int) -> int:
    """A slider over t = 0 ... timesteps - 1; a t beyond a T that shrank becomes the last one."""
    last = timesteps - 1
    start: int | None = min(default, last)
    # A default that was never moved is in the state and not in the address; a link's is only there.
    asked = str(st.session_state.get("t", st.query_params.get("t", "")))
    if asked.isdecimal() and int(asked) > last:
        # Streamlit would go back to the default; and it warns of a value beside a default.
        st.session_state["t"] = last
        start = None
    return st.slider("Timestep t", 0, last, start, key="t", bind="query-params")


def pick_betas(disabled: bool = False) -> tuple[float, float]:
    """The first and the last β."""
    ends = []
    for label, default, step, key in (
        ("First β", 1e-4, 1e-4, "beta_start"),
        ("Last β", 0.02, 1e-3, "beta_end"),
    ):
        end = st.number_input(
            label,
            min_value=1e-6,
            max_value=0.999,
            value=default,
            step=step,
            format="%.5f",
            disabled=disabled,
            key=key,
            bind="query-params",
        )
        ends.append(end)
    return ends[0], ends[1]


def pick_zero_snr() -> bool:
    return st.toggle(
        "End in pure noise",
        help="Rescale the schedule so that nothing of the image is left at the last step "
        "(zero terminal SNR, Lin et al. 2024).",
        key="zero_snr",
        bind="query-params",
    )


def make_schedule(
    kind: str, timesteps: int, beta_start: float, beta_end: float, zero_snr: bool
) -> NoiseSchedule:
    """The schedule of these settings; where they contradict, says so and stops the page."""
    try:
        return cached.schedule(kind, timesteps, beta_start, beta_end, zero_snr)
    except ValueError as error:
        st.error(str(error))
        st.stop()


def pick_run(runs: list[AnyRun], label: str = "Run") -> AnyRun:
    """One of the runs, by default the first; `runs` must not be empty."""
    names = {run.name: run for run in runs}
    return names[st.selectbox(label, list(names), required=True, key="run", bind="query-params")]
