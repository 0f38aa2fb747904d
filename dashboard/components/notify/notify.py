"""A button that lets the browser notify the visitor when something has ended.

The browser asks the visitor first, and keeps the names in the storage of the tab.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboard.components.assemble import component

HTML = """
<div class="notify">
  <button type="button" aria-pressed="false"
    title="When it ends, the browser notifies you while this page is open in a tab."
  >Notify me</button>
  <span role="status"></span>
</div>
"""
MOST_NAMES = 100


def names_to_notify_of(key: str) -> list[str]:
    """The names that the visitor waits for."""
    found = st.session_state.get(key, {}).get("names")
    given = found if isinstance(found, list) else []
    return [name for name in given[:MOST_NAMES] if isinstance(name, str)]


def show_notify(shown: str, end_of: Callable[[str], str | None], key: str) -> None:
    """`shown`: the name that the button is for; "": without one. `end_of`: what the browser says of
    a name that has ended, "" for one that is no longer there, None where it has not ended."""
    waited = {name: end_of(name) for name in names_to_notify_of(key)}
    ends = {name: {"text": end} for name, end in waited.items() if end is not None}
    component(Path(__file__), HTML)(
        key=key,
        data={"shown": shown, "ends": ends},
        width="content",
        on_names_change=lambda: None,  # so that Streamlit keeps them
    )
