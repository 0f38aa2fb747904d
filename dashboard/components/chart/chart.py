"""Plotly figures that change while somebody looks at them.

`st.plotly_chart` rebuilds its chart whenever a number in it changes and loses the zoom and the
hidden curves. This component updates the same plot, with the same library, which the browser loads
from this server once.
"""

from __future__ import annotations

from pathlib import Path

import plotly
import plotly.graph_objects as go

from dashboard.components.assemble import component, folder_address

HTML = '<div class="chart"></div>'
LIBRARY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def show_live(figure: go.Figure, key: str, alt: str) -> None:
    """Draw a figure of `figures.finish` in the theme's colours; `alt` says what it shows.

    What `uirevision` keeps stays over updates of the same `key`.
    """
    figure.update_layout(template="none")
    height = figure.layout.height
    library = f"{folder_address('plotly', LIBRARY.parent)}/{LIBRARY.name}"
    data = {"figure": figure.to_json(), "library": library, "height": height, "alt": alt}
    # Plotly's own styles belong to the document.
    component(Path(__file__), HTML, isolate_styles=False)(key=key, data=data, height=height)
