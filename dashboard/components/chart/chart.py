"""Plotly figures that change while somebody looks at them.

`st.plotly_chart` builds its chart anew whenever a number in it has changed, and the zoom and the
hidden curves are lost. This one draws into the same plot, with the same library, which the browser
loads from this server once. What a figure shows is not known here.
"""

from __future__ import annotations

import functools
from pathlib import Path

import plotly
import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v1 import declare_component

SCRIPT = Path(__file__).with_suffix(".js")
LIBRARY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def show_live(figure: go.Figure, key: str, alt: str) -> None:
    """Draw a figure of `figures.finish` in the theme's colours; `alt` says what it shows.

    What `uirevision` keeps stays over updates of the same `key`.
    """
    figure.update_layout(template="none")
    height = figure.layout.height
    data = {
        "figure": figure.to_json(),
        "library": _library_address(),
        "height": height,
        "alt": alt,
    }
    _component()(key=key, data=data, height=height)


@functools.cache
def _component() -> st.components.v2.types.ComponentRenderer:
    return st.components.v2.component(
        "live_chart",
        html='<div class="live-chart"></div>',
        js=SCRIPT.read_text(encoding="utf-8"),
        isolate_styles=False,  # Plotly's own styles belong to the document
    )


@functools.cache
def _library_address() -> str:
    """Where this server offers the library, relative to the page."""
    return f"component/{declare_component('plotly', path=LIBRARY.parent).name}/{LIBRARY.name}"
