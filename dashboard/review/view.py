"""The page: the table of runs, and one of the views of those that are chosen in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.review import choose, look_controls
from dashboard.review.carry import CONTROLS as CARRY
from dashboard.review.carry import show_carry
from dashboard.review.compare import CONTROLS as COMPARE
from dashboard.review.compare import show_compare
from dashboard.review.follow import show_follow
from dashboard.review.link import offer_link
from dashboard.review.look import show_look
from dashboard.review.saved import offer_saved
from dashboard.review.say import CONTROLS as SAY
from dashboard.review.say import show_say
from dashboard.review.take_along import CONTROLS as TAKE_ALONG
from dashboard.review.take_along import show_take_along
from dashboard.review.vote import CONTROLS as VOTE
from dashboard.review.vote import is_open, show_vote
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
            show_compare,
            COMPARE,
        ),
        View(
            "Look",
            "Samples of the chosen runs from the same noise, and any two of them compared.",
            show_look,
            look_controls.CONTROLS,
        ),
        View("Say", "Notes, tags, stars and decisions, for everybody to see.", show_say, SAY),
        View(
            "Vote",
            "Which images are better, without knowing what made them.",
            show_vote,
            VOTE,
            is_open,
        ),
        View(
            "Take along",
            "The chosen runs as one file for others.",
            show_take_along,
            TAKE_ALONG,
        ),
        View("Carry", "Runs for another machine, or from one.", show_carry, CARRY),
    ]
}
VIEW = Choice(
    key="view", label="View", options=tuple(VIEWS), default=next(iter(VIEWS), ""), segmented=True
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
            chosen, rows = choose.pick_runs(_offer_more)
    view.show(chosen, rows)


def _offer_more() -> None:
    offer_saved(CONTROLS)
    offer_link(CONTROLS)
