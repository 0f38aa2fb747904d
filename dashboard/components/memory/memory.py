"""A text that the visitor's browser remembers, also after the page is closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboard.components.assemble import component


def remember(name: str, keep: str, key: str, on_kept: Callable[[str], None]) -> None:
    """Let the browser keep a text under a name; with an empty one ask for what it has kept.

    `on_kept` is told that, where there is something; it comes from outside.
    """

    def told() -> None:
        kept = st.session_state[key].get("kept")
        if isinstance(kept, str):
            on_kept(kept)

    data = {"name": name, "keep": keep, "ask": not keep}
    component(Path(__file__), "<span></span>")(key=key, data=data, on_kept_change=told)
