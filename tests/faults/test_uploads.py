"""Files for a real server: those that no page has a field for, and large ones in many tabs."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from PIL import Image
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
from streamlit.proto.WidgetStates_pb2 import WidgetState

from dashboard.services.uploads import UNUSED_SECONDS
from tests import image_files
from tests.browser.server import Server, start_server
from tests.faults.processes import wait_until
from tests.faults.visitors import Visitor, metric, run_apart

MB = 2**20
REFUSED = 0  # the server answered and closed the connection while the body was being sent
FORMULA = r"\,x_0 + "  # below which the images are
KEPT = 'cache_memory_bytes{cache_type="UploadedFileManager"'


def put(server: Server, session: str, name: str, content: bytes) -> int:
    """Send a file to the upload address as a script would; returns the status."""
    token = "2|0a0b0c0d|" + "00" * 16 + "|1700000000"
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--x--\r\n"
    )
    request = urllib.request.Request(
        f"{server.url}/_stcore/upload_file/{session}/{name}",
        body,
        {
            "Content-Type": "multipart/form-data; boundary=x",
            "Cookie": f"_streamlit_xsrf={token}",
            "X-Xsrftoken": token,
        },
        method="PUT",
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return REFUSED


def session_of(visitor: Visitor) -> str:
    [found] = [
        m.new_session.initialize.session_id
        for m in visitor.shown
        if m.WhichOneof("type") == "new_session"
    ][:1]
    return found


@pytest.mark.long
def test_files_without_a_field_are_not_kept(tmp_path: Path) -> None:
    async def come(server: Server) -> None:
        async with Visitor(server.url, "noising", "source=upload") as visitor:
            session = session_of(visitor)
            send = asyncio.to_thread
            assert await send(put, server, session, "large", bytes(18 * MB)) in (413, REFUSED)
            for k in range(6):
                assert await send(put, server, session, f"{k}", bytes(10 * MB)) == 204
            assert metric(server.url, KEPT) <= 30 * MB
            await asyncio.sleep(UNUSED_SECONDS + 2)
            assert metric(server.url, KEPT) == 0

    with start_server(tmp_path, ROLE="viewer") as server:
        run_apart(come(server))


def rgba_of_50_megapixels() -> bytes:
    return image_files.encode(Image.new("RGBA", (8660, 5773), (200, 30, 30, 128)), "PNG")


async def show_own(server: Server, visitor: Visitor, content: bytes) -> list[str]:
    """Send a file for the field of the Noising page as a browser does; returns what is said."""
    session = session_of(visitor)
    [field] = visitor.elements("file_uploader")
    name = f"{session}-file"
    assert await asyncio.to_thread(put, server, session, name, content) == 204
    message = BackMsg()
    message.rerun_script.page_name = visitor.page
    message.rerun_script.query_string = visitor.query
    info = UploadedFileInfo(file_id=name, name="a.png", size=len(content))
    address = f"/_stcore/upload_file/{session}/{name}"
    info.file_urls.file_id, info.file_urls.upload_url = name, address
    state = FileUploaderState(uploaded_file_info=[info])
    message.rerun_script.widget_states.widgets.append(
        WidgetState(id=field.id, file_uploader_state_value=state)
    )
    await visitor.send(message)
    said = [each.body for each in visitor.elements("markdown")]
    return [*said, *(each.body for each in visitor.elements("alert"))]


class Memory:
    """The most memory that a server and its children took, looked at all the time."""

    def __init__(self, server: Server) -> None:
        self.process = psutil.Process(server.process.pid)
        self.most = 0

    def now(self) -> int:
        total = 0
        for each in (self.process, *self.process.children(recursive=True)):
            try:
                total += each.memory_full_info().uss
            except psutil.Error:
                continue
        return total

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, await asyncio.to_thread(self.now))
            await asyncio.sleep(0.02)


@pytest.mark.long
def test_twenty_tabs_with_fifty_megapixels_each(tmp_path: Path) -> None:
    """The server and its processes grow by less than 300 MB, and fall back."""

    async def come(server: Server, tabs: int) -> None:
        content = rgba_of_50_megapixels()
        memory = Memory(server)
        async with Visitor(server.url, "noising", "source=upload") as first:
            said = await show_own(server, first, image_files.halves("PNG"))
            assert any(FORMULA in each for each in said), said
        await asyncio.sleep(2)
        before = memory.now()
        watch = asyncio.create_task(memory.watch())

        async def one() -> list[str]:
            async with Visitor(server.url, "noising", "source=upload") as visitor:
                return await show_own(server, visitor, content)

        began = time.monotonic()
        for said in await asyncio.gather(*(one() for _ in range(tabs))):
            assert any(FORMULA in each or "Many images" in each for each in said), said
        took = time.monotonic() - began
        watch.cancel()
        print(
            f"{tabs} tabs in {took:.0f} s: before {before / MB:.0f} MB, most "
            f"{memory.most / MB:.0f} MB"
        )
        assert memory.most - before < 300 * MB
        wait_until(lambda: memory.now() - before < 30 * MB, "the memory is back")
        print(f"after {memory.now() / MB:.0f} MB")

    with start_server(tmp_path, forked=False, ROLE="viewer") as server:
        run_apart(come(server, 20))
