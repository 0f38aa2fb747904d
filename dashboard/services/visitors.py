"""Who asks: what is shared out fairly is shared between these."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services import users


def visitor() -> str:
    """The person, where somebody is signed in; else the visitor's address where there is one
    (behind a proxy, what the proxy says), so that more tabs do not give more; else the session.
    For a thread without a session an empty text."""
    if (person := users.user()) is not None:
        return person.key
    context = get_script_run_ctx(suppress_warning=True)
    if context is None:
        return ""
    return st.context.ip_address or context.session_id
