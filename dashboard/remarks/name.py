"""The visitor's name: that of the sign-in, or one that is typed once and kept by the browser."""

from __future__ import annotations

import json
import secrets

import streamlit as st

from dashboard.components.memory.memory import remember
from dashboard.services import people, roles, users
from dashboard.services.people import BadName
from dashboard.services.roles import Deed
from dashboard.ui import keys
from dashboard.ui.outside import code, plain

KEPT = "diffusion-lab-name"  # in the browser


def name_now() -> str:
    """The visitor's name; empty where nobody knows it yet."""
    if (user := users.user()) is not None:
        return people.name_of_user(user)
    given = st.session_state.get(keys.GUEST)
    return people.name_of_guest(*given) if given is not None else ""


def ask_name(deed: Deed, key: str) -> str:
    """The visitor's name, empty where there is none yet or the visitor may not do the deed: then
    the page says why, or has a field for it. `key`: of the field."""
    if why := roles.refusal(deed):
        st.caption(plain(why))
        return ""
    name = name_now()
    if users.user() is None:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if name:
                st.caption(f"You are {code(people.shown_name(name))}.", width="content")
                with st.popover("Change", type="tertiary"):
                    _ask(key)
            else:
                _ask(key)
            _remember(f"{key}-memory")
    return name


def _ask(key: str) -> None:
    with st.form(f"{key}-form", border=False):
        st.text_input("Your name", max_chars=people.LONGEST, key=key)
        st.form_submit_button("Use this name", on_click=_take, args=(key,))
    if why := st.session_state.pop(keys.NAME_ERROR, ""):
        st.error(plain(why))


def _take(key: str) -> None:
    """The callback of the field; the secret of the browser stays."""
    before = st.session_state.get(keys.GUEST)
    secret = before[1] if before is not None else secrets.token_hex(16)
    try:
        st.session_state[keys.GUEST] = (people.check_name(st.session_state[key]), secret)
    except BadName as error:
        st.session_state[keys.NAME_ERROR] = str(error)


def _remember(key: str) -> None:
    given = st.session_state.get(keys.GUEST)
    remember(KEPT, json.dumps(given) if given is not None else "", key, _take_kept)


def _take_kept(text: str) -> None:
    """What the browser has kept is checked as what is typed; another text counts as none."""
    if keys.GUEST in st.session_state or len(text) > 1000:
        return
    try:
        name, secret = json.loads(text)
        if people.SECRET.fullmatch(secret):
            st.session_state[keys.GUEST] = (people.check_name(name), secret)
    except (ValueError, TypeError, AttributeError):
        st.session_state[keys.NAME_ERROR] = "The name in this browser cannot be used; type one."
