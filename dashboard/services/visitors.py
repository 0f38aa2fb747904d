"""Who asks: what is shared out fairly is shared between these."""

from __future__ import annotations

import ipaddress

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services import users
from dashboard.services.roles import address_of


def visitor() -> str:
    """The person, where somebody is signed in; else the visitor's address where there is one
    (behind a proxy, what the proxy says), so that more tabs do not give more; else the session.
    For a thread without a session an empty text."""
    if (person := users.user()) is not None:
        return person.key
    context = get_script_run_ctx(suppress_warning=True)
    if context is None:
        return ""
    return identity(st.context.ip_address or "", context.session_id)


def identity(address: str, session: str) -> str:
    """Who asks from this address: the address, so that more sessions do not give more.

    On this machine, and where a proxy passes on what is no address, it is the session. Of an IPv6
    address the network counts: whoever has one has 2**64 to choose from.
    """
    found = address_of(address)
    if found is None or found.is_loopback:
        return session
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((found.packed, 64), strict=False))
    return str(found)
