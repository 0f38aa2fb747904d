"""What the page shows of an error that nobody has foreseen."""

from __future__ import annotations

import streamlit as st

from dashboard.services.errors import report


def show(error: Exception) -> bool:
    """In place of Streamlit's own message, which names files and lines of this server."""
    st.error(f"{report(error)} Reload the page to try again.")
    return True
