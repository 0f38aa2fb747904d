"""The files that visitors send: how large, how many, and how long the server keeps them.

Streamlit takes a file at its upload address for every open session, whether a page has a field for
it or not, and keeps it until two minutes after the session has gone. This stands before it.
"""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass
from typing import cast

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from dashboard.services import roles, users
from dashboard.services.settings import SettingsError, get_settings
from dashboard.services.visitors import identity

ADDRESS = re.compile(r".*/_stcore/upload_file/([^/]+)/([^/]+)$")
UNUSED_SECONDS = 15.0  # until a file that no page has asked for is dropped
FILES = 3  # of a session: as many as there are fields
MOST_BYTES = 256 * 2**20  # of all files, also of those that are on their way
SHARE = 4  # one visitor's files on their way are at most this part of MOST_BYTES
FRAME = 2**20  # bytes around a file in a request, at most


@dataclass
class _File:
    who: str  # see `visitors.identity`
    session: str
    name: str  # Streamlit's id
    length: int
    arrived: bool = False
    used: bool = False


_files: list[_File] = []  # the oldest first
_lock = threading.Lock()


def keep(file_id: str) -> None:
    """A page uses this file: it is kept while the session lasts."""
    with _lock:
        for file in _files:
            file.used |= file.name == file_id


class UploadGate:
    """ASGI middleware before Streamlit's upload address."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        put = scope["type"] == "http" and scope["method"] == "PUT"
        found = ADDRESS.fullmatch(scope["path"]) if put else None
        if found is None:
            await self.app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        file = _File(identity(address, found[1]), found[1], found[2], _length(scope))
        if refusal := _admit(file, _is_local(scope)):
            status, sentence = refusal
            await PlainTextResponse(sentence, status)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            with _lock:
                file.arrived = True
            _tidy()
            asyncio.get_running_loop().call_later(UNUSED_SECONDS, _drop_unused, file)


def _length(scope: Scope) -> int:
    """Of the body, -1 where the request does not say it."""
    text = dict(scope["headers"]).get(b"content-length", b"")
    return int(text) if text.isdigit() and len(text) < 20 else -1


def _is_local(scope: Scope) -> bool:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    address = (scope.get("client") or ("",))[0]
    return roles.is_local(address, lambda name: headers.get(name.lower()))


def _admit(file: _File, local: bool) -> tuple[int, str] | None:
    """Count a file from now on, or say why not: an HTTP status and a sentence. `local`: it comes
    from this machine."""
    if file.length < 0:
        return 411, "The request does not say how large the file is."
    try:
        settings = get_settings()
        operator = roles.allows(
            settings, lambda: users.user_of_session(file.session), lambda: local
        )
        limit = settings.upload_mb(operator)
    except SettingsError as error:
        return 503, str(error)
    if file.length > limit * 2**20 + FRAME:
        return 413, f"The file is larger than {limit} MB."
    with _lock:
        coming = [other for other in _files if not other.arrived]
        own = sum(other.length for other in coming if other.who == file.who)
        full = sum(other.length for other in coming) + file.length > MOST_BYTES
        # One file at a time is always possible.
        if full or (own and own + file.length > MOST_BYTES // SHARE):
            return 503, "Many files are being sent at the moment. Try again in a minute."
        _files.append(file)
    return None


def _drop_unused(file: _File) -> None:
    if not file.used:
        _drop(file)


def _drop(file: _File) -> None:
    with _lock:
        if file in _files:
            _files.remove(file)
    _manager().remove_file(file.session, file.name)


def _manager() -> MemoryUploadedFileManager:
    """Where Streamlit's server keeps the files."""
    return cast("MemoryUploadedFileManager", runtime.get_instance().uploaded_file_mgr)


def _tidy() -> None:
    """Forget the files of sessions that are over, and drop the oldest above the limits: of a
    session, and of whoever has the most bytes."""
    manager = _manager()
    while True:
        with _lock:
            _files[:] = [
                file
                for file in _files
                if not file.arrived or manager.get_files(file.session, [file.name])
            ]
            there = [file for file in _files if file.arrived]
            surplus = _above_limits(there)
        if surplus is None:
            return
        _drop(surplus)


def _above_limits(files: list[_File]) -> _File | None:
    """The next one that must go."""
    for file in files:
        if sum(other.session == file.session for other in files) > FILES:
            return file
    held: dict[str, int] = {}
    for file in files:
        held[file.who] = held.get(file.who, 0) + file.length
    if sum(held.values()) <= MOST_BYTES:
        return None
    most = max(held, key=lambda who: held[who])
    return next(file for file in files if file.who == most)
