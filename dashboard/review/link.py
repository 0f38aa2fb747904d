"""What the page shows, as the settings of a link: to share it, to save it and to open it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlencode

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.ui.controls import Control

Address = Mapping[str, Sequence[str]]


def address_of(controls: Iterable[Control]) -> dict[str, list[str]]:
    """The values of the controls that are on the page and not the usual ones."""
    state = st.session_state
    return {
        control.key: control.to_link(state[control.key])
        for control in controls
        if control.key in state and state[control.key] != control.default
    }


def open_address(address: Address, controls: Iterable[Control]) -> None:
    """Set the controls as a link would: those that it does not name are as usual, and what cannot
    be set is left out.

    Call it before the widgets are shown.
    """
    for control in controls:
        texts = list(address.get(control.key, ()))
        # What a list offers may depend on the page, which checks it then.
        listed = getattr(control, "options", True)
        given = bool(texts) and not (listed and control.link_problem(texts))
        value = control.of_link(texts) if given else control.default
        if not given and control.key not in st.session_state:
            continue
        st.session_state[control.key] = value
        # A control on the page writes its own value into the address, and nobody else may.
        with suppress(StreamlitAPIException):
            if given:
                st.query_params[control.key] = texts
            else:
                st.query_params.pop(control.key, None)


def offer_link(controls: Iterable[Control]) -> None:
    with st.popover("Link to this", icon=":material/link:"):
        st.caption("Opens this page exactly as you see it now.")
        st.code(link_to(address_of(controls)), language=None, wrap_lines=True)


def link_to(address: Address) -> str:
    return f"{st.context.url or ''}?{urlencode(address, doseq=True)}"
