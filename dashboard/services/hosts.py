"""Which names of this server may be asked for, and what the log says of who may do what."""

from __future__ import annotations

import logging

import streamlit as st
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose
from streamlit import config
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from dashboard.services import users
from dashboard.services.roles import listens_only_here
from dashboard.services.settings import ROLE, SettingsError, get_settings

OWN_NAMES = ["localhost", "127.0.0.1", "::1"]


class HostGate:
    """ASGI middleware before all of the app: 403 for names that are not in `server.allowedHosts`.

    Streamlit itself asks that for its websocket only. `health`, the address of its health check,
    answers for every name: a container or a load balancer asks for an address.
    """

    def __init__(self, app: ASGIApp, health: str) -> None:
        self.app, self.health = app, health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "websocket" and not _has_own_name(scope):
            app = WebSocketClose()  # before it is accepted: the server answers 403
        elif scope["type"] == "http" and scope["path"] != self.health and not _has_own_name(scope):
            app = PlainTextResponse("This server does not have that name.", 403)
        await app(scope, receive, send)


def _has_own_name(scope: Scope) -> bool:
    return is_host_allowed(Headers(scope=scope).get("host"))


def refuse_foreign_names() -> None:
    """Let a server that listens only on this machine have no other names than those of it.

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
    elif settings.role is None and not settings.demo and not listens_only_here():
        logging.getLogger(__name__).warning(
            "No role is set. Visitors from this machine are operators; all others, "
            "and those that come through a proxy, are viewers. To choose one role for all, set "
            "%s=operator or %s=viewer in the environment or in .streamlit/secrets.toml.",
            ROLE,
            ROLE,
        )
