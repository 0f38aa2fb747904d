"""The Schedule page's curves, how its numbers are written, and the tables of all t as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish
from diffusion_core.process.tables import SCHEDULE_KINDS, ScheduleTables
from diffusion_core.process.weighting import density

if TYPE_CHECKING:
    from diffusion_core.sampling.waste import Errors

# Curves this smooth look the same with more points; the last one, where they jump, is among them.
MOST_POINTS = 1000
FLAT = 8  # times as high as another curve: that one takes an eighth of the figure's height


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


def curve_figure(
    schedules: Sequence[ScheduleTables], quantity: Quantity, *, logarithmic: bool = False
) -> go.Figure:
    """One quantity of each schedule over the timesteps.

    What is infinite, or zero on a logarithmic axis, is a gap.
    """
    figure = go.Figure()
    for schedule in schedules:
        count = min(schedule.timesteps, MOST_POINTS)
        steps = np.linspace(0, schedule.timesteps - 1, count).round().astype(int)
        figure.add_scatter(
            x=steps,
            y=_values(schedule, quantity, logarithmic)[steps],
            name=schedule.kind,
            mode="lines",
            line={"color": colour_of(schedule), "width": 2},
            hovertemplate="%{y:.4g}",
        )
    finish(figure, "timestep t", "", height=235, logarithmic=logarithmic)
    last = schedules[0].timesteps - 1
    figure.update_layout(
        showlegend=False,  # see `legend_figure`
        margin={"t": 8},
        hovermode="x unified",
        # A zoom belongs to one quantity and one T: with another T it would hide the new end.
        uirevision=f"{quantity.table} {last} {logarithmic}",
    )
    figure.update_yaxes(exponentformat="power")
    return figure.update_xaxes(range=[-0.02 * last, 1.02 * last])


def _values(schedule: ScheduleTables, quantity: Quantity, logarithmic: bool) -> np.ndarray:
    """float64 (T,), with NaN, which Plotly leaves out, for what cannot be plotted."""
    values = getattr(schedule, quantity.table).copy()
    values[~np.isfinite(values) | (logarithmic & (values <= 0))] = np.nan
    return values


def colour_of(schedule: ScheduleTables) -> str:
    """A kind keeps its colour, whatever others are shown."""
    return COLOURS[list(SCHEDULE_KINDS).index(schedule.kind)]


def legend_figure(schedules: Sequence[ScheduleTables]) -> go.Figure:
    """The names of the schedules with their colours and nothing else."""
    figure = go.Figure()
    for schedule in schedules:
        line = {"color": colour_of(schedule), "width": 2}
        figure.add_scatter(x=[None], y=[None], name=schedule.kind, mode="lines", line=line)
    finish(figure, "", "", height=28)
    figure.update_layout(
        showlegend=True,
        legend={"y": 0.5, "yanchor": "middle", "itemclick": False, "itemdoubleclick": False},
        margin={"t": 0, "b": 0},
        dragmode=False,
    )
    figure.update_xaxes(visible=False)
    return figure.update_yaxes(visible=False)


def flattening(schedules: Sequence[ScheduleTables], quantity: Quantity) -> list[str]:
    """The kinds beside whose curve another one would lie flat on the axis."""
    highest = {s.kind: np.nanmax(_values(s, quantity, False)) for s in schedules}
    lowest = min(highest.values())
    return [kind for kind, value in highest.items() if value > FLAT * lowest]


def density_figure(schedules: Sequence[ScheduleTables], weighting: str) -> go.Figure:
    """The share of the training over the log-SNR; see `weighting.density`."""
    figure = go.Figure()
    for schedule in schedules:
        log_snr, share = density(schedule, weighting)
        thin = slice(None, None, max(1, len(share) // MOST_POINTS))
        figure.add_scatter(
            x=log_snr[thin],
            y=share[thin],
            name=schedule.kind,
            mode="lines",
            line={"color": colour_of(schedule), "width": 2},
            hovertemplate="log-SNR %{x:.2f}<br>%{y:.3g}",
        )
    finish(figure, "log-SNR", "share per unit", height=300)
    figure.update_layout(showlegend=False, uirevision=weighting)
    return figure.update_xaxes(range=[15, -15])  # as the time goes: first little noise


def errors_figure(errors: Errors) -> go.Figure:
    """The root mean square errors of x_0 over t, of a network and without one."""
    figure = go.Figure()
    for name, values, colour, dash in (
        ("network", errors.network, COLOURS[0], "solid"),
        ("mean image", errors.mean_image, COLOURS[1], "dash"),
        ("ε = xₜ", errors.noise, COLOURS[2], "dot"),
        ("ε = 0", errors.copy, COLOURS[3], "dashdot"),
    ):
        figure.add_scatter(
            x=errors.t,
            y=np.sqrt(values),
            name=name,
            mode="lines",
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="%{y:.3g}",
        )
    highest = 1.3 * float(np.sqrt(max(errors.mean_image.max(), errors.network.max())))
    finish(figure, "timestep t", "", height=300)
    return figure.update_yaxes(range=[0, highest])  # what divides by the signal goes beyond


def known_figure(errors: Errors) -> go.Figure:
    """The share of the variance around the mean image that is predicted, over t; what is hardly
    better than without a network is marked."""
    figure = go.Figure()
    for name, values, colour, dash in (
        ("network", errors.network, COLOURS[0], "solid"),
        ("without a network", errors.trivial, COLOURS[1], "dash"),
    ):
        figure.add_scatter(
            x=errors.t,
            y=1 - values / errors.mean_image,
            name=name,
            mode="lines",
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="%{y:.1%}",
        )
    figure.add_scatter(
        x=errors.t[errors.wasted],
        y=1 - errors.network[errors.wasted] / errors.mean_image[errors.wasted],
        name="hardly better",
        mode="markers",
        marker={"color": GREY, "size": 9, "symbol": "x"},
        hoverinfo="skip",
    )
    finish(figure, "timestep t", "", height=300)
    return figure.update_yaxes(range=[-0.05, 1.05], tickformat=".0%")


def number(value: float) -> str:
    """Four decimals as in the lecture, five digits where they would show little, ∞ and −∞."""
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = f"{value:.4e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
    return digits.replace("-", "−")  # a hyphen would be broken at the end of a narrow column


def summary(schedule: ScheduleTables) -> str:
    """One sentence: from where on the noise dominates, and what is left of the image at the end."""
    mostly_noise = np.flatnonzero(schedule.log_snr < 0)
    takes_over = (
        f"noise dominates from t = {mostly_noise[0]:,} on"
        if len(mostly_noise)
        else "the image dominates to the end"
    )
    left = float(schedule.sqrt_alphas_cumprod[-1])
    at_the_end = "none" if left == 0 else number(left)
    return f"**{schedule.kind}**: {takes_over}; signal remaining at the last step: {at_the_end}."


def to_csv(schedules: Sequence[ScheduleTables]) -> str:
    """All tables at every t, one row a schedule and timestep; infinities as `inf` and `-inf`."""
    import pandas as pd  # takes 160 MB: not before it is used

    names = [*ScheduleTables.TABLES, "log_snr"]
    frames = [
        pd.DataFrame(
            {"kind": schedule.kind, "t": np.arange(schedule.timesteps)}
            | {name: getattr(schedule, name) for name in names}
        )
        for schedule in schedules
    ]
    return pd.concat(frames).to_csv(index=False)
