"""Is it enough? A sentence on the quality that a run will have at its end, and what it is worth."""

from __future__ import annotations

import streamlit as st

from dashboard.services.settings import get_settings
from dashboard.services.shared_look import metrics_stamp, once, runs_of
from diffusion_core.evaluation.forecast import (
    FEWEST,
    Forecast,
    Record,
    evaluated,
    forecast_of,
    record_of,
)
from diffusion_core.evaluation.metrics import Metric
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import RunState

MOST_EARLIER = 50  # finished runs, the newest, by which forecasts are judged


def show_forecast(run: RunSnapshot, metric: Metric) -> None:
    """Nothing for a run that is at its end."""
    if run.config is None or run.status.step >= run.config.steps:
        return
    part = run.status.step / run.config.steps
    stamp = metrics_stamp(run.run), run.status.step, run.config.steps
    made = once(("forecast", run.path, stamp), lambda: forecast_of(run))
    if made is None:
        count = once(("evaluated", run.path, stamp), lambda: evaluated(run))
        st.caption(f"**Is it enough?** Too few evaluations for a forecast: {count} of {FEWEST}.")
        return
    tenth = max(round(part, 1), 0.1)  # so that it is not computed anew at each look
    seen = [each for each in runs_of(get_settings()) if each.state == RunState.FINISHED]
    earlier = seen[:MOST_EARLIER]
    stamps = tuple((each.path, metrics_stamp(each.run)) for each in earlier)
    record = once(("forecasts", tenth, stamps), lambda: record_of(earlier, tenth))
    st.markdown(forecast_sentence(made, metric, record, tenth))


def forecast_sentence(made: Forecast, metric: Metric, record: Record, part: float) -> str:
    ends = f"{metric.format(made.low)} to {metric.format(made.high)}"
    said = (
        f"**Is it enough?** Forecast of {metric.title} at step {made.step:,}: "
        f"{metric.format(made.value)} (95 %: {ends})."
    )
    if not record.runs:
        return f"{said} No finished run can tell yet how good such forecasts are."
    runs = "1 finished run" if record.runs == 1 else f"{record.runs:,} finished runs"
    return (
        f"{said} Of {runs}, such a forecast at {100 * part:.0f} % of the steps held the result for "
        f"{record.inside:,}; the median error was {100 * record.error:.0f} %."
    )
