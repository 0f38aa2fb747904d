"""The Data page: which images are shown, and the views of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from dashboard.explain.data_gallery import show_gallery_view
from dashboard.explain.data_reading import show_reading
from dashboard.explain.data_set import Shown
from dashboard.explain.data_statistics import show_duplicates, show_statistics
from dashboard.explain.data_upload import show_upload
from dashboard.ui.controls import Choice


@dataclass(frozen=True)
class View:
    """Its name is in links."""

    name: str
    about: str  # one sentence
    show: Callable[[Shown], None]


VIEWS = {
    view.name: view
    for view in [
        View("Gallery", "Every image, page by page. Click one to enlarge it.", show_gallery_view),
        View(
            "Statistics",
            "How many images of each class there are, how large the files are, and their colours.",
            show_statistics,
        ),
        View(
            "Near duplicates",
            "Images that are nearly the same count twice in training, and a held-out one of them "
            "measures nothing.",
            show_duplicates,
        ),
        View(
            "Reading",
            "What the network gets: which images, resized how, in how many batches.",
            show_reading,
        ),
    ]
}
VIEW = Choice(
    key="view", label="View", options=tuple(VIEWS), default=next(iter(VIEWS)), segmented=True
)


def show_views(shown: Shown | None) -> None:
    """One view of the set, where there is one, and the upload of another below it."""
    if shown is not None:
        view = VIEWS[VIEW.ask(label_visibility="collapsed")]
        st.caption(view.about)
        view.show(shown)
    show_upload()
