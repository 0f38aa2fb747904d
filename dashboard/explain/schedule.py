"""The Schedule page's controls, curves, table and links."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import streamlit as st

from dashboard.components.chart.chart import Packed, pack, show_live, show_packed
from dashboard.components.coefficients import coefficients
from dashboard.explain.schedule_design import show_design
from dashboard.explain.schedule_training import show_training
from dashboard.figures import schedule as figures
from dashboard.ui import pickers
from dashboard.ui.controls import Choice, MultiChoice, Toggle
from dashboard.ui.navigation import entry
from diffusion_core.process.tables import SCHEDULE_KINDS, ScheduleTables

KINDS = MultiChoice(
    key="kinds",
    label="Schedules",
    one=pickers.KIND,
    options=list(SCHEDULE_KINDS),
    default=("linear",),
    most=len(SCHEDULE_KINDS),
    pills=True,
    help="The lecture uses linear. Select several to compare them.",
)
VIEWS = ("Curves", "Design", "Training")
VIEW = Choice(key="view", label="View", options=VIEWS, default=VIEWS[0], segmented=True)
LOGARITHMIC = Toggle(
    key="log",
    label="Logarithmic variances",
    help="For β and the posterior variance, which differ a lot between schedules.",
)


class ScheduleView(NamedTuple):
    """What the page shows: schedules of one T, and the timestep to look at."""

    schedules: tuple[ScheduleTables, ...]
    t: int


def pick_schedules() -> ScheduleView:
    """The page's controls; without a schedule, or with contradicting settings, the page stops."""
    # As high as the fields beside them, so that the row is one line.
    st.html("<style>.st-key-kinds [role=toolbar] button { min-height: 2.5rem; }</style>")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kinds = KINDS.ask()
        with st.container(width=160):
            timesteps = pickers.TIMESTEPS.ask()
        with st.popover("More", icon=":material/tune:"):
            takes_betas = not kinds or any(SCHEDULE_KINDS[kind].takes_betas for kind in kinds)
            more = pickers.pick_more(takes_betas=takes_betas)
    if not kinds:
        st.info("Select at least one schedule.")
        st.stop()
    schedules = tuple(
        pickers.make_tables(kind, timesteps, more) for kind in SCHEDULE_KINDS if kind in kinds
    )
    t = pickers.pick_timestep(timesteps, default=150)
    return ScheduleView(schedules, t)


def show_view(view: ScheduleView) -> None:
    """The view that is chosen."""
    match VIEW.ask():
        case "Design":
            show_design(view.schedules, view.schedules[0].timesteps)
        case "Training":
            show_training(view.schedules)
        case _:
            show_curves(view)
            st.header("Coefficients")
            show_coefficients(view)
            show_noising_links(view)


def show_curves(view: ScheduleView) -> None:
    """Every quantity over the timesteps, three in a row."""
    legend, variances = st.columns([3, 1], vertical_alignment="center")
    with variances:
        is_logarithmic = LOGARITHMIC.ask()
    if len(view.schedules) > 1:
        with legend:
            show_live(
                figures.legend_figure(view.schedules), "legend", f"Colours of {_names(view)}."
            )
    curves = figures.QUANTITIES
    high = {kind for q in curves if q.is_variance for kind in figures.flattening(view.schedules, q)}
    if high and not is_logarithmic:
        st.caption(
            f":material/info: The variances of {' and '.join(sorted(high))} are so high that the "
            "other curves look flat. Turn on *Logarithmic variances* to see all of them."
        )
    for row in (curves[:3], curves[3:]):
        for column, quantity in zip(st.columns(3), row, strict=True):
            with column:
                st.markdown(f"**{quantity.title}** `{quantity.table}`")
                logarithmic = is_logarithmic and quantity.is_variance
                show_packed(
                    _curves(view.schedules, quantity, logarithmic),
                    quantity.table,
                    f"{quantity.title} over the timesteps: {_names(view)}.",
                    cursor="x",
                )
                st.caption(quantity.meaning)


def _names(view: ScheduleView) -> str:
    return " and ".join(schedule.kind for schedule in view.schedules)


@lru_cache(maxsize=64)
def _curves(
    schedules: tuple[ScheduleTables, ...], quantity: figures.Quantity, logarithmic: bool
) -> Packed:
    """Made once for all t: each key pressed at the slider shows another."""
    return pack(figures.curve_figure(schedules, quantity, logarithmic=logarithmic))


def show_coefficients(view: ScheduleView) -> None:
    """All coefficients at t, what each schedule leaves of the image, and everything as CSV."""
    coefficients.show_coefficients(view.schedules, "coefficients")
    st.caption(
        r"Names match the lecture and the CSV. Timesteps count from t = 0, the first noisy step, "
        r"where $\bar\alpha_{t-1}$ is 1 and the posterior variance is 0."
    )
    st.markdown("\n".join(f"- {figures.summary(schedule)}" for schedule in view.schedules))
    names = "-".join(schedule.kind for schedule in view.schedules)
    st.download_button(
        "Download all tables as CSV",
        partial(figures.to_csv, view.schedules),
        file_name=f"schedule-{names}-T{view.schedules[0].timesteps}.csv",
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
    )


def show_noising_links(view: ScheduleView) -> None:
    """To the Noising page with the same schedule and t."""
    page = entry("noising.py")
    for schedule in view.schedules:
        settings = {
            "kind": schedule.kind,
            "T": str(schedule.timesteps),
            "beta_start": str(schedule.beta_start),
            "beta_end": str(schedule.beta_end),
            "zero_snr": str(schedule.rescale_zero_terminal_snr).lower(),
            "shift": pickers.SHIFT.title_of(schedule.shift_size),
            "t": str(view.t),
        }
        if schedule.points:
            [settings["points"]] = pickers.POINTS.to_link(schedule.points)
        label = f"Noise an image: {schedule.kind}, t = {view.t:,}"
        st.page_link(page.path, label=label, icon=page.icon, query_params=settings)
