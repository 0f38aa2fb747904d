"""Visitors without a browser: they speak to a real server as its page in the browser does."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

PATIENCE_SECONDS = 90
REFUSED = 0  # the server answered and closed the connection while a body was being sent


class Visitor:
    """One connection that shows one page.

    `async with Visitor(url, "sampling", "n=1&steps=1") as visitor` opens it; leaving closes it.
    """

    def __init__(
        self,
        url: str,
        page: str,
        query: str,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = ("streamlit",),
    ) -> None:
        self.url, self.headers = url, headers
        self.subprotocols = [Subprotocol(each) for each in subprotocols]
        self.address = url.replace("http", "ws", 1) + "/_stcore/stream"
        self.page, self.query = page, query
        self.shown: list[ForwardMsg] = []  # since the page was run last
        self.socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        self.socket = await connect(
            self.address,
            subprotocols=self.subprotocols,
            max_size=None,
            additional_headers=self.headers,
        )
        await self.run()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.socket is not None
        await self.socket.close()

    async def run(self, pressed: str | None = None) -> None:
        """Run the page, with a button pressed, and wait until it has been shown."""
        changed = []
        if pressed is not None:
            changed.append(WidgetState(id=self.button(pressed), trigger_value=True))
        await self.send(self.message(changed))

    def message(self, changed: Sequence[WidgetState]) -> BackMsg:
        """What a browser sends when controls were changed."""
        message = BackMsg()
        message.rerun_script.page_name = self.page
        message.rerun_script.query_string = self.query
        message.rerun_script.widget_states.widgets.extend(changed)
        return message

    async def put(self, name: str, content: bytes) -> int:
        """Send a file to the upload address, whether a field asks for it or not; returns the
        status."""
        token = "2|0a0b0c0d|" + "00" * 16 + "|1700000000"
        body = (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
            b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--x--\r\n"
        )
        request = urllib.request.Request(
            f"{self.url}{self._upload_address(name)}",
            body,
            {
                "Content-Type": "multipart/form-data; boundary=x",
                "Cookie": f"_streamlit_xsrf={token}",
                "X-Xsrftoken": token,
            },
            method="PUT",
        )

        def send() -> int:
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code
            except urllib.error.URLError:
                return REFUSED

        return await asyncio.to_thread(send)

    async def show_own(self, content: bytes) -> list[str]:
        """Choose an image in the page's only field for files; returns what the page says."""
        [field] = self.elements("file_uploader")
        name = str(uuid.uuid4())  # as a browser does: by its name the server knows an image again
        assert await self.put(name, content) == 204
        info = UploadedFileInfo(file_id=name, name="a.png", size=len(content))
        info.file_urls.file_id, info.file_urls.upload_url = name, self._upload_address(name)
        state = FileUploaderState(uploaded_file_info=[info])
        await self.send(self.message([WidgetState(id=field.id, file_uploader_state_value=state)]))
        said = [each.body for each in self.elements("markdown")]
        return [*said, *(each.body for each in self.elements("alert"))]

    def _upload_address(self, name: str) -> str:
        [session] = [
            message.new_session.initialize.session_id
            for message in self.shown
            if message.WhichOneof("type") == "new_session"
        ][:1]
        return f"/_stcore/upload_file/{session}/{name}"

    async def send(self, message: BackMsg) -> None:
        """Send a message that runs the page, and wait until it has been shown."""
        assert self.socket is not None
        self.shown = []
        await self.socket.send(message.SerializeToString())
        while True:
            received = await asyncio.wait_for(self.socket.recv(), PATIENCE_SECONDS)
            assert isinstance(received, bytes)
            found = ForwardMsg.FromString(received)
            self.shown.append(found)
            ended = found.WhichOneof("type") == "script_finished"
            if ended and found.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return  # a page that starts itself again ends otherwise

    def elements(self, kind: str) -> list:
        """The elements of a kind, as Streamlit's protocol calls it."""
        new = [m.delta.new_element for m in self.shown if m.WhichOneof("type") == "delta"]
        return [getattr(element, kind) for element in new if element.WhichOneof("type") == kind]

    def button(self, label: str) -> str:
        [found] = [button.id for button in self.elements("button") if button.label == label]
        return found


def metric(url: str, name: str) -> float:
    """What the server says of itself at /_stcore/metrics: the sum of the lines that start so."""
    with urllib.request.urlopen(f"{url}/_stcore/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """A browser test before this one may have left an event loop in the main thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
