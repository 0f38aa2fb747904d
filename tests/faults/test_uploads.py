"""Files for a real server: those that no page has a field for, and large ones in many tabs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from dashboard.services.uploads import UNUSED_SECONDS
from tests import image_files
from tests.browser.server import Server, start_server
from tests.faults.processes import wait_until
from tests.faults.visitors import REFUSED, Visitor, in_a_thread, metric

MB = 2**20
BELOW = "Given the image, each value"  # the text below the images
KEPT = 'cache_memory_bytes{cache_type="UploadedFileManager"'


@pytest.mark.long
def test_files_without_a_field_are_not_kept(tmp_path: Path) -> None:
    async def come(server: Server) -> None:
        async with Visitor(server.url, "noising", "source=upload") as visitor:
            assert await visitor.put("large", bytes(18 * MB)) in (413, REFUSED)
            for k in range(6):
                assert await visitor.put(f"{k}", bytes(10 * MB)) == 204
            assert metric(server.url, KEPT) <= 30 * MB
            await asyncio.sleep(UNUSED_SECONDS + 2)
            assert metric(server.url, KEPT) == 0

    with start_server(tmp_path, ROLE="viewer") as server:
        in_a_thread(come(server))


def rgba_of_50_megapixels() -> bytes:
    return image_files.encode(Image.new("RGBA", (8660, 5773), (200, 30, 30, 128)), "PNG")


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
            said = await first.show_own(image_files.halves("PNG"))
            assert any(BELOW in each for each in said), said
        await asyncio.sleep(2)
        before = memory.now()
        watch = asyncio.create_task(memory.watch())

        async def one() -> list[str]:
            async with Visitor(server.url, "noising", "source=upload") as visitor:
                return await visitor.show_own(content)

        began = time.monotonic()
        for said in await asyncio.gather(*(one() for _ in range(tabs))):
            assert any(BELOW in each or "Many images" in each for each in said), said
        took = time.monotonic() - began
        watch.cancel()
        print(
            f"{tabs} tabs in {took:.0f} s: before {before / MB:.0f} MB, most "
            f"{memory.most / MB:.0f} MB"
        )
        assert memory.most - before < 300 * MB
        wait_until(lambda: memory.now() - before < 60 * MB, "the memory is back")
        print(f"after {memory.now() / MB:.0f} MB")

    with start_server(tmp_path, forked=False, ROLE="viewer") as server:
        in_a_thread(come(server, 20))
