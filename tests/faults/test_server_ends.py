"""Real servers: SIGTERM under way, and two of them on one folder of runs."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.runs import jobs
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import RunState, write_status
from diffusion_core.sampling.series import list_series
from tests.browser.server import PATIENCE_SECONDS, Server, start_server
from tests.faults.processes import end_processes_of, tiny, wait_for_state, wait_until
from tests.faults.visitors import Visitor, run_apart
from tests.tiny_runs import TINY, write_run

pytestmark = pytest.mark.long

# A step takes milliseconds, the whole minutes.
LONG = TINY.replace(schedule={"kind": "cosine", "timesteps": 1000})


def logged(runs_dir: Path) -> list[dict[str, Any]]:
    """The lines of all servers of the folder."""
    files = (runs_dir / ".logs").glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_sigterm_ends_a_sampling_and_a_series_within_seconds_while_their_pages_are_open(
    tmp_path: Path,
) -> None:
    with start_server(tmp_path) as server:
        run = Run(write_run(server.runs_dir, "long", 20, config=LONG))

        async def visit() -> None:
            most = "sampler=ddpm&steps=1000"
            async with (
                Visitor(server.url, "sampling", f"mode=Batch&many=4000&{most}") as many,
                Visitor(server.url, "sampling", f"n=64&{most}") as few,
            ):
                await many.run(pressed="Generate in background")
                wait_until(lambda: list_series(run.path)[0].state == "running", "it goes on")
                await few.run(pressed="Generate")
                begun = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS)
                assert time.monotonic() - begun < 10

        run_apart(visit())
        assert list_series(run.path)[0].state == "stopped"
        lines = logged(server.runs_dir)
        assert [line["event"] for line in lines] == [
            "server started",
            "sampling submitted",
            "series started",
            "sampling submitted",
            "sampling cancelled",
            "sampling cancelled",
            "server stopped",
        ]
        ended = {line["order"]: line for line in lines if line["event"] == "sampling cancelled"}
        assert [ended[order]["run"] for order in (0, 1)] == ["long", "long"]
        assert ended[0]["session"] != ended[1]["session"]
        assert "the server is shutting down" in ended[1]["reason"]
        assert "Traceback" not in server.log.read_text()

    # The next server goes on with it.
    with start_server(tmp_path) as server:

        async def resume() -> None:
            async with Visitor(server.url, "sampling", "mode=Batch") as visitor:
                await visitor.run(pressed="Resume")
                wait_until(lambda: list_series(run.path)[0].state == "running", "it is resumed")

        run_apart(resume())


@pytest.fixture
def two_servers(tmp_path: Path) -> Iterator[list[Server]]:
    (tmp_path / "shared").mkdir()
    with ExitStack() as stack:
        servers = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            server = start_server(
                tmp_path / name,
                RUNS_DIR=str(tmp_path / "shared"),
                CACHE_DIR=str(tmp_path / "cache"),
            )
            servers.append(stack.enter_context(server))
        yield servers
        end_processes_of(tmp_path)


def test_of_two_servers_on_one_folder_one_starts_a_queued_run_and_both_show_it(
    two_servers: list[Server], tmp_path: Path
) -> None:
    # As after a restart of the machine: the runs wait as folders, and no process knows of them.
    runs = []
    for number in range(4):
        run = jobs.create(tmp_path / "shared", f"waits-{number}", tiny(steps=2))
        queued = run.status.replace(
            state=RunState.QUEUED,
            queued_at=time.time(),
            host=socket.gethostname(),
            device="cpu",
        )
        write_status(run.path, queued)
        runs.append(run)
    for run in runs:
        wait_for_state(run, "finished")
        assert (run.path / "train.log").read_text().count("48 images") == 1  # prepared once

    async def look(server: Server) -> None:
        async with Visitor(server.url, "training", "") as visitor:
            shown = " ".join(str(message) for message in visitor.shown)
            assert all(run.name in shown for run in runs)

    for server in two_servers:
        with urllib.request.urlopen(f"{server.url}/_stcore/health") as answer:
            assert (answer.status, answer.read()) == (200, b"ok")
        run_apart(look(server))
    started = [
        line["run"] for line in logged(tmp_path / "shared") if line["event"] == "run started"
    ]
    assert len(started) == len(set(started)) >= 1  # the others were started by trainers that ended
