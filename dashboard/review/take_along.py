"""The view Take along: the chosen runs as one file."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.remarks import name_now
from dashboard.services import reports
from dashboard.ui.controls import Choice, MultiChoice, Text
from dashboard.ui.report_file import FORMATS, offer_report
from diffusion_core.review.index import Row
from diffusion_core.runs.run import RunSnapshot

# By their titles, the names that `Parts` has for them.
PARTS = {
    "Samples": "samples",
    "Images": "images",
    "Notes": "remarks",
    "Votes": "votes",
    "Names": "names",
}
FORMAT = Choice(
    key="report_format",
    label="Format",
    options=tuple(FORMATS),
    titles={format: title for format, (title, _) in FORMATS.items()},
    default=".html",
    segmented=True,
)
TAKEN = MultiChoice(
    key="report_parts",
    label="Take along",
    one=Text(key="", label=""),
    options=tuple(PARTS),
    default=tuple(PARTS),
    most=len(PARTS),
    pills=True,
    help="Results, settings and curves always go along. Votes: those that you may see. Names: of "
    "the authors of notes.",
)
CONTROLS = (FORMAT, TAKEN)


def show_take_along(chosen: Sequence[RunSnapshot], rows: Sequence[Row]) -> None:
    if not chosen:
        st.info("Select up to eight runs in the table to take them along as one file.")
        return
    with st.container(horizontal=True, gap="large"):
        format = FORMAT.ask(width="content")
        taken = TAKEN.ask(width="content")
    parts = reports.parts_for([PARTS[title] for title in TAKEN.kept(taken)], name_now())
    offer_report([seen.run for seen in chosen], format, parts, primary=True)
    st.caption(
        "Opens without a network, also on a phone; curves can be zoomed, and each image says how "
        "to make it again."
        if format == ".html"
        else "For A4, with six sample strips of each run."
    )
