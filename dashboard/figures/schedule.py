"""The Schedule page's curves, its table at one t, and the tables of all t as CSV."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish
from diffusion_core.process.schedule import SCHEDULE_KINDS, NoiseSchedule
from diffusion_core.sampling.trajectory import spread

if TYPE_CHECKING:
    import pandas as pd

# Curves this smooth look the same with more points; the last one, where they jump, is among them.
MOST_POINTS = 1000


@dataclass(frozen=True)
class Quantity:
    """One curve of the page: `table` is the schedule's attribute, `meaning` is Markdown."""

    table: str
    title: str
    meaning: str
    is_variance: bool = False  # differs by orders of magnitude: a logarithmic axis helps


QUANTITIES = (
    Quantity(
        "betas",
        "β",
        "The variance of the noise that step $t$ adds: "
        r"$x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,\epsilon$.",
        is_variance=True,
    ),
    Quantity(
        "alphas_cumprod",
        "ᾱ",
        "The share of the variance of $x_t$ that comes from the image: "
        r"$\bar\alpha_t = \prod_{s\le t} \alpha_s$ with $\alpha_s = 1-\beta_s$.",
    ),
    Quantity(
        "posterior_variance",
        "posterior variance",
        "The variance of one exact step back, from $x_t$ to $x_{t-1}$, if $x_0$ were known: "
        r"$\tilde\beta_t = \beta_t\,(1-\bar\alpha_{t-1})\,/\,(1-\bar\alpha_t)$.",
        is_variance=True,
    ),
    Quantity(
        "sqrt_alphas_cumprod",
        "√ᾱ",
        r"The weight of the image in $x_t$: $\sqrt{\bar\alpha_t}$, from almost 1 down.",
    ),
    Quantity(
        "sqrt_one_minus_alphas_cumprod",
        "√(1−ᾱ)",
        r"The weight of the noise in $x_t$: $\sqrt{1-\bar\alpha_t}$, from almost 0 up.",
    ),
    Quantity(
        "log_snr",
        "log-SNR",
        r"Signal-to-noise ratio, $\log\,\bar\alpha_t\,/\,(1-\bar\alpha_t)$: "
        "above 0 the image dominates, below 0 the noise.",
    ),
)
SYMBOLS = {
    "betas": r"\beta_t",
    "alphas": r"\alpha_t",
    "alphas_cumprod": r"\bar\alpha_t",
    "alphas_cumprod_prev": r"\bar\alpha_{t-1}",
    "sqrt_recip_alphas": r"\sqrt{1/\alpha_t}",
    "sqrt_alphas_cumprod": r"\sqrt{\bar\alpha_t}",
    "sqrt_one_minus_alphas_cumprod": r"\sqrt{1-\bar\alpha_t}",
    "posterior_variance": r"\tilde\beta_t",
    "log_snr": r"\log\mathrm{SNR}",
}


def curve_figure(
    schedules: list[NoiseSchedule], quantity: Quantity, t: int, *, logarithmic: bool = False
) -> go.Figure:
    """One quantity of each schedule over the timesteps, a line and a dot on each curve at `t`.

    What is infinite, or zero on a logarithmic axis, is a gap. A kind keeps its colour.
    """
    figure = go.Figure()
    for schedule in schedules:
        steps = spread(schedule.timesteps, MOST_POINTS)
        values = getattr(schedule, quantity.table).numpy().astype(np.float64)
        # Plotly leaves out NaN.
        values[~np.isfinite(values) | (logarithmic & (values <= 0))] = np.nan
        colour = COLOURS[list(SCHEDULE_KINDS).index(schedule.kind)]
        figure.add_scatter(
            x=steps,
            y=values[steps],
            name=schedule.kind,
            mode="lines",
            line={"color": colour, "width": 2},
            hovertemplate="%{y:.4g}",
        )
        figure.add_scatter(
            x=[t],
            y=[values[t]],
            mode="markers",
            marker={"color": colour, "size": 8},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.add_vline(x=t, line={"color": GREY, "width": 1, "dash": "dot"})
    finish(figure, "timestep t", "", height=250, logarithmic=logarithmic)
    last = schedules[0].timesteps - 1
    figure.update_layout(
        showlegend=len(schedules) > 1,
        legend={"font": {"size": 11}},  # two names in a row
        hovermode="x unified",
        # A zoom belongs to one quantity and one T: with another T it would hide the new end.
        uirevision=f"{quantity.table} {last} {logarithmic}",
    )
    figure.update_yaxes(exponentformat="power")
    return figure.update_xaxes(range=[-0.02 * last, 1.02 * last])


def table_at(schedules: list[NoiseSchedule], t: int) -> pd.DataFrame:
    """The lecture's eight coefficients and the log-SNR at `t`, as text: one column per schedule."""
    import pandas as pd  # takes 160 MB: not before it is used

    names = [*NoiseSchedule.TABLES, "log_snr"]
    columns = {
        schedule.kind: [number(float(getattr(schedule, name)[t])) for name in names]
        for schedule in schedules
    }
    index = pd.Index([f"`{name}`" for name in names], name="name")
    symbols = {"symbol": [f"${SYMBOLS[name]}$" for name in names]}
    return pd.DataFrame(symbols | columns, index=index)


def number(value: float) -> str:
    """Four decimals as in the lecture, five digits where they would show little, ∞ and −∞."""
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = f"{value:.4e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
    return digits.replace("-", "−")  # a hyphen would be broken at the end of a narrow column


def summary(schedule: NoiseSchedule) -> str:
    """One sentence: from where on the noise dominates, and what is left of the image at the end."""
    mostly_noise = np.flatnonzero(schedule.log_snr.numpy() < 0)
    takes_over = (
        f"noise dominates from t = {mostly_noise[0]:,} on"
        if len(mostly_noise)
        else "the image dominates to the end"
    )
    left = float(schedule.sqrt_alphas_cumprod[-1])
    at_the_end = "none" if left == 0 else number(left)
    return f"**{schedule.kind}**: {takes_over}; signal remaining at the last step: {at_the_end}."


def to_csv(schedules: list[NoiseSchedule]) -> str:
    """All tables at every t, one row a schedule and timestep; infinities as `inf` and `-inf`."""
    import pandas as pd  # takes 160 MB: not before it is used

    names = [*NoiseSchedule.TABLES, "log_snr"]
    frames = [
        pd.DataFrame(
            {"kind": schedule.kind, "t": np.arange(schedule.timesteps)}
            | {name: getattr(schedule, name).numpy() for name in names}
        )
        for schedule in schedules
    ]
    return pd.concat(frames).to_csv(index=False)
