"""Many people who watch one live run: what they cost the server, and how late they see it.

    python -m benchmarks.watchers [--watchers 25] [--seconds 30] [--page training] [--data cars:500]

Starts the real server in a folder of its own with a tiny run, connects the watchers
over the websocket and asks again as often as the server tells a browser to. Prints, for one watcher
and for all of them:

- the server's CPU in cores;
- the delay: from a step's arrival in `status.json` until a watcher was sent it or a later one;
- bytes sent to a watcher a second;
- the training's speed relative to its speed alone. The watchers compute here too. `corrected` takes
  their part out: as many cores as they used are taken to have been missing to the training.

The server's CPU is read from the operating system, without the processes that it has started. Run
it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.timing import machine
from diffusion_core.runs import jobs
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run

BATCH = 8
PATIENCE_SECONDS, SETTLE_SECONDS = 120.0, 4.0
TINY = {"widths": [16, 32], "blocks": 1, "attention_levels": [1], "patch": 2}
STEP = re.compile(r"[Ss]tep ([\d,]+)")


@contextmanager
def server(
    runs_dir: Path, script: str = "streamlit_app.py"
) -> Iterator[tuple[str, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    command = [sys.executable, "-m", "streamlit", "run", script, "--server.port"]
    with (runs_dir.parent / f"{Path(script).stem}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, str(port)],
            env=os.environ | {"DIFFUSION_LAB_RUNS_DIR": str(runs_dir)},
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(240):
            with suppress(OSError):
                urllib.request.urlopen(f"{url}/_stcore/health").close()
                break
            time.sleep(0.25)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


class Watcher:
    """A browser tab as far as the server can tell: it asks for the fragments when they are due."""

    def __init__(self, url: str, page: str, query: str) -> None:
        self.address = url.replace("http", "ws", 1) + "/_stcore/stream"
        self.page, self.query = page, query
        self.seen: list[tuple[float, int]] = []  # when which step was sent
        self.bytes = self.updates = 0
        self.cached: set[str] = set()  # messages that the server need not send again
        self.shown = ""  # the page's hash; without it a rerun that a fragment asks for shows Home
        self.timers: dict[str, tuple[float, asyncio.Task]] = {}  # interval, by fragment

    async def watch(self, until: float) -> None:
        limit = max(0.0, until - time.time())
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(limit),
                connect(
                    self.address, subprotocols=[Subprotocol("streamlit")], max_size=None
                ) as socket,
            ):
                try:
                    await self._ask(socket)
                    async for received in socket:
                        assert isinstance(received, bytes)
                        self._take(socket, received)
                finally:
                    for _, timer in self.timers.values():
                        timer.cancel()

    async def _ask(self, socket: ClientConnection, fragment: str = "") -> None:
        message = BackMsg()
        rerun = message.rerun_script
        rerun.page_name = "" if self.shown else self.page
        rerun.page_script_hash, rerun.query_string = self.shown, self.query
        rerun.fragment_id, rerun.is_auto_rerun = fragment, bool(fragment)
        rerun.cached_message_hashes.extend(self.cached)
        await socket.send(message.SerializeToString())

    async def _ask_again(self, socket: ClientConnection, fragment: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self._ask(socket, fragment)

    def _take(self, socket: ClientConnection, received: bytes) -> None:
        self.bytes += len(received)
        message = ForwardMsg.FromString(received)
        kind = message.WhichOneof("type")
        if message.metadata.cacheable:
            self.cached.add(message.hash)
        if kind == "auto_rerun":
            fragment, interval = message.auto_rerun.fragment_id, message.auto_rerun.interval
            before = self.timers.get(fragment)
            if before is None or before[0] != interval:
                if before is not None:
                    before[1].cancel()
                timer = asyncio.create_task(self._ask_again(socket, fragment, interval))
                self.timers[fragment] = (interval, timer)
        elif kind == "navigation":
            self.shown = message.navigation.page_script_hash
        elif kind == "script_finished":
            self.updates += 1
        elif kind == "delta":
            element = message.delta.new_element
            if element.WhichOneof("type") == "exception":
                raise RuntimeError(element.exception.message)
            text = element.progress.text or element.markdown.body
            if found := STEP.search(text):
                self.seen.append((time.time(), int(found[1].replace(",", ""))))


async def note_steps(run: Run, written: list[tuple[float, int]]) -> None:
    """When each step came to be in `status.json`, by the file's own time."""
    file = run.path / "status.json"
    while True:
        with suppress(FileNotFoundError):
            at = file.stat().st_mtime
            if not written or at != written[-1][0]:
                written.append((at, run.status.step))
        await asyncio.sleep(0.05)


def delays(written: list[tuple[float, int]], seen: list[tuple[float, int]]) -> list[float]:
    """From each step's writing until the first message with it or a later one."""
    found, k = [], 0
    for at, step in written:
        while k < len(seen) and (seen[k][1] < step or seen[k][0] < at):
            k += 1
        if k < len(seen):
            found.append(seen[k][0] - at)
    return found


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class Result(NamedTuple):
    """Of one phase."""

    cores: float  # of the server
    updates: float  # a second, of all watchers together
    delays: list[float]
    bytes: float  # to a watcher a second
    speed: float  # of the training, images a second
    own: float  # cores of this process


async def phase(
    url: str, process: psutil.Process, run: Run, page: str, watchers: int, seconds: float
) -> Result:
    """Measured from when every watcher has been shown a step."""
    people = [Watcher(url, page, f"run={run.name}") for _ in range(watchers)]

    async def come(person: Watcher) -> None:
        await asyncio.sleep(random.random() * 0.2 * watchers)
        await person.watch(time.time() + PATIENCE_SECONDS + seconds)

    written: list[tuple[float, int]] = []
    noting = asyncio.create_task(note_steps(run, written))
    coming = [asyncio.create_task(come(person)) for person in people]
    late = time.time() + PATIENCE_SECONDS
    while not all(person.seen for person in people):
        if time.time() > late or any(task.done() for task in coming):
            raise RuntimeError("A watcher was shown no step, or was sent away.")
        await asyncio.sleep(0.2)
    await asyncio.sleep(SETTLE_SECONDS)  # the last have set the pace of all
    begin, server_cpu, own_cpu, first = (
        time.time(), cpu(process), time.process_time(), run.status.step
    )  # fmt: skip
    before = [(person.bytes, person.updates) for person in people]
    await asyncio.sleep(seconds)
    end = time.time()
    took = end - begin
    cores, own = (cpu(process) - server_cpu) / took, (time.process_time() - own_cpu) / took
    speed = BATCH * (run.status.step - first) / took
    sent = [person.bytes - b for person, (b, _) in zip(people, before, strict=True)]
    updates = [person.updates - u for person, (_, u) in zip(people, before, strict=True)]
    for task in (noting, *coming):
        task.cancel()
    await asyncio.gather(noting, *coming, return_exceptions=True)
    # What was written at last has not reached all yet.
    steps = [(at, step) for at, step in written if begin <= at <= end - 5]
    found = [delay for person in people for delay in delays(steps, person.seen)]
    if len(found) < 2:
        raise RuntimeError("Too few steps were written meanwhile; take more --seconds.")
    return Result(cores, sum(updates) / took, found, statistics.mean(sent) / took, speed, own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--watchers", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--page", default="training", help="training, sampling or empty for Home")
    parser.add_argument("--data", default="cars:500")
    args = parser.parse_args()
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        runs_dir = Path(folder) / "runs"
        config = preset("small").replace(
            data=args.data, image_size=32, network_args=TINY, batch_size=BATCH, steps=10**6,
            sample_every=200, checkpoint_every=500,
        )  # fmt: skip
        with server(runs_dir) as (url, process):
            run = jobs.start(runs_dir, "live", config, "cpu")
            try:
                while (run.status.step or 0) < 20:
                    if run.state in ("failed", "lost"):
                        raise RuntimeError(f"The training ended: {run.status.error}")
                    time.sleep(0.2)
                print(f"idle server, resident: {process.memory_info().rss / 1e6:.0f} MB")
                begin, first = time.time(), run.status.step
                time.sleep(args.seconds)
                alone = BATCH * (run.status.step - first) / (time.time() - begin)
                print(f"training alone: {alone:.1f} images/s")
                for watchers in (1, args.watchers):
                    found = asyncio.run(phase(url, process, run, args.page, watchers, args.seconds))
                    cores = psutil.cpu_count() or 1
                    kept = found.speed / alone
                    print(
                        f"{watchers} watching {args.page or 'home'}: server {found.cores:.2f} of a "
                        f"core, {found.updates:.1f} updates/s, "
                        f"{1000 * found.cores / max(found.updates, 0.1):.0f} ms of CPU each; delay "
                        f"{statistics.median(found.delays):.2f} s, 95th percentile "
                        f"{statistics.quantiles(found.delays, n=20)[-1]:.2f} s; "
                        f"{found.bytes / 1000:.1f} kB/s each; training {kept:.2f} of alone, "
                        f"corrected {min(1.0, kept * cores / (cores - found.own)):.2f} (the "
                        f"watchers used {found.own:.2f} of a core); server "
                        f"{process.memory_info().rss / 1e6:.0f} MB"
                    )
            finally:
                jobs.request(run, "stop")
                while run.state in ("starting", "running", "stopping"):
                    time.sleep(0.1)


if __name__ == "__main__":
    main()
