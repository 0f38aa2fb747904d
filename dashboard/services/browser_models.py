"""The models that this server offers to the engine in the browser, each made when it is fetched."""

from __future__ import annotations

import functools
import hashlib
import secrets
import threading

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.config import MAIN_AVERAGE
from diffusion_core.sampling.browser_model import BrowserModelError, browser_model

ROUTE = "/models/{token}"
MOST_OFFERS = 256  # the oldest is forgotten first
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
CACHED = {"Cache-Control": "private, max-age=3600"}

_secret = secrets.token_bytes(16)
_offers: dict[str, tuple[Checkpoint, str]] = {}
_lock = threading.Lock()


def address(checkpoint: Checkpoint, average: str = MAIN_AVERAGE) -> str:
    """Where the browser fetches a checkpoint, relative to the page; not to be guessed, and the same
    as long as the server runs."""
    name = f"{checkpoint.path}\0{checkpoint.step}\0{checkpoint.time!r}\0{average}"
    token = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), key=_secret).hexdigest()[:32]
    with _lock:
        _offers.pop(token, None)
        _offers[token] = checkpoint, average
        while len(_offers) > MOST_OFFERS:
            del _offers[next(iter(_offers))]
    return f"models/{token}"


def serve(request: Request) -> Response:
    """One model, in a thread of the server's."""
    try:
        data = _made(request.path_params["token"])
    except KeyError:
        return _sentence("This link no longer holds. Reload the page.", 404)
    except (BrowserModelError, CheckpointError) as error:
        return _sentence(str(error), 409)
    return Response(data, media_type="application/octet-stream", headers=HEADERS | CACHED)


@functools.lru_cache(maxsize=8)
def _made(token: str) -> bytes:
    with _lock:
        checkpoint, average = _offers[token]
    return browser_model(checkpoint, average)


def _sentence(text: str, status: int) -> Response:
    return PlainTextResponse(text, status_code=status, headers=HEADERS)
