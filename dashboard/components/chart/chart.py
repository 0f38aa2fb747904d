"""Plotly figures that change while somebody looks at them.

`st.plotly_chart` rebuilds its chart whenever a number in it changes and loses the zoom and the
hidden curves. This component updates the same plot, with the same library, which the browser loads
from this server once.
"""

from __future__ import annotations

import functools
from pathlib import Path

import plotly
import plotly.graph_objects as go
from streamlit.components.v1 import declare_component

from dashboard.components.assemble import component

HTML = '<div class="chart"></div>'
LIBRARY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def show_live(figure: go.Figure, key: str, alt: str) -> None:
    """Draw a figure of `figures.finish` in the theme's colours; `alt` says what it shows.

    What `uirevision` keeps stays over updates of the same `key`.
    """
    figure.update_layout(template="none")
    height = figure.layout.height
    library = _library_address()
    data = {"figure": figure.to_json(), "library": library, "height": height, "alt": alt}
    # Plotly's own styles belong to the document.
    component(Path(__file__), HTML, isolate_styles=False)(key=key, data=data, height=height)


@functools.cache
def _library_address() -> str:
    """Where this server offers the library, relative to the page."""
    return f"component/{declare_component('plotly', path=LIBRARY.parent).name}/{LIBRARY.name}"
