"""What every figure of the app has in common: colours that follow the theme, margins, tools.

The figures themselves are beside this file, one file per page.
"""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go

from dashboard.components.chart.chart import show_live
from dashboard.ui.outside import MOST_CHARACTERS, readable

# Streamlit's browser side puts the theme's own colours in the place of these, light or dark:
# the chartCategoricalColors, chartSequentialColors and chartDivergingColors of config.toml.
COLOURS = tuple(f"#0000{k:02d}" for k in range(1, 9))
# Of curves in these colours, where more than two meet: colour alone does not tell everybody enough.
DASHES = (
    *("solid", "dash", "dashdot", "longdash", "longdashdot"),
    *("2px,3px", "12px,3px,3px,3px,3px,3px", "6px,2px"),
)
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star")
SEQUENTIAL = [[k / 9, f"#0000{k + 11}"] for k in range(10)]  # a Plotly colour scale, low to high
DIVERGING = [[k / 9, f"#0000{k + 21}"] for k in range(10)]
GREY = "#000036"


def label(text: str) -> str:
    """A text from outside for a figure, in which Plotly takes HTML, LaTeX and `%{…}` for more."""
    text = readable(text)
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}…"
    return text.translate({ord(each): f"&#{ord(each)};" for each in "&<>$%{}"})


def finish(
    figure: go.Figure, x: str, y: str, *, height: int = 360, logarithmic: bool = False
) -> go.Figure:
    """Axis titles, tight margins, the legend above, curves that can be told apart; zoom and hidden
    curves outlive new data."""
    _tell_apart([curve for curve in figure.data if curve.type == "scatter"])
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        uirevision=y,
    )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y, type="log" if logarithmic else "linear")
    return figure


def _tell_apart(curves: list[go.Scatter]) -> None:
    coloured = [curve for curve in curves if curve.line.color in COLOURS]
    if len({curve.line.color for curve in coloured}) > 2:
        for curve in coloured:
            number = COLOURS.index(curve.line.color)
            curve.line.dash = curve.line.dash or DASHES[number]
            curve.marker.symbol = curve.marker.symbol or SYMBOLS[number]


def show(
    figure: go.Figure, key: str, alt: str, on_click: Callable[[str], None] | None = None
) -> None:
    """Show a figure in the theme's colours; `alt` describes it for screen readers. `on_click`: see
    `show_packed`."""
    show_live(figure, key, alt, on_click=on_click)
