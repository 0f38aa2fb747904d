"""A row of small images with a few words each, of which one can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from dashboard.components.assemble import component

HTML = '<div class="thumbnails" role="group"></div>'


@dataclass(frozen=True)
class Thumbnail:
    """What can be chosen."""

    number: int
    address: str  # of an image
    title: str
    text: str  # below the title
    full: str  # all of the text, on the pointer and for those who cannot see it


def show_thumbnails(
    thumbnails: Sequence[Thumbnail],
    label: str,
    chosen: int | None,
    key: str,
    on_pick: Callable[[int], None],
) -> None:
    """`on_pick` is told the number of the one that was pressed, which may be `chosen`."""

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if isinstance(number, int):
            on_pick(number)

    data = {"label": label, "chosen": chosen, "thumbnails": [asdict(one) for one in thumbnails]}
    component(Path(__file__), HTML)(key=key, data=data, on_picked_change=picked)
