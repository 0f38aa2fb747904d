"""Who a visitor is: nobody becomes another one, or many, by what a request says of itself."""

from __future__ import annotations

import pytest
import uvicorn
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from streamlit.web.server.starlette.starlette_server import _get_uvicorn_config_kwargs

from dashboard.services.visitors import identity


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:1:2:3", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        # Many visitors share these, or choose them.
        ("", "session"),
        ("127.0.0.1", "session"),
        ("127.0.0.2", "session"),
        ("::1", "session"),
        ("::ffff:127.0.0.1", "session"),
        ("unknown", "session"),
    ],
)
def test_an_address_is_one_visitor_and_without_one_each_session_is(address: str, who: str) -> None:
    assert identity(address, "session") == who


@pytest.mark.parametrize(
    ("peer", "trusted", "says", "who"),
    [
        ("203.0.113.7", None, "198.51.100.1", "203.0.113.7"),
        ("203.0.113.7", None, "127.0.0.1", "203.0.113.7"),
        ("172.18.0.2", None, "198.51.100.1", "172.18.0.2"),
        # A proxy adds who has asked it to what it was told.
        ("127.0.0.1", None, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("172.18.0.2", "172.18.0.2", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("172.18.0.2", "172.16.0.0/12", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
    ],
)
def test_only_a_proxy_on_this_machine_or_one_that_is_named_says_who_asks(
    peer: str, trusted: str | None, says: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if trusted:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        client = HTTPConnection(scope).client
        assert client is not None
        seen.append(identity(client.host, "session"))

    # As Streamlit makes its server.
    server = uvicorn.Config(app, **_get_uvicorn_config_kwargs())
    server.load()
    headers = [(b"x-forwarded-for", says.encode())]
    scope = {"type": "websocket", "client": (peer, 1), "headers": headers}
    call = server.loaded_app(scope, None, None)
    with pytest.raises(StopIteration):  # it waits for nothing
        call.__await__().send(None)
    assert seen == [who]
