"""Plotly figures that change while somebody looks at them.

`st.plotly_chart` rebuilds its chart whenever a number in it changes and loses the zoom and the
hidden curves. This component updates the same plot, with the same library, which the browser loads
from this server once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import plotly
import plotly.graph_objects as go
import streamlit as st

from dashboard.components.assemble import component, folder_address
from dashboard.ui import keys

# `style.css` has their look, and hides the tool bar of Plotly on a phone, for want of room.
HTML = """
<div class="chart-frame">
  <div><div class="chart"></div></div>
  <details class="chart-files" hidden>
    <summary aria-label="Download this figure" title="Download this figure">
      <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 3v12m-5-5 5 5 5-5M4 20h16"/></svg>
    </summary>
    <div>
      <button type="button">PNG</button><button type="button">SVG</button
      ><button type="button">CSV</button>
    </div>
  </details>
</div>
"""
# Nothing can be selected, so there is nothing to select with; the menu has the image.
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "toImage"]}
LIBRARY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


class Packed(NamedTuple):
    """A figure that does not change any more."""

    json: str
    height: int


def show_live(
    figure: go.Figure,
    key: str,
    alt: str,
    least_width: int = 0,
    cursor: Literal["", "x", "y", "xy"] = "",
    on_click: Callable[[str], None] | None = None,
) -> None:
    """Draw a figure of `figures.finish` in the theme's colours; `alt` says what it shows.

    What `uirevision` keeps stays over updates of the same `key`. `least_width`: in pixels; where
    there is less room the figure scrolls sideways. `cursor`, `on_click`: see `show_packed`.
    """
    show_packed(pack(figure), key, alt, least_width, cursor, on_click)


def pack(figure: go.Figure) -> Packed:
    """A figure of `figures.finish` as the browser gets it, once for all who see it."""
    figure.update_layout(template="none")
    return Packed(figure.to_json(), figure.layout.height)


def show_packed(
    chart: Packed,
    key: str,
    alt: str,
    least_width: int = 0,
    cursor: Literal["", "x", "y", "xy"] = "",
    on_click: Callable[[str], None] | None = None,
) -> None:
    """As `show_live`. `cursor`: on which axes the timestep lies that a line follows in the browser;
    on x alone each curve has a dot there with its value. `on_click` is told the name of a point
    that was clicked, the second entry of its `customdata`; points without one are not told."""
    library = f"{folder_address('plotly', LIBRARY.parent)}/{LIBRARY.name}"
    data = {
        "figure": chart.json,
        "config": CONFIG,
        "library": library,
        "height": chart.height,
        "alt": alt,
        "name": _file_name(key),
        "quantity": key,
        "leastWidth": least_width,
        "cursor": cursor,
    }
    told: dict[str, Any] = {}
    if on_click is not None:
        data["clicks"] = True

        def clicked() -> None:
            name = st.session_state[key].get("clicked")
            if isinstance(name, str):
                on_click(name)

        told["on_clicked_change"] = clicked
    # Plotly's own styles belong to the document.
    show = component(Path(__file__), HTML, isolate_styles=False)
    show(key=key, data=data, height=chart.height, **told)


def _file_name(key: str) -> str:
    """Of the files of a figure, without their ending: its page and itself."""
    page = st.session_state.get(keys.PAGE) or "home"
    return re.sub(r"[^\w.-]+", "-", f"{page}-{key}").strip("-")
