"""Large files for the browser, made while they are sent, so that the server never holds one.

A page offers one to its session; the address stands for that and is not to be guessed. Whether the
visitor may have it is asked again when it is fetched.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services import roles, users
from dashboard.services.roles import Deed
from dashboard.services.settings import SettingsError, get_settings
from diffusion_core.errors import explains_itself

ROUTE = "/downloads/{token}"
MOST_OFFERS = 256  # the oldest is forgotten first
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


@dataclass(frozen=True)
class Offer:
    """A file that a session may fetch."""

    token: str
    session: str
    deed: Deed  # that the visitor must be allowed
    name: str
    make: Callable[[], Iterator[bytes]]  # raises a ValueError with a sentence for the visitor


_offers: dict[tuple[str, Hashable], Offer] = {}  # by session and file, the oldest first
_lock = threading.Lock()


def offer(file: Hashable, deed: Deed, name: str, make: Callable[[], Iterator[bytes]]) -> str:
    """The address of a file, relative to the page, the same for each look of this session.

    `file` tells it from others. Raises NotAllowed.
    """
    roles.check(deed)
    context = get_script_run_ctx()
    session = context.session_id if context is not None else ""
    with _lock:
        known = _offers.pop((session, file), None)
        token = known.token if known is not None else secrets.token_urlsafe(32)
        _offers[session, file] = Offer(token, session, deed, name, make)
        while len(_offers) > MOST_OFFERS:
            del _offers[next(iter(_offers))]
    return f"downloads/{token}"


def serve(request: Request) -> Response:
    """One file, in a thread of the server's."""
    with _lock:
        found = {each.token: each for each in _offers.values()}
    wanted = found.get(request.path_params["token"])
    if wanted is None:
        return _sentence("This link no longer holds. Open the page again.", 404)
    try:
        if not _may(wanted, request):
            return _sentence(f"Only the operator can {wanted.deed.value}.", 403)
        chunks = wanted.make()
    except SettingsError as error:
        return _sentence(str(error), 503)
    except ValueError as error:
        if not explains_itself(error):
            raise
        return _sentence(str(error), 409)
    headers: dict[str, Any] = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(wanted.name)}"
    }
    return StreamingResponse(chunks, media_type="application/zip", headers=HEADERS | headers)


def _may(wanted: Offer, request: Request) -> bool:
    """Whether who asks is an operator now."""
    address = request.client.host if request.client is not None else ""
    return roles.allows(
        get_settings(),
        lambda: users.user_of_session(wanted.session),
        lambda: roles.is_local(address, request.headers.get),
    )


def _sentence(text: str, status: int) -> Response:
    return PlainTextResponse(text, status_code=status, headers=HEADERS)
