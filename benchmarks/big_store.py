"""A large data set in little memory: the store is mapped, not loaded.

    python -m benchmarks.big_store [--images 200000] [--limit 2.0] [--cache FOLDER]

Writes the drawn cars into a store and trains a tiny network on it, all in one process tree that may
use `--limit` GB of memory, the page cache included (a control group of the kernel, made below
the one that this runs in; on systemd machines `systemd-run --user --scope -p MemoryMax=2G python
-m benchmarks.big_store` does the same). Where the system allows no such group it says so and
runs without one. The memory that counts is printed either way: what the processes hold themselves
(RssAnon), which the kernel cannot take back as it can the mapped pages of the store.

200,000 images of 64 x 64 are 2.5 GB and take some minutes to make. `--cache` keeps the store
for the next time; else it goes into a temporary folder that is removed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

GB = 10**9
GROUPS = Path("/sys/fs/cgroup")


class Group:
    """A control group with a memory limit; version 1 and 2 of the kernel's interface."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.first = path.is_relative_to(GROUPS / "memory")
        path.mkdir()
        try:
            name = "memory.limit_in_bytes" if self.first else "memory.max"
            (path / name).write_text(str(limit))
        except OSError:
            path.rmdir()
            raise

    def peak(self) -> int | None:
        """The most bytes in use so far, page cache included; None on kernels before 5.19."""
        file = self.path / ("memory.max_usage_in_bytes" if self.first else "memory.peak")
        return int(file.read_text()) if file.exists() else None


@contextmanager
def limited(limit: int) -> Iterator[Group | None]:
    """A group of `limit` bytes, removed at the end; None where the system allows none."""
    own = own_groups(Path("/proc/self/cgroup").read_text())
    group = None
    for parent in own:
        try:
            group = Group(parent / f"big-store-{os.getpid()}", limit)
            break
        except OSError:
            continue
    try:
        yield group
    finally:
        if group is not None:
            group.path.rmdir()


def own_groups(text: str, root: Path = GROUPS) -> list[Path]:
    """Where a group of our own may be made, the likelier first; `text` is /proc/self/cgroup.

    Version 1: below the group that this process is in. Version 2: beside it, because a group
    with processes in it cannot pass a limit on.
    """
    found = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.append(root / "memory" / path.lstrip("/"))
        elif not controllers:
            found.append((root / path.lstrip("/")).parent if path != "/" else root)
    return found


def own_memory(process: psutil.Process) -> int:
    """Bytes that a process and its children hold themselves: RssAnon, nothing of the page cache."""
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            status = Path(f"/proc/{each.pid}/status").read_text()
            line = next((x for x in status.splitlines() if x.startswith("RssAnon")), "RssAnon 0")
            total += 1024 * int(line.split()[1])
    except (OSError, psutil.NoSuchProcess):  # ended just now
        return total
    return total


def train_on(spec: str, size: int, steps: int) -> None:
    """In the limited process: build the store, train on it."""
    import torch

    from diffusion_core.data.store import build_store
    from diffusion_core.runs.config import RunConfig
    from diffusion_core.training.trainer import train

    start = time.perf_counter()
    store = build_store(spec, size)
    print(
        f"store: {len(store):,} images of {size} x {size}, {store.images.nbytes / GB:.2f} GB, "
        f"ready after {time.perf_counter() - start:.1f} s",
        flush=True,
    )
    config = RunConfig(
        network_args={"widths": [16, 32], "blocks": 1, "attention_levels": [], "patch": 4},
        data=spec,
        image_size=size,
        class_conditional=False,
        validation_count=64,
        steps=steps,
        checkpoint_every=0,
        sample_every=0,
        validate_every=0,
    )
    ended: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            Path(folder) / "run",
            config,
            device=torch.device("cpu"),
            on_step=lambda step, steps, loss: ended.append(time.perf_counter()),
        )
    speed = config.batch_size * (len(ended) - 2) / (ended[-2] - ended[0])
    seen = config.batch_size * len(ended)
    print(f"training: {len(ended)} steps, {seen:,} images seen, {speed:.0f} images/s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--limit", type=float, default=2.0, help="GB of memory (10^9 bytes)")
    parser.add_argument("--cache", type=Path, help="keep the store in this folder")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    spec = f"cars:{arguments.images}"
    if arguments.inside:
        train_on(spec, arguments.size, arguments.steps)
        return 0
    # Stopped by a signal, it still ends the child and removes the group and the store.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as folder, limited(int(arguments.limit * GB)) as group:
        if group is None:
            print("The system allows no control group here: this runs without a limit.")
        else:
            print(f"limit: {arguments.limit:g} GB in {group.path}")
        command = [sys.executable, "-m", "benchmarks.big_store", "--inside", *sys.argv[1:]]
        if group is not None:  # the shell enters the group before Python uses any memory
            enter = 'echo $$ > "$0" && exec "$@"'
            command = ["sh", "-c", enter, str(group.path / "cgroup.procs"), *command]
        environment = {**os.environ, "DIFFUSION_LAB_CACHE_DIR": str(arguments.cache or folder)}
        child = subprocess.Popen(command, env=environment)
        most = 0
        try:
            while child.poll() is None:
                most = max(most, own_memory(psutil.Process(child.pid)))
                time.sleep(0.2)
        finally:
            child.terminate()
            child.wait()
        print(f"the processes' own memory: {most / GB:.2f} GB at most")
        peak = group.peak() if group is not None else None
        if peak is not None:
            print(f"with the page cache: {peak / GB:.2f} GB at most")
        if child.returncode == -signal.SIGKILL and group is not None:
            print(f"It was killed: {arguments.limit:g} GB are not enough.")
        return 0 if child.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
