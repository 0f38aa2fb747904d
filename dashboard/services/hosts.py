"""Which names of this server a browser may ask for, and what the log says of who may do what."""

from __future__ import annotations

import logging

import streamlit as st
from streamlit import config

from dashboard.services import users
from dashboard.services.roles import listens_only_here
from dashboard.services.settings import ROLE, SettingsError, get_settings

OWN_NAMES = ["localhost", "127.0.0.1", "::1"]


def refuse_foreign_names() -> None:
    """Let a server that listens only on this machine refuse connections that ask for another name.

    A page of another site can have its own name resolve to 127.0.0.1 (DNS rebinding); the browser
    then lets it talk to this server. `server.allowedHosts`, where it is set, stays as it is.
    """

    def allow() -> None:
        if listens_only_here() and not st.get_option("server.allowedHosts"):
            names = [*OWN_NAMES, str(st.get_option("server.address")).strip("[]")]
            config.set_option("server.allowedHosts", list(dict.fromkeys(names)))

    allow()
    config.on_config_parsed(allow, force_connect=True)  # an edited file is read again


def report_roles() -> None:
    """Log who is a viewer, where nobody has chosen and other machines may reach the server."""
    try:
        settings = get_settings()
    except SettingsError:
        return  # every page says it
    if settings.auth is not None:
        if users.authlib_is_missing():
            logging.getLogger(__name__).warning(users.NO_AUTHLIB)
    elif settings.role is None and not listens_only_here():
        logging.getLogger(__name__).warning(
            "No role is set. Visitors from this machine are operators; all others, "
            "and those that come through a proxy, are viewers. To choose one role for all, set "
            "%s=operator or %s=viewer in the environment or in .streamlit/secrets.toml.",
            ROLE,
            ROLE,
        )
