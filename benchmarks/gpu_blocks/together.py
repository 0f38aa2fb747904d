"""Several things at once, and whole commands: each as a user starts it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu_blocks.report import Report, Setting
from benchmarks.gpu_blocks.speed import network_for
from benchmarks.gpu_blocks.steps import sampling_options, settings, shrunk
from diffusion_core.data.store import build_store
from diffusion_core.runs import jobs
from diffusion_core.runs.presets import build_schedule, preset
from diffusion_core.runs.run import Run, load_run
from diffusion_core.sampling.sample import sample
from diffusion_core.training.shared_norm import share_norms

ROOT = Path(__file__).parents[2]
WHOLE_JOB = 10  # seconds: the goal for the lecture's job
JOB_DATA = "cars:16160"  # 126 full batches of 128 and 32 held out, as the lecture has


def command(setting: Setting, *words: object) -> list[str]:
    """Of the project's command line, on this device."""
    name, *more = (str(word) for word in words)
    return [sys.executable, "-m", "diffusion_core", name, "--device", str(setting.device), *more]


def whole_job(setting: Setting, report: Report) -> None:
    """252 steps of 128 images with strips and checkpoints, the data decoded before."""
    data = "cars:64" if setting.quick else JOB_DATA
    with report.part("decoding"):
        start = time.perf_counter()
        build_store(data, 64)
        report(f"decoding {data}", f"{time.perf_counter() - start:.1f} s, kept for later runs")
    with report.part("the lecture's job"), tempfile.TemporaryDirectory() as folder:
        words = ["--preset", "lecture", "--data", data, "--run", f"{folder}/run", "--quiet"]
        if setting.quick:
            words += ["--set", "steps=2", "batch_size=2", "sample_every=1", "checkpoint_every=1"]
            words += ["validation_count=2", "network_args.widths=[8,8,16,16,16]"]
            words += ['schedule={"timesteps": 10}']
        start = time.perf_counter()
        subprocess.run(command(setting, "train", *words), cwd=ROOT, check=True)
        whole = time.perf_counter() - start
        run = load_run(f"{folder}/run")
        times = run.curve("loss")["wall_time"]
        report(
            f"the lecture's job, {run.status.step} steps",
            f"{whole:.1f} s with the start of the process, {times[-1] - times[0]:.1f} s from the "
            f"first to the last step",
            f"{WHOLE_JOB} s",
        )
        kept = f"{len(run.samples())} strips, weights of {len(run.weights())} steps"
        report("its files", kept, good=bool(run.samples() and run.weights()))


@contextmanager
def background_run(setting: Setting, runs: Path, name: str) -> Iterator[Run]:
    """A run that trains until the block ends, from its second step on."""
    config = settings(
        "small", steps=10**6, data="cars:512", batch_size=setting.choose(32, 2), sample_every=0
    )
    run = jobs.start(runs, name, shrunk(config, setting), str(setting.device))
    try:
        wait_until(lambda: run.status.step > 1, 60)
        yield run
    finally:
        kill(run)


def kill(run: Run) -> None:
    """End its process, if it has one, at once."""
    if run.status.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(run.status.pid, signal.SIGKILL)


def wait_until(there: Callable[[], bool], seconds: float) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not after {seconds:.0f} s.")
        time.sleep(0.02)


def beside(setting: Setting, report: Report) -> None:
    """The dashboard's case: one process trains, another samples."""
    device = setting.device
    config = shrunk(preset("small"), setting)
    network, schedule = network_for(config, device), build_schedule(config).to(device)
    n, steps, window = setting.choose(16, 1), setting.choose(20, 2), setting.choose(8, 3)

    def press() -> float:
        return setting.seconds(
            lambda: sample(network, schedule, n, "dpmpp_2m", steps, **sampling_options(config))
        )

    def pressed_for(seconds: float) -> list[float]:
        found: list[float] = []
        end = time.monotonic() + seconds
        while not found or time.monotonic() < end:
            found.append(press())
        return sorted(found)

    with report.part("sampling beside training"), tempfile.TemporaryDirectory() as folder:
        press()
        alone = pressed_for(window / 2)
        with background_run(setting, Path(folder), "run") as run:

            def rate(work: Callable[[], object]) -> float:
                first, start = run.status.step, time.monotonic()
                work()
                return (run.status.step - first) / (time.monotonic() - start)

            quiet = rate(lambda: time.sleep(window))
            both: list[float] = []
            busy = rate(lambda: both.extend(pressed_for(window)))
        report(
            f"`small`, {n} samples in {steps} steps",
            f"{1000 * alone[len(alone) // 2]:.0f} ms alone, {1000 * both[len(both) // 2]:.0f} ms "
            f"beside training",
        )
        report("`small`, training", f"{quiet:.1f} steps/s alone, {busy:.1f} beside sampling")


def queue(setting: Setting, report: Report) -> None:
    """The first run is killed; the second finds the device and its memory free."""
    with report.part("two runs queued"), tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        with background_run(setting, runs, "first") as first:
            config = settings(steps=setting.choose(20, 2), batch_size=4)
            second = jobs.start(runs, "second", config, str(setting.device))
            report("the second waits", str(second.state), good=second.state == "queued")
            kill(first)
            start = time.monotonic()
            wait_until(lambda: first.state == "lost", 20)
            jobs.start_next(runs)
            wait_until(lambda: second.state not in ("queued", "starting", "running"), 120)
        report(
            "the first killed, the second",
            f"{second.state}, {time.monotonic() - start:.1f} s after the kill",
            good=second.state == "finished",
        )


def evaluate(setting: Setting, report: Report) -> None:
    with report.part("evaluate"), tempfile.TemporaryDirectory() as folder:
        run, n = f"{folder}/run", setting.choose(512, 32)
        words = ["--preset", "tiny", "--data", "cars:512", "--run", run, "--quiet", "--set"]
        words += [f"steps={setting.choose(50, 2)}", "sample_every=0", "batch_size=16"]
        subprocess.run(command(setting, "train", *words), cwd=ROOT, check=True)
        start = time.perf_counter()
        words = ["--run", run, "--n", str(n), "--steps", str(setting.choose(20, 2))]
        subprocess.run(
            command(setting, "evaluate", *words), cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        report(f"`evaluate` with {n} images", f"{time.perf_counter() - start:.1f} s")


def tests(setting: Setting, report: Report) -> None:
    with report.part("tests"):
        if importlib.util.find_spec("pytest") is None:
            report("tests/core/training", "left out: pytest is missing")
            return
        # Without conftest.py, which needs the dashboard.
        words = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"]
        chosen = ["test_step.py", "test_background.py"]
        chosen += [] if setting.quick else ["test_other_device.py", "test_trainer.py"]
        done = subprocess.run(
            [*words, *(f"tests/core/training/{name}" for name in chosen)],
            cwd=ROOT,
            env=os.environ | {"TEST_DEVICE": str(setting.device)},
            capture_output=True,
            text=True,
        )
        lines = done.stdout.strip().splitlines() or ["nothing"]
        for line in lines:
            if line.startswith(("FAILED", "ERROR")):
                report("a test", line, good=False)
        report("tests/core/training", lines[-1], good=done.returncode == 0)


def one_process(setting: Setting, report: Report) -> None:
    """A group of one process: the layers and exchanges of several run, with nobody to wait for."""
    with report.part("one process"), tempfile.TemporaryDirectory() as folder:
        cuda = setting.device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            init_method=f"file://{folder}/meet",
            rank=0,
            world_size=1,
        )
        try:
            device = torch.device("cuda", torch.cuda.current_device()) if cuda else setting.device
            torch.manual_seed(0)
            network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3))
            network = network.to(device)
            x = torch.randn(4, 3, 16, 16, device=device)
            network(x).square().mean().backward()
            alone = [
                weight.grad.clone() for weight in network.parameters() if weight.grad is not None
            ]
            network.zero_grad()
            share_norms(network)
            together = DistributedDataParallel(network)
            together(x).square().mean().backward()
            now = [weight.grad for weight in together.parameters() if weight.grad is not None]
            apart = max(float((a - b).abs().max()) for a, b in zip(alone, now, strict=True))
            backend = "NCCL" if cuda else "gloo"
            report(f"gradients through {backend}", f"differ by {apart:.1e}", good=apart < 1e-4)
        finally:
            dist.destroy_process_group()
