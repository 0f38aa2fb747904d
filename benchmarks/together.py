"""Training, sampling and looking at pages at the same time, in ratios to each alone, in one run.

    python -m benchmarks.together [--seconds 30] [--data cars:2000]

On the CPU: preset `small` in batches of 32, and 16 images of the shipped run by DPM-Solver++ in 20
steps, sampled without pause through the dashboard's queue. Each phase lasts `--seconds`, once the
trainer has begun:

- training alone, sharing the cores as always, and with `threads` fixed to all of them;
- one visitor who samples, and two;
- training and one visitor at the same time; the same without sharing, as two programs do that know
  nothing of each other: the plain way;
- a timestep is changed on the Schedule and the Noising page, idle and while a run trains.

Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from streamlit.testing.v1 import AppTest

from benchmarks.timing import machine
from dashboard.services.sampling_queue import SamplingQueue
from dashboard.services.sampling_tasks import sample_task
from dashboard.ui.navigation import FOLDER
from diffusion_core.cores import computing, usable_cores
from diffusion_core.runs import jobs
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run, load_run
from diffusion_core.sampling.spec import SamplingSpec

BATCH = 32
PAGES = {"Schedule": ("schedule.py", "t"), "Noising": ("noising.py", "t")}
CPU = torch.device("cpu")
ALONE, ONE_VISITOR = "training alone", "one visitor"  # the phases that others are compared with


class Speed(NamedTuple):
    """Of one phase; None for what did not go on."""

    training: float | None  # images per second
    waited: float | None  # seconds for 16 images, the median over all visitors


@contextmanager
def training(runs_dir: Path, data: str, threads: int) -> Iterator[Run]:
    """A run that trains in the background and has made its first steps."""
    config = preset("small").replace(
        data=data, batch_size=BATCH, threads=threads, steps=10**6, sample_every=0,
        validate_every=0, checkpoint_every=0,
    )  # fmt: skip
    run = jobs.start(runs_dir, f"run-{time.time_ns()}", config, "cpu")
    while (run.status.step or 0) < 3:
        if run.state in ("failed", "lost"):
            raise RuntimeError(f"The training ended: {run.status.error}")
        time.sleep(0.2)
    try:
        yield run
    finally:
        jobs.request(run, "stop")
        while run.state in ("running", "stopping"):
            time.sleep(0.1)


def images_per_second(run: Run, begin: float, end: float) -> float:
    """By the times of the steps that lie between two times."""
    times = run.curve("loss")["wall_time"]
    times = times[(times >= begin) & (times <= end)]
    if len(times) < 2:
        raise SystemExit("Too few steps were made in a phase; give more --seconds.")
    return BATCH * (len(times) - 1) / float(times[-1] - times[0])


def visit(queue: SamplingQueue, until: float, waited: list[float]) -> None:
    """Sample again and again; a visitor sees the page once a second."""
    checkpoint = load_run(Path("checkpoints/demo-cars")).latest_checkpoint()
    assert checkpoint is not None
    spec = SamplingSpec(
        run="demo-cars", step=checkpoint.step, n=16, sampler="dpmpp_2m", steps=20,
        classes=checkpoint.classes, label=checkpoint.classes[0],
    )  # fmt: skip
    while time.time() < until:
        began = time.monotonic()
        job = queue.submit(sample_task(spec, checkpoint))
        while not job.wait(1):
            job.snapshot()
        if job.snapshot().state != "done":
            raise RuntimeError(job.snapshot().sentence)
        waited.append(time.monotonic() - began)


def phase(
    runs_dir: Path, seconds: float, *, data: str = "", visitors: int = 0, shares: bool = True
) -> Speed:
    """Train on `data` while `visitors` sample; neither where it is empty or 0."""
    checkpoint = load_run(Path("checkpoints/demo-cars")).latest_checkpoint()
    assert checkpoint is not None
    model = load_model(checkpoint)
    share = (lambda: computing(runs_dir)) if shares else nullcontext
    queue = SamplingQueue(lambda *which: model, computing=share)
    waited: list[float] = []
    threads = 0 if shares else usable_cores()
    with training(runs_dir, data, threads) if data else nullcontext() as run:
        begin = time.time()
        guests = [
            threading.Thread(target=visit, args=(queue, begin + seconds, waited))
            for _ in range(visitors)
        ]
        for guest in guests:
            guest.start()
        time.sleep(seconds)
        for guest in guests:
            guest.join()
        end = time.time()
    # After the trainer has written the numbers of its last steps.
    speed = images_per_second(run, begin, end) if run else None
    return Speed(speed, statistics.median(waited) if waited else None)


def reaction(page: str, seconds: float) -> float:
    """Median seconds from a new timestep to the finished script of a page."""
    file, key = PAGES[page]
    app = AppTest.from_file(str(FOLDER.parent / "dashboard" / "shell.py"), default_timeout=60).run()
    app.switch_page(str(FOLDER / file)).run()
    found, t, end = [], 10, time.monotonic() + seconds
    while time.monotonic() < end:
        t = 10 + (t + 37) % 200
        began = time.perf_counter()
        app.query_params[key] = str(t)
        app.run()
        found.append(time.perf_counter() - began)
        time.sleep(0.2)
    assert not app.exception
    return statistics.median(found)


def reactions(seconds: float) -> dict[str, float]:
    return {page: reaction(page, seconds / len(PAGES)) for page in PAGES}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--data", default="cars:2000")
    given = parser.parse_args()
    print(machine(CPU))
    with tempfile.TemporaryDirectory() as folder:
        runs_dir = Path(folder)

        def take(**what: object) -> Speed:
            return phase(runs_dir, given.seconds, **what)  # type: ignore[arg-type]

        speeds = {
            ALONE: take(data=given.data),
            "training alone, threads fixed": take(data=given.data, shares=False),
            ONE_VISITOR: take(visitors=1),
            "two visitors": take(visitors=2),
            "training and a visitor": take(data=given.data, visitors=1),
            "the same without sharing": take(data=given.data, visitors=1, shares=False),
        }
        idle = reactions(given.seconds)
        with training(runs_dir, given.data, 0):
            busy = reactions(given.seconds)
    report(speeds, idle, busy)


def report(speeds: dict[str, Speed], idle: dict[str, float], busy: dict[str, float]) -> None:
    def ratio(value: float | None, of: float | None) -> str:
        return f"{value / of:.2f}" if value and of else "-"

    alone, one = speeds[ALONE].training, speeds[ONE_VISITOR].waited
    print("| | training, images/s | of alone | 16 images, s | × alone |")
    print("|---|---|---|---|---|")
    for name, (speed, waited) in speeds.items():
        cells = (
            name,
            f"{speed:.1f}" if speed else "-",
            ratio(speed, alone),
            f"{waited:.2f}" if waited else "-",
            ratio(waited, one),
        )
        print(f"| {' | '.join(cells)} |")
    for page in idle:
        print(
            f"{page}: {idle[page] * 1000:.0f} ms idle, {busy[page] * 1000:.0f} ms while a run "
            f"trains: {ratio(busy[page], idle[page])} x"
        )


if __name__ == "__main__":
    main()
