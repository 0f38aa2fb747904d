"""What the visitor may do: asked by every deed when it is done, and by pages for what they show.

Nothing here is remembered: each question reads the settings, and the connection and the sign-in of
the visitor whose page or button is being run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from enum import StrEnum
from urllib.parse import urlsplit

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services import users
from dashboard.services.settings import (
    OPERATORS,
    ROLE,
    Role,
    Settings,
    SettingsError,
    get_settings,
)
from dashboard.services.users import User

# Headers by which a proxy says that it passes on what another machine has asked.
OF_PROXIES = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
)


class Deed(StrEnum):
    """What not everybody may do, as it stands in the sentence that refuses it."""

    START = "start a run"
    CREATE = "create a run"
    RESUME = "resume a run"
    PAUSE = "pause a run"
    STOP = "stop a run"
    SAMPLE_NOW = "request samples from a run"
    CHECKPOINT_NOW = "request a checkpoint from a run"
    CHANGE = "change the settings of a run"
    REORDER = "reorder the queue"
    DELETE = "delete a run"
    RESTORE = "restore a run"
    CARRY = "download a run as an archive"
    IMPORT = "import a run"
    MEASURE = "measure the quality of a run"
    CHANGE_SERIES = "cancel or resume a series that somebody else started"
    DELETE_SERIES = "delete a series"
    SAVE_VIEW = "save and delete views"
    UPLOAD_DATA = "upload a data set"
    DELETE_DATA = "delete a data set"
    SAVE_SCHEDULE = "save and delete schedules"
    READ_PATHS = "read images from a folder of the server"
    REMARK = "write notes, tags, stars and decisions"
    VOTE = "vote"
    ASK = "start a vote"
    PRESENT = "present"


# What needs somebody who is known, but not an operator.
OF_REVIEWERS = (
    Deed.REMARK,
    Deed.VOTE,
    Deed.ASK,
    Deed.PRESENT,
    Deed.SAVE_VIEW,
    Deed.SAVE_SCHEDULE,
)
# What also others may do where the settings let them.
OF_GUESTS = (Deed.REMARK, Deed.VOTE)


class NotAllowed(ValueError):
    """The visitor's role does not allow this; the message is for the visitor."""


def role() -> Role:
    """The role of the visitor now, see `allows`. Raises SettingsError."""
    return "operator" if operates(get_settings()) else "viewer"


def operates(settings: Settings) -> bool:
    """Whether the visitor is an operator under these settings."""
    return allows(settings, users.user, visitor_is_local)


def allows(
    settings: Settings, user: Callable[[], User | None], is_local: Callable[[], bool]
) -> bool:
    """Whether a visitor is an operator: the whole rule. The first of these that applies decides.

    In a demo nobody is. With `role` everybody or nobody is. With `[auth]`, who is signed in with
    an address that `operators` has, or whose domain it has. Else who comes from this machine.
    """
    if settings.demo:
        return False
    if settings.role is not None:
        return settings.role == "operator"
    if settings.auth is not None:
        return is_listed(user(), settings.operators)
    return is_local()


def is_listed(user: User | None, operators: Sequence[str]) -> bool:
    """Whether a list of addresses and domains has a person; capitals do not matter."""
    if user is None or not user.address:
        return False
    address = _small(user.address)
    return any(_small(entry) in (address, address[address.index("@") :]) for entry in operators)


def _small(text: str) -> str:
    """Only of ASCII: other alphabets have letters that become ASCII ones when made small."""
    return text.lower() if text.isascii() else text


def may_train() -> bool:
    """Whether the visitor may start runs, be it within the caps of a demo."""
    try:
        return get_settings().demo or may_operate()
    except SettingsError:
        return False


def may_operate() -> bool:
    """Whether the visitor is an operator; not where the settings cannot be read."""
    try:
        return operates(get_settings())
    except SettingsError:
        return False


def may_see_names() -> bool:
    """Whether the visitor may read who did what to a run: not where nobody knows the visitor."""
    return may_operate() or users.user() is not None


def refusal(deed: Deed, own: bool = False) -> str:
    """Why the visitor may not do it; empty if allowed. `own`: it is the visitor's own series."""
    if deed in OF_REVIEWERS:
        return _refusal_of_reviewers(deed)
    if (own and deed == Deed.CHANGE_SERIES) or may_operate():
        return ""
    return f"Only the operator can {deed.value}; your role is viewer. {how_to_change()}".strip()


def _refusal_of_reviewers(deed: Deed) -> str:
    try:
        settings = get_settings()
    except SettingsError as error:
        return str(error)
    guests = settings.guests_review and deed in OF_GUESTS
    if guests or operates(settings) or users.user() is not None:
        return ""
    how = "Sign in to do so." if settings.auth is not None else ""
    return f"Only operators and people who are signed in can {deed.value}. {how}".strip()


def may(deed: Deed, own: bool = False) -> bool:
    return not refusal(deed, own)


def check(deed: Deed, own: bool = False) -> None:
    """Raises NotAllowed."""
    if why := refusal(deed, own):
        raise NotAllowed(why)


def how_to_change() -> str:
    """What makes the viewer an operator, where that can be said; else nothing."""
    try:
        settings = get_settings()
    except SettingsError as error:
        return str(error)
    if settings.role or settings.demo:
        return ""
    if settings.auth is not None:
        return _how_to_sign_in(users.user())
    return f"To operate this app from other machines, set {ROLE}=operator on the server."


def _how_to_sign_in(user: User | None) -> str:
    if user is None:
        return "Sign in as an operator to do so."
    if not user.address:
        return "Your provider gives no verified e-mail address for you."
    return f"Your address is not among {OPERATORS}."


# ---------------------------------------------------------------- where a visitor comes from


def visitor_is_local() -> bool:
    """Whether the connection was made on this machine, by all that it says of itself.

    A proxy on this machine connects from a loopback address for everybody, so the address alone
    decides nothing: the name that the browser asked for, and the page that asked, must be local
    too, and no header may say that the request was passed on.
    """
    if get_script_run_ctx(suppress_warning=True) is None:
        return False
    if str(st.get_option("server.address") or "").startswith("unix:"):  # only proxies use one
        return False
    # Streamlit says None for most loopback addresses.
    return is_local(st.context.ip_address or "localhost", st.context.headers.get)


def is_local(address: str, header: Callable[[str], str | None]) -> bool:
    """Whether a connection from this address with these headers was made on this machine."""
    origin = header("Origin")
    return (
        not any(header(name) is not None for name in OF_PROXIES)
        and is_loopback(address)
        and is_loopback(host_of(f"//{header('Host') or ''}"))
        and (origin is None or is_loopback(host_of(origin)))
    )


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is one that only this machine reaches itself by."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address from its text, one of IPv4 also where it is written as one of IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def listens_only_here() -> bool:
    """Whether the server's address is a loopback one."""
    return is_loopback(st.get_option("server.address") or "")
