"""Schedule: the curves of one or several noise schedules, and their coefficients at one t."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.figures import schedule as schedule_figures
from dashboard.figures.theme import show
from dashboard.ui import pickers
from dashboard.ui.navigation import entry
from diffusion_core.process.schedule import SCHEDULE_KINDS, NoiseSchedule


def show_links(schedules: list[NoiseSchedule], t: int) -> None:
    """To the Noising page with the same schedule and t."""
    page = entry("noising.py")
    for schedule in schedules:
        settings = {
            "kind": schedule.kind,
            "T": str(schedule.timesteps),
            "beta_start": str(schedule.beta_start),
            "beta_end": str(schedule.beta_end),
            "zero_snr": str(schedule.rescale_zero_terminal_snr).lower(),
            "t": str(t),
        }
        label = f"Noise an image: {schedule.kind}, t = {t:,}"
        st.page_link(page.path, label=label, icon=page.icon, query_params=settings)


st.title("Schedule")
st.markdown(
    r"""
An image $x_0$ is turned into noise in $T$ small steps. Step $t$ shrinks what is there a little and
adds a little noise; the schedule $\beta_0 \dots \beta_{T-1}$ says how much. Because everything is
Gaussian, all steps up to $t$ can be taken at once:
"""
)
st.latex(r"x_t = \sqrt{\bar\alpha_t}\;x_0 + \sqrt{1-\bar\alpha_t}\;\epsilon,\qquad"
         r"\epsilon \sim \mathcal N(0, I)")  # fmt: skip
with st.container(horizontal=True, vertical_alignment="bottom"):
    kinds = st.pills(
        "Schedules",
        list(SCHEDULE_KINDS),
        selection_mode="multi",
        default=list(SCHEDULE_KINDS)[:1],
        help="The lecture's is linear. Choose several to lay them over each other.",
        key="kinds",
        bind="query-params",
    )
    with st.container(width=160):
        timesteps = pickers.pick_timesteps()
    with st.popover("More", icon=":material/tune:"):
        takes_betas = not kinds or any(SCHEDULE_KINDS[kind].takes_betas for kind in kinds)
        beta_start, beta_end = pickers.pick_betas(disabled=not takes_betas)
        zero_snr = pickers.pick_zero_snr()
        logarithmic = st.toggle(
            "Logarithmic variances",
            help="For β and the posterior variance, which differ a lot between schedules.",
            key="log",
            bind="query-params",
        )
if not kinds:
    st.info("Choose at least one schedule.")
    st.stop()
schedules = [
    pickers.make_schedule(kind, timesteps, beta_start, beta_end, zero_snr)
    for kind in SCHEDULE_KINDS
    if kind in kinds
]
t = pickers.pick_timestep(timesteps, default=150)

curves = list(schedule_figures.QUANTITIES)
for row in (curves[:3], curves[3:]):
    for column, quantity in zip(st.columns(3), row, strict=True):
        with column:
            st.markdown(f"**{quantity.title}** `{quantity.table}`")
            is_variance = quantity.table in ("betas", "posterior_variance")
            figure = schedule_figures.curve_figure(
                schedules, quantity, t, logarithmic=logarithmic and is_variance
            )
            names = " and ".join(schedule.kind for schedule in schedules)
            show(figure, quantity.table, f"{quantity.title} over the timesteps: {names}.")
            st.caption(quantity.meaning)

st.header(f"At t = {t:,}")
st.table(schedule_figures.table_at(schedules, t), border="horizontal", width="content")
st.caption(
    "The names are the lecture's and those of the file below. They count from t = 0, the first "
    r"noisy step, so that $\bar\alpha_{t-1}$ is 1 there and the posterior variance 0."
)
st.markdown("\n".join(f"- {schedule_figures.summary(schedule)}" for schedule in schedules))
st.download_button(
    "Download all tables as CSV",
    partial(schedule_figures.to_csv, schedules),
    file_name=f"schedule-{'-'.join(schedule.kind for schedule in schedules)}-T{timesteps}.csv",
    mime="text/csv",
    on_click="ignore",
    icon=":material/download:",
)
show_links(schedules, t)
