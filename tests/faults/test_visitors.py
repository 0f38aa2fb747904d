"""Visitors open the Sampling page, sample and leave; the server keeps nothing of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.browser.server import Server, start_server
from tests.faults.processes import wait_until
from tests.faults.visitors import Visitor, in_a_thread, metric
from tests.tiny_runs import write_run

AT_ONCE = 100  # connections that are open together; three times as many visitors in all
DRAWING = 6  # of them that draw at a time: the line of a device is not endless
MOST_ROUNDS = 6
MB = 10**6
# 100 sessions take about 10 MB: what a server that lets none go would grow by. Without a leak it
# was within 4 MB either way.
MOST_GROWTH = 6 * MB
OF_ONE = 20_000  # bytes of images that the server holds for one visitor's browser, at most
IMAGES = 'cache_memory_bytes{cache_type="st_memory_media_file_storage"'


SEEDS = itertools.count()  # every visitor draws another image


async def come_sample_and_go(server: Server, visitors: int) -> None:
    """All are there when the first draws, and all stay until the last has its image."""
    turns = asyncio.Semaphore(DRAWING)
    everybody = asyncio.Barrier(visitors)

    async def visit(number: int) -> None:
        query = f"n=1&steps=1&seed={next(SEEDS)}"
        async with Visitor(server.url, "sampling", query) as visitor:
            await everybody.wait()
            async with turns:
                await visitor.run(pressed="Generate")
                while not visitor.elements("imgs"):
                    assert not visitor.elements("exception"), visitor.elements("exception")
                    await asyncio.sleep(0.5)
                    await visitor.run()
            if number == 0:
                assert metric(server.url, "active_sessions") == visitors
            await everybody.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(visitors):
            group.create_task(visit(number))


def memory_left(server: Server) -> int:
    """The server's own memory in bytes; it forgets and collects when somebody comes and leaves."""
    in_a_thread(come_sample_and_go(server, 1))
    wait_until(lambda: metric(server.url, "active_sessions") == 0, "everybody is gone")
    return psutil.Process(server.process.pid).memory_full_info().uss


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One with a run, started as a user starts it: a fork's memory is partly its parent's."""
    # It does not wait whether somebody comes back.
    monkeypatch.setenv("STREAMLIT_SERVER_DISCONNECTED_SESSION_TTL", "0")
    with start_server(tmp_path, forked=False) as running:
        write_run(running.runs_dir, "tiny", 20)
        yield running
        assert running.process.poll() is None
        assert "Traceback" not in running.log.read_text()


def wait_until_images_are_gone(server: Server) -> None:
    """The server takes a new look at them only now and then: when somebody comes and leaves."""

    def gone() -> bool:
        in_a_thread(come_sample_and_go(server, 1))
        return 0 < metric(server.url, IMAGES) < 5 * OF_ONE

    wait_until(gone, "the images are gone")


@pytest.mark.long
def test_nothing_is_kept_of_visitors_who_have_sampled_and_left(server: Server) -> None:
    in_a_thread(come_sample_and_go(server, 20))
    wait_until(lambda: metric(server.url, "active_sessions") == 0, "everybody is gone")
    wait_until_images_are_gone(server)


@pytest.mark.long
def test_memory_returns_when_hundreds_of_visitors_have_sampled_and_left(server: Server) -> None:
    """A leak grows with every hundred; heaps that still find their size grow now and then."""
    left = []
    for _ in range(MOST_ROUNDS):
        in_a_thread(come_sample_and_go(server, AT_ONCE))
        left.append(memory_left(server))
        if len(left) > 2 and left[-1] - left[-2] < MOST_GROWTH:
            break
    else:
        growth = [(after - before) / MB for before, after in itertools.pairwise(left)]
        pytest.fail(f"every hundred visitors leave memory behind, in MB: {growth}")
    wait_until_images_are_gone(server)
