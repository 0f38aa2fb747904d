"""Who is signed in, by Streamlit's `st.login`, where `[auth]` is configured.

Streamlit reads its cookie once, when a connection begins. Here it is asked every time whether the
sign-in still counts: it ends after 30 days, and for all tabs of a browser when one of them signs
out, also where a copy of the cookie is left.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from diffusion_core.text import cut

SECONDS = 30 * 86_400  # how long the browser keeps Streamlit's cookie
# Two parts with one @, without what could stand for another address.
ADDRESS = re.compile(r"[^@\s,]{1,64}@[^@\s,]{1,255}")

NO_AUTHLIB = "Nobody can sign in: Authlib is missing. Install requirements-auth.txt on the server."

_signed_out: set[str] = set()  # the sign-ins that have been ended since the start of this server


class User(NamedTuple):
    """A person who is signed in."""

    key: str  # the provider's for this person, and for no other
    name: str  # the address, or what else the provider calls the person
    address: str = ""  # an e-mail address that the provider does not call unverified


def user() -> User | None:
    """Who is signed in now; None: nobody."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return None
    return user_of(st.user.to_dict())


def user_of_session(session: str) -> User | None:
    """As `user`, of another session by Streamlit's name of it."""
    found = runtime.get_instance().get_app_session(session)
    return user_of(dict(found._user_info)) if found is not None else None


def user_of(claims: Mapping[str, Any]) -> User | None:
    """The person of whom a provider says this, as Streamlit passes it on."""
    issued, subject = claims.get("iat"), claims.get("sub")
    if (
        claims.get("is_logged_in") is not True
        or not isinstance(issued, (int, float))
        or not isinstance(subject, str)
        or not time.time() - issued <= SECONDS
        or _sign_in(claims) in _signed_out
    ):
        return None
    address = claims.get("email")
    address = address if isinstance(address, str) and ADDRESS.fullmatch(address) else ""
    # Some providers do not say it at all, others as text.
    verified = claims.get("email_verified", True) in (True, "true")
    return User(
        key=f"{claims.get('iss')} {subject}",
        name=address or cut(str(claims.get("name") or subject)),
        address=address if verified else "",
    )


def authlib_is_missing() -> bool:
    return importlib.util.find_spec("authlib") is None


def name() -> str:
    """The name of who is signed in, empty for nobody."""
    found = user()
    return found.name if found is not None else ""


def sign_out() -> None:
    """End the sign-in of the visitor, in all tabs, and go to the provider's own end."""
    _signed_out.add(_sign_in(st.user.to_dict()))
    st.logout()


def _sign_in(claims: Mapping[str, Any]) -> str:
    """What tells one sign-in from all others: every token has a number of its own (`nonce`)."""
    text = json.dumps(claims, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
