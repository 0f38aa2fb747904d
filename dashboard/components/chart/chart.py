"""Plotly figures that change while somebody looks at them.

`st.plotly_chart` rebuilds its chart whenever a number in it changes and loses the zoom and the
hidden curves. This component updates the same plot, with the same library, which the browser loads
from this server once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plotly
import plotly.graph_objects as go

from dashboard.components.assemble import component, folder_address
from dashboard.figures.theme import CONFIG

HTML = '<div><div class="chart"></div></div>'
LIBRARY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


class Packed(NamedTuple):
    """A figure that does not change any more."""

    json: str
    height: int


def show_live(figure: go.Figure, key: str, alt: str, least_width: int = 0) -> None:
    """Draw a figure of `figures.finish` in the theme's colours; `alt` says what it shows.

    What `uirevision` keeps stays over updates of the same `key`. `least_width`: in pixels; where
    there is less room the figure scrolls sideways.
    """
    show_packed(pack(figure), key, alt, least_width=least_width)


def pack(figure: go.Figure) -> Packed:
    """A figure of `figures.finish` as the browser gets it, once for all who see it."""
    figure.update_layout(template="none")
    return Packed(figure.to_json(), figure.layout.height)


def show_packed(
    chart: Packed,
    key: str,
    alt: str,
    marks: Sequence[dict[str, Any]] = (),
    least_width: int = 0,
) -> None:
    """As `show_live`. `marks`: Plotly shapes over the figure; where only they change the browser
    does not draw the figure again."""
    library = f"{folder_address('plotly', LIBRARY.parent)}/{LIBRARY.name}"
    data = {
        "figure": chart.json,
        "marks": json.dumps(marks),
        "config": CONFIG,
        "library": library,
        "height": chart.height,
        "alt": alt,
        "leastWidth": least_width,
    }
    # Plotly's own styles belong to the document.
    component(Path(__file__), HTML, isolate_styles=False)(key=key, data=data, height=chart.height)
