"""The files that visitors send: refused before they are read, and dropped where no page asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from dashboard.services import uploads
from dashboard.services.uploads import FRAME, MOST_BYTES, UploadGate, keep
from tests.faults.visitors import in_a_thread


class Server:
    """What stands behind the gate: it keeps every file, as Streamlit does."""

    def __init__(self) -> None:
        self.uploaded_file_mgr = MemoryUploadedFileManager("/_stcore/upload_file")

    async def __call__(self, scope, receive, send) -> None:
        *_, session, name = scope["path"].split("/")
        self.uploaded_file_mgr.add_file(session, UploadedFileRec(name, name, "image/png", b"x"))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def kept(self, session: str) -> list[str]:
        names = [f"{k}" for k in range(20)]
        return [rec.file_id for rec in self.uploaded_file_mgr.get_files(session, names)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(runtime, "get_instance", lambda: server)
    monkeypatch.setattr(uploads, "UNUSED_SECONDS", 0.01)
    uploads._files.clear()
    yield server
    uploads._files.clear()


async def put(
    server: Server, session: str, name: str, length: int | None = 1000, address: str = "127.0.0.1"
) -> tuple[int, str]:
    """The status and the text of the answer."""
    said: list[dict] = []

    async def send(message) -> None:
        said.append(message)

    async def receive() -> dict:
        return {"type": "http.request", "body": b"x"}

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    path = f"/_stcore/upload_file/{session}/{name}"
    client = (address, 1)
    scope = {"type": "http", "method": "PUT", "path": path, "headers": headers, "client": client}
    await UploadGate(server)(scope, receive, send)
    return said[0]["status"], said[1]["body"].decode()


def test_a_file_that_no_page_asks_for_is_dropped_and_one_of_a_field_is_kept(server: Server) -> None:
    async def scene() -> None:
        assert await put(server, "mine", "1") == (204, "")
        assert await put(server, "mine", "2") == (204, "")
        keep("2")
        assert server.kept("mine") == ["1", "2"]
        await asyncio.sleep(0.1)
        assert server.kept("mine") == ["2"]

    in_a_thread(scene())


def test_a_session_keeps_its_newest_three(server: Server) -> None:
    async def scene() -> None:
        for k in range(5):
            await put(server, "mine", f"{k}")
            keep(f"{k}")
        await put(server, "another", "0")
        assert server.kept("mine") == ["2", "3", "4"]
        assert server.kept("another") == ["0"]

    in_a_thread(scene())


def test_above_the_bytes_of_all_whoever_has_the_most_loses_the_oldest(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 10_000)

    async def scene() -> None:
        await put(server, "first", "0", 2000)
        for session in ("a", "b", "c", "d"):  # tabs of one visitor
            await put(server, session, "1", 2400, "10.0.0.9")
        assert server.kept("first") == ["0"]
        assert [server.kept(tab) for tab in "abcd"] == [[], ["1"], ["1"], ["1"]]

    in_a_thread(scene())


@pytest.mark.parametrize(("role", "most"), [("operator", 64), ("viewer", 16)])
def test_the_largest_file_follows_the_role(
    role: str, most: int, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", role)

    async def scene() -> None:
        assert (await put(server, "mine", "1", most * 2**20 + FRAME))[0] == 204
        refused = await put(server, "mine", "2", most * 2**20 + FRAME + 1)
        assert refused == (413, f"The file is larger than {most} MB.")
        assert await put(server, "mine", "3", None) == (
            411,
            "The request does not say how large the file is.",
        )
        assert server.kept("mine") == ["1"]

    in_a_thread(scene())


def test_files_on_their_way_count(server: Server) -> None:
    async def scene() -> None:
        coming = uploads._File("10.0.0.9", "mine", "0", MOST_BYTES // 4 - 1)
        assert uploads._admit(coming, local=False) is None
        busy = (503, "Many files are being sent at the moment. Try again in a minute.")
        assert await put(server, "mine", "1", 2, "10.0.0.9") == busy
        assert (await put(server, "another", "1", 2, "10.0.0.8"))[0] == 204

    in_a_thread(scene())
