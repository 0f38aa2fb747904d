"""The download of a report of runs, whose size is on the button."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import streamlit as st

from dashboard.services import reports
from dashboard.services.settings import get_settings
from dashboard.services.visitors import visitor
from dashboard.ui.outside import plain
from diffusion_core.review.report.content import Parts, ReportError
from diffusion_core.runs.run import Run

# By how the file's name ends: the title and the media type.
FORMATS = {".html": ("HTML", "text/html"), ".pdf": ("PDF", "application/pdf")}


def offer_report(runs: Sequence[Run], format: str, parts: Parts, *, primary: bool = False) -> None:
    """The button; the file is made on the click."""
    try:
        with st.spinner("Estimating the size of the report …"):
            size = reports.size(runs, format, parts)
    except ReportError as error:
        st.error(plain(error))
        return
    settings, who = get_settings(), visitor()
    refusal = reports.refusal(who, settings)
    title, media_type = FORMATS[format]
    name = runs[0].name if len(runs) == 1 else f"review-of-{len(runs)}-runs"
    st.download_button(
        f"Report as {title}, about {size / 1e6:.1f} MB",
        functools.partial(
            reports.make, runs, format, parts, who=who, settings=settings, by=reports.author()
        ),
        file_name=f"{name}{format}",
        mime=media_type,
        icon=":material/download:",
        type="primary" if primary else "secondary",
        on_click="ignore",
        disabled=bool(refusal),
        help=refusal or None,
        key=f"report-{title}",
    )
