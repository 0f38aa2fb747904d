"""The visitor's role in the sidebar, and the buttons to sign in and out where there is `[auth]`."""

from __future__ import annotations

import streamlit as st

from dashboard.services import roles, users
from dashboard.services.auth import Auth
from dashboard.services.settings import Settings
from dashboard.ui.outside import code, plain


def show_role(settings: Settings) -> None:
    if settings.demo:
        st.caption("Role: visitor of a demo. You can watch, sample and train small runs.")
        return
    user = users.user() if settings.auth is not None else None
    who = f"Signed in as {code(user.name)}. " if user is not None else ""
    if not roles.may_operate():
        st.caption(
            f"{who}Role: viewer. You can watch and sample; only the operator can train. "
            + roles.how_to_change()
        )
    elif who:
        st.caption(f"{who}Role: operator.")
    if user is not None:
        st.button("Sign out", icon=":material/logout:", on_click=users.sign_out)
    elif settings.auth is not None:
        show_sign_in(settings.auth)


def show_sign_in(auth: Auth) -> None:
    if users.authlib_is_missing():
        st.warning(users.NO_AUTHLIB)
        return
    for provider in auth.providers:
        label = "Sign in" if len(auth.providers) == 1 else f"Sign in with {plain(provider)}"
        st.button(label, icon=":material/login:", on_click=st.login, args=(provider,))
