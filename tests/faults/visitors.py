"""Visitors without a browser: they speak to a real server as its page in the browser does."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

PATIENCE_SECONDS = 90


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
        self.headers = headers
        self.subprotocols = [Subprotocol(each) for each in subprotocols]
        self.address = url.replace("http", "ws", 1) + "/_stcore/stream"
        self.page, self.query = page, query
        self.shown: list[ForwardMsg] = []  # since the page was run last
        self.socket: ClientConnection | None = None

    async def __aenter__(self) -> Visitor:
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
        assert self.socket is not None
        message = BackMsg()
        message.rerun_script.page_name = self.page
        message.rerun_script.query_string = self.query
        if pressed is not None:
            button = WidgetState(id=self.button(pressed), trigger_value=True)
            message.rerun_script.widget_states.widgets.append(button)
        await self.send(message)

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
