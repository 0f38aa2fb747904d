"""The Sampling page's figures: what changes from step to step, and where an image is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import COLOURS, GREY, finish
from diffusion_core.sampling.branching import Parting
from diffusion_core.sampling.trajectory import Trajectory


def change_figure(walk: Trajectory) -> go.Figure:
    """How much x_t and the predicted x_0 change in each step, from the noise on."""
    figure = go.Figure()
    for k, (name, values) in enumerate(
        [("x<sub>t</sub>", walk.change_x_t), ("predicted x<sub>0</sub>", walk.change_x_0)]
    ):
        known = np.isfinite(values).all(axis=1)
        _mean_and_range(figure, walk.timesteps[known], values[known], name, k)
    _finish_falling(figure, "timestep t", "change in a step", logarithmic=True)
    return figure.update_yaxes(dtick=1, tickformat="~g")  # whole powers of ten


def noise_figure(walk: Trajectory) -> go.Figure:
    """The size of the predicted noise in each step, beside the 1 that N(0, 1) has."""
    figure = go.Figure()
    _mean_and_range(figure, walk.timesteps, walk.epsilon, "predicted ε", 0)
    return _finish_falling(figure, "timestep t", "root mean square of ε", one="N(0, 1)")


def decided_figure(found: Sequence[Parting]) -> go.Figure:
    """The variance left, as a share of that with nothing shared, against where branches part."""
    alone, *others = found
    share = [one.variance / alone.variance for one in others]
    figure = go.Figure()
    figure.add_scatter(
        x=[one.timestep for one in others],
        y=share,
        mode="lines+markers",
        line={"color": COLOURS[0], "width": 2.5},
        marker={"size": 8},
        hovertemplate="the same down to t = %{x:.4g}<br>%{y:.1%} of the variance left"
        "<extra></extra>",
        showlegend=False,
    )
    title = "timestep t at which the branches part"
    _finish_falling(figure, title, "variance left", one="nothing shared")
    return figure.update_yaxes(tickformat=".0%", range=[0, 1.1 * max(1.0, *share)])


def _finish_falling(
    figure: go.Figure, x: str, y: str, *, one: str = "", logarithmic: bool = False
) -> go.Figure:
    """Time goes to the right as it is sampled, from the noise down to the image; `one` labels a
    line at 1.
    """
    if one:
        figure.add_hline(
            1.0,
            line={"color": GREY, "width": 1.5, "dash": "dash"},
            annotation_text=one,
            annotation_position="top right",
        )
    finish(figure, x, y, height=300, logarithmic=logarithmic)
    return figure.update_xaxes(autorange="reversed")


def _mean_and_range(
    figure: go.Figure, x: np.ndarray, values: np.ndarray, name: str, colour: int
) -> None:
    """The mean over the images as a line, the least and the most dotted; values (S, n)."""
    line = {"color": COLOURS[colour]}
    if values.shape[1] > 1:
        for edge, values_there in (("least", values.min(axis=1)), ("most", values.max(axis=1))):
            figure.add_scatter(
                x=x,
                y=values_there,
                name=f"{name}, {edge}",
                mode="lines",
                line={**line, "width": 1, "dash": "dot"},
                opacity=0.6,
                hoverinfo="none",
                showlegend=False,
            )
    figure.add_scatter(
        x=x,
        y=values.mean(axis=1),
        name=name,
        mode="lines+markers" if len(x) <= 30 else "lines",
        line={**line, "width": 2.5},
        hovertemplate=f"{name} at t = %{{x:.4g}}: %{{y:.4f}}<extra></extra>",
    )


def spacings_figure(rows: Mapping[str, Sequence[float]], last: int) -> go.Figure:
    """The timesteps of each spacing as a row of dots, of which the first row stands out; `last`:
    the schedule's last timestep."""
    figure = go.Figure()
    for k, (name, timesteps) in enumerate(rows.items()):
        figure.add_scatter(
            x=list(timesteps),
            y=[name] * len(timesteps),
            mode="markers",
            marker={"size": 9 if k == 0 else 6, "color": COLOURS[0] if k == 0 else GREY},
            hovertemplate="%{y}: t = %{x:.4g}<extra></extra>",
            showlegend=False,
        )
    finish(figure, "timestep t", "", height=70 + 24 * len(rows))
    figure.update_yaxes(type="category", autorange="reversed", title=None)
    return figure.update_xaxes(range=[1.03 * last, -0.03 * last], nticks=5)
