"""Visitors of the public demo on Training, Sampling, Noising and Embedding, while small runs train.

    python -m benchmarks.crowd [--visitors 8] [--seconds 120] [--viewers] [--core 0]
                               [--cgroup FOLDER]

Starts a demo server of its own, with what Streamlit Community Cloud sets by force, and prints its
memory every ten seconds, how long the updates of the pages took and every error that was shown.
Each visitor runs whole pages again and again, which is more than a browser asks for, and on Noising
sends an image now and then; the first starts a demo run whenever none trains. `--viewers`: nobody
may train. `--core`: the server and its trainers may use this core only. `--cgroup`: they are put
into this memory control group, made with its limit before. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
from PIL import Image

from dashboard.services.demo import demo_runs
from diffusion_core.runs import jobs
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import ACTIVE, RunState
from tests import image_files
from tests.faults.visitors import Visitor

ROOT = Path(__file__).resolve().parents[1]
# What Streamlit Community Cloud sets whatever config.toml says.
FORCED = ["--server.runOnSave", "true", "--runner.fastReruns", "true"]
FORCED += ["--browser.gatherUsageStats", "true"]
PAGES = ("training", "sampling", "noising", "embedding")
MB = 2**20
UPLOAD_EVERY = 5  # how often a visitor of Noising sends an image

seeds = itertools.count(1)


class Seen:
    """What the visitors have seen so far."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {page: [] for page in PAGES}
        self.errors: list[str] = []
        self.images = 0

    async def show(
        self, visitor: Visitor, pressed: str | None = None, own: bytes | None = None
    ) -> None:
        """`own`: an image to upload."""
        began = time.monotonic()
        if own is None:
            await visitor.run(pressed)
        else:
            await visitor.show_own(own)
        self.seconds[visitor.page].append(time.monotonic() - began)
        self.errors += [f"{visitor.page}: {each.message}" for each in visitor.elements("exception")]
        self.errors += [
            f"{visitor.page}: {each.body}"
            for each in visitor.elements("alert")
            if each.format == each.ERROR
        ]


@functools.cache
def photo() -> bytes:
    """A JPEG of 1600 x 1200 pixels."""
    image = Image.effect_noise((400, 300), 60).resize((1600, 1200)).convert("RGB")
    return image_files.encode(image, "JPEG")


def active_runs(runs_dir: Path) -> list[Run]:
    runs = [Run(runs_dir / name) for name in demo_runs(runs_dir)]
    return [run for run in runs if run.state in ACTIVE]


async def visit(
    url: str, page: str, starts: bool, until: float, seen: Seen, runs_dir: Path
) -> None:
    query = "source=upload" if page == "noising" else f"n=4&steps=10&seed={next(seeds)}"
    async with Visitor(url, page, query) as visitor:
        while time.monotonic() < until:
            if page == "sampling":
                visitor.query = f"n=4&steps=10&seed={next(seeds)}"
                await seen.show(visitor)
                await seen.show(visitor, "Generate")
                while not visitor.elements("imgs") and time.monotonic() < until + 60:
                    await asyncio.sleep(0.5)
                    await seen.show(visitor)
                seen.images += 4
            else:
                visitor.query = f"t={next(seeds) % 300}"
                await seen.show(visitor)
                if page == "noising" and next(seeds) % UPLOAD_EVERY == 0:
                    await seen.show(visitor, own=photo())
                if starts and not active_runs(runs_dir):
                    await seen.show(visitor, "Start")
            await asyncio.sleep(2.0)


def family(server: psutil.Process) -> list[psutil.Process]:
    """The server and the trainers, which live in sessions of their own."""
    found = [server]
    if server.status() == psutil.STATUS_ZOMBIE:  # killed, for its memory perhaps
        return found
    runs = server.environ()["DIFFUSION_LAB_RUNS_DIR"]
    for process in psutil.process_iter(["cmdline"]):
        if process != server and any(runs in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


def memory(server: psutil.Process) -> tuple[float, float]:
    """MB that the server has for itself, and of all, shared pages counted once."""
    own, whole = 0.0, 0.0
    for process in family(server):
        try:
            info = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue  # a trainer that has just ended
        whole += info.pss / MB
        if process == server:
            own = info.uss / MB
    return own, whole


def wait_for_imports(server: psutil.Process) -> None:
    """The server answers before a thread of it has imported PyTorch; until it stops growing."""
    before, now = 0.0, memory(server)[0]
    while now - before > 1:
        time.sleep(3)
        before, now = now, memory(server)[0]


async def measure(
    url: str, server: psutil.Process, visitors: int, seconds: float, train: bool
) -> Seen:
    runs_dir = Path(server.environ()["DIFFUSION_LAB_RUNS_DIR"])
    seen, began = Seen(), time.monotonic()
    print(f"before anybody came: server {memory(server)[0]:.0f} MB")
    async with asyncio.TaskGroup() as group:
        for number in range(visitors):
            page = PAGES[number % len(PAGES)]
            starts, until = train and number == 0, began + seconds
            group.create_task(visit(url, page, starts, until, seen, runs_dir))
        while time.monotonic() < began + seconds:
            await asyncio.sleep(10)
            own, whole = await asyncio.to_thread(memory, server)
            print(f"{time.monotonic() - began:5.0f} s: server {own:.0f} MB, all {whole:.0f} MB")
    return seen


def start(
    folder: Path, viewers: bool, core: int | None, cgroup: Path | None
) -> tuple[str, subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]

    def limit() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if core is not None:
            os.sched_setaffinity(0, {core})

    role = {"DIFFUSION_LAB_ROLE": "viewer"} if viewers else {"DIFFUSION_LAB_DEMO": "1"}
    environment = os.environ | role | {"DIFFUSION_LAB_DEVICE": "cpu"}
    environment["DIFFUSION_LAB_RUNS_DIR"] = str(folder / "runs")
    command = [sys.executable, "-m", "streamlit", "run", "streamlit_app.py"]
    command += ["--server.address", "localhost", "--server.port", str(port), *FORCED]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, preexec_fn=limit
        )
    url = f"http://localhost:{port}"
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health"):
                return url, process
        except OSError:
            time.sleep(0.2)
    process.kill()
    raise SystemExit((folder / "server.log").read_text())


def report(seen: Seen, runs_dir: Path, log: str) -> None:
    for page, seconds in seen.seconds.items():
        if not (ranked := sorted(seconds)):
            continue
        high = ranked[int(0.95 * (len(ranked) - 1))]
        print(
            f"{page}: {len(ranked)} updates, median {statistics.median(ranked):.2f} s, "
            f"95 % within {high:.2f} s"
        )
    states = [Run(runs_dir / name).state for name in demo_runs(runs_dir)]
    finished = states.count(RunState.FINISHED)
    print(f"{seen.images} images sampled, {len(states)} runs started, {finished} finished")
    print(f"errors shown: {len(seen.errors)} {sorted(set(seen.errors))[:5]}")
    print(f"tracebacks in the server's log: {log.count('Traceback')}")
    print(log[log.rfind("Traceback") :] if "Traceback" in log else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--viewers", action="store_true")
    parser.add_argument("--core", type=int)
    parser.add_argument("--cgroup", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "runs").mkdir()
        (folder / "runs" / "demo-cars").symlink_to(ROOT / "checkpoints" / "demo-cars")
        url, process = start(folder, options.viewers, options.core, options.cgroup)
        server = psutil.Process(process.pid)
        try:
            wait_for_imports(server)
            train = not options.viewers
            seen = asyncio.run(measure(url, server, options.visitors, options.seconds, train))
            left = time.monotonic()
            for seconds in (10, 150):  # Streamlit keeps a session for two minutes
                time.sleep(left + seconds - time.monotonic())
                print(f"{seconds} s after they left: server {memory(server)[0]:.0f} MB")
            report(seen, folder / "runs", (folder / "server.log").read_text())
        finally:
            for run in active_runs(folder / "runs"):
                jobs.request(run, "stop")
            trainers = family(server)[1:]
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            for trainer in trainers:
                trainer.wait(60)


if __name__ == "__main__":
    main()
