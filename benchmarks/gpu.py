"""Whether everything works on a GPU, and how fast it is: `make gpu`.

    python -m benchmarks.gpu [--device cuda] [--quick] [--only BLOCK ...] [--minutes 8]

Each block is a process of its own with a time limit, so that one that fails or hangs costs no
other. It prints what it finds at once; the table at the end is in Markdown. It needs PyTorch and
`requirements.txt` without streamlit, plotly and av; a block that needs a package that is missing
says so. The exit code is 1 where a block failed or found something wrong, which a missed goal of
speed is not.

`--device cpu --quick` goes through every block with little work, to see that this script works.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu_blocks.report import Finding, Report, Setting, read_findings, table
from benchmarks.timing import machine
from diffusion_core.device import pick_device

ROOT = Path(__file__).parents[1]
SLOWER = 6  # how many times its limit a block may take on a CPU


class Block(NamedTuple):
    place: str  # module and function
    limit: int  # seconds on a GPU
    what: str


BLOCKS = {
    "correctness": Block("correctness:check", 75, "losses against the CPU, waiting, NaN"),
    "resume": Block("resume:check", 45, "resumes on other devices, checkpoints beside training"),
    "memory": Block("memory:measure", 40, "what loading, sampling and background jobs leave"),
    "rate": Block("speed:training_rate", 75, "training against the measured rate of bfloat16"),
    "job": Block("together:whole_job", 60, "the lecture's whole job"),
    "latency": Block("speed:latency", 90, "sampling: first and second press, graph, compiled"),
    "shortage": Block("memory:shortage", 40, "out of memory"),
    "beside": Block("together:beside", 45, "sampling beside training"),
    "queue": Block("together:queue", 45, "two runs queued, the first killed"),
    "evaluate": Block("together:evaluate", 40, "the command `evaluate`"),
    "tests": Block("together:tests", 75, "tests/core/training on this device"),
    "nccl": Block("together:one_process", 30, "one process of several, by NCCL"),
}


def run_block(name: str, setting: Setting, seconds: float) -> list[Finding]:
    """In a process of its own, with all that it starts."""
    with tempfile.TemporaryDirectory(prefix="diffusion-lab-gpu-") as folder:
        file = Path(folder) / "findings.jsonl"
        words = [sys.executable, "-m", "benchmarks.gpu", "--block", name, "--findings", str(file)]
        words += ["--device", str(setting.device), *["--quick"] * setting.quick]
        process = subprocess.Popen(
            words, cwd=ROOT, env=os.environ | {"TMPDIR": folder}, start_new_session=True
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
        found = read_findings(file)
    if code != 0:
        why = f"no end after {seconds:.0f} s" if code is None else f"failed, exit code {code}"
        found.append(Finding(name, "block", why, good=False))
        print(f"  {why}", flush=True)
    return found


def end_group(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it has started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # all have ended
        return
    process.wait()


def run_all(names: list[str], setting: Setting, minutes: float) -> bool:
    """Print what the blocks find, and the table. Returns whether nothing is wrong."""
    name = machine(setting.device)
    print(name, flush=True)
    deadline = time.monotonic() + 60 * minutes
    found: list[Finding] = []
    for each in names:
        block = BLOCKS[each]
        limit = block.limit * (SLOWER if setting.device.type == "cpu" else 1)
        seconds = min(limit, deadline - time.monotonic())
        if seconds < 5:
            found.append(Finding(each, "block", f"left out: {minutes:g} minutes are over"))
            continue
        print(f"\n{each}: {block.what}", flush=True)
        start = time.monotonic()
        found += run_block(each, setting, seconds)
        print(f"  {time.monotonic() - start:.0f} s", flush=True)
    print(f"\n{table(found, name)}")
    return all(finding.good is not False for finding in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="auto (default), cuda, cuda:N or cpu")
    parser.add_argument("--quick", action="store_true", help="little work, to try the script")
    parser.add_argument("--only", nargs="+", choices=list(BLOCKS), default=list(BLOCKS))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all blocks (default: 8)")
    parser.add_argument("--block", choices=list(BLOCKS), help=argparse.SUPPRESS)
    parser.add_argument("--findings", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    setting = Setting(pick_device(given.device), given.quick)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the block, too
    if given.block is None:
        minutes = given.minutes * (SLOWER if setting.device.type == "cpu" else 1)
        sys.exit(0 if run_all(given.only, setting, minutes) else 1)
    if setting.device.type == "cuda" and setting.device.index is not None:
        torch.cuda.set_device(setting.device)
    module, _, function = BLOCKS[given.block].place.partition(":")
    block = getattr(import_module(f"benchmarks.gpu_blocks.{module}"), function)
    block(setting, Report(given.block, given.findings))


if __name__ == "__main__":
    main()
