"""The page: the table of runs, and one of the views of those that are chosen in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.review import (
    carry,
    choose,
    compare,
    look,
    look_controls,
    say,
    take_along,
    vote,
)
from dashboard.review.follow import offer_follow, show_follow
from dashboard.review.link import offer_link
from dashboard.review.saved import offer_saved
from dashboard.ui.controls import Choice, Control
from diffusion_core.review.index import Row
from diffusion_core.runs.run import RunSnapshot


@dataclass(frozen=True)
class View:
    """Its name is in links."""

    name: str
    about: str  # one sentence
    # (the chosen runs, at most MOST_CHOSEN and maybe none; the rows of all runs in the table)
    show: Callable[[Sequence[RunSnapshot], Sequence[Row]], None]
    controls: tuple[Control, ...] = ()  # its own, which links and saved views hold
    alone: Callable[[], bool] = lambda: False  # whether it goes without the table now


# Adding a view is one module and one record here.
VIEWS: dict[str, View] = {
    view.name: view
    for view in [
        View(
            "Compare",
            "What differs between two to eight runs, and which setting goes with which result.",
            compare.show_compare,
            compare.CONTROLS,
        ),
        View(
            "Look",
            "Samples of the chosen runs from the same noise, and any two of them compared.",
            look.show_look,
            look_controls.CONTROLS,
        ),
        View(
            "Say",
            "Notes, tags, stars and decisions, for everybody to see.",
            say.show_say,
            say.CONTROLS,
        ),
        View(
            "Vote",
            "Which images are better, without knowing what made them.",
            vote.show_vote,
            vote.CONTROLS,
            vote.is_open,
        ),
        View(
            "Take along",
            "The chosen runs as one file for others.",
            take_along.show_take_along,
            take_along.CONTROLS,
        ),
        View(
            "Carry",
            "Runs for another machine, or from one.",
            carry.show_carry,
            carry.CONTROLS,
        ),
    ]
}
VIEW = Choice(
    key="view", label="View", options=tuple(VIEWS), default=next(iter(VIEWS)), segmented=True
)
CONTROLS = (
    *choose.CONTROLS,
    VIEW,
    *(control for view in VIEWS.values() for control in view.controls),
)


def show_review() -> None:
    show_follow(CONTROLS)
    table = st.container()
    view = VIEWS[VIEW.ask(label_visibility="collapsed")]
    st.caption(view.about)
    chosen, rows = list[RunSnapshot](), list[Row]()
    if not view.alone():
        with table:
            with st.container(horizontal=True):
                offer_saved(CONTROLS)
                offer_link(CONTROLS)
                offer_follow()
            chosen, rows = choose.pick_runs()
    view.show(chosen, rows)
