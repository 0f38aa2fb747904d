"""The names that a real server answers for, as it is installed: those of this machine."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.browser.server import Server, start_server

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
FOREIGN = ["evil.example", "localhost.evil.example:8501", "192.168.1.7:8501", ""]
REFUSED = (403, b"This server does not have that name.")
ROUTES = [
    ("GET", "/"),
    ("GET", "/training"),
    ("GET", "/samples/0123456789abcdef/step-00000001.png"),
    ("GET", "/samples/_stcore/health"),
    ("PUT", "/_stcore/upload_file/session/file"),
    ("DELETE", "/_stcore/upload_file/session/file"),
    ("GET", "/_stcore/host-config"),
    ("GET", "/_stcore/metrics"),
    ("GET", "/_stcore/health/"),
    ("GET", "/media/none.png"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(tmp_path_factory.mktemp("hosts")) as running:
        yield running


def ask(
    server: Server, host: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes]:
    """The status and the text of the answer to a request that asks for this host."""
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc)) as connection:
        connection.request(method, path, headers={"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 101),
        ("127.0.0.1:8501", 101),
        ("[::1]:8501", 101),
        *((host, 403) for host in FOREIGN),
    ],
)
def test_a_handshake_that_asks_for_a_foreign_host_is_refused(
    server: Server, host: str, status: int
) -> None:
    headers = HANDSHAKE | {"Origin": f"http://{host}"}
    assert ask(server, host, "/_stcore/stream", **headers)[0] == status


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_refuses_a_foreign_host(server: Server, method: str, path: str) -> None:
    for host in FOREIGN:
        assert ask(server, host, path, method) == REFUSED
    assert ask(server, "127.0.0.1:8501", path, method) != REFUSED


@pytest.mark.parametrize("host", ["localhost", *FOREIGN])
def test_the_health_check_answers_for_every_host(server: Server, host: str) -> None:
    assert ask(server, host, "/_stcore/health") == (200, b"ok")
