"""The controls that several pages share, each kept in the page's address."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.components.timestep.timestep import show_timestep
from dashboard.services.settings import get_settings
from dashboard.ui import keys
from dashboard.ui.controls import Choice, Control, Number, Toggle
from dashboard.ui.outside import plain
from diffusion_core.process.tables import (
    DESIGNED,
    SCHEDULE_KINDS,
    USUAL_POINTS,
    Points,
    ScheduleTables,
    check_points,
)
from diffusion_core.runs.designs import DESIGNS, Design
from diffusion_core.text import shown

if TYPE_CHECKING:
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

SHIFT = Choice(
    key="shift",
    label="Shift for image size (px)",
    options=(0, 32, 64, 128, 256, 512),
    titles={0: "none"},
    default=0,
    help="Add 2 log(64 / size) to the log-SNR: larger images need more noise before their large "
    "forms disappear (Hoogeboom et al. 2023).",
)


@dataclass(frozen=True, kw_only=True)
class PointsText(Control):
    """Points of a designed schedule, as times with the log-SNR there: 0:10,0.5:0,1:-7."""

    def of_text(self, text: str) -> Any:
        try:
            pairs = [point.split(":") for point in text[:LONGEST_POINTS].split(",")]
            return tuple((float(time), float(log_snr)) for time, log_snr in pairs)
        except ValueError:
            return text

    def to_link(self, value: Points) -> list[str]:
        return [",".join(f"{time:.4g}:{log_snr:.4g}" for time, log_snr in value)]

    def problem(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self.label} are {shown(value)}; they must be pairs such as 0:10,0.5:0,1:-7."
        try:
            check_points(value)
        except ValueError as error:
            return f"{self.label}: {error}"
        return ""


LONGEST_POINTS = 400  # characters
POINTS = PointsText(key="points", label="Points of your own schedule")

AnyRun = TypeVar("AnyRun", "Run", "RunSnapshot")


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


def pick_more(*, takes_betas: bool) -> dict[str, Any]:
    """The ends of β, whether the schedule ends in pure noise, and the shift, as arguments of
    `ScheduleTables`."""
    first, last = (control.ask(disabled=not takes_betas) for control in BETAS)
    return {
        "beta_start": first,
        "beta_end": last,
        "rescale_zero_terminal_snr": ZERO_SNR.ask(),
        "shift_size": SHIFT.ask(),
    }


def make_tables(kind: str, timesteps: int, more: Mapping[str, Any]) -> ScheduleTables:
    """As `tables_of`; a contradiction is an error and stops the page."""
    try:
        return tables_of(kind, timesteps, more)
    except ValueError as error:
        st.error(plain(error))
        st.stop()


def tables_of(kind: str, timesteps: int, more: Mapping[str, Any]) -> ScheduleTables:
    """The schedule of these settings, which must not be changed; one of the kind "designed" goes
    through the points of the link. Raises ValueError for a contradiction."""
    points = points_of_link() if kind == DESIGNED else ()
    return _tables(kind=kind, timesteps=timesteps, points=points, **more)


_tables = lru_cache(maxsize=64)(ScheduleTables)


def offer_designs() -> None:
    """The saved schedules, each to be put into the page's address."""
    designs, _ = DESIGNS.read(get_settings().runs_dir)
    if designs:
        with st.popover("Saved schedules", icon=":material/bookmarks:", width="stretch"):
            for design in designs.values():
                show_design_button(design)


def show_design_button(design: Design) -> None:
    """It puts the points of a saved schedule into the page's address."""
    st.button(
        plain(design.name),
        key=f"open-{design.name}",
        help=f"Saved by {plain(design.by)}." if design.by else None,
        on_click=put_points,
        args=(design.points,),
        width="stretch",
    )


def put_points(points: Points) -> None:
    """Into the page's address; what is no schedule changes nothing."""
    if not POINTS.problem(points):
        [st.query_params[POINTS.key]] = POINTS.to_link(points)


def points_of_link() -> Points:
    """The points of the designed schedule that the page's address has; else the usual ones."""
    POINTS.check_link()
    given = st.query_params.get(POINTS.key, "")
    return POINTS.of_text(given) if given else USUAL_POINTS


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
