"""Reading run folders: their state, settings, curves, samples and checkpoints.

Reads only, and believes nothing that it cannot check: a run whose process is gone is `lost`,
a checkpoint that does not open is skipped and named. Starting and stopping is `jobs.py`.
"""

from __future__ import annotations

import functools
import math
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from diffusion_core.files import read_json
from diffusion_core.runs import metrics
from diffusion_core.runs.changes import read_changes, with_changes
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError, read_checkpoint, step_of
from diffusion_core.runs.config import ConfigError, RunConfig

STATES = "queued starting running pausing paused stopping stopped finished failed lost".split()
# In these a process works on the run or, of a queued one, will.
ACTIVE = frozenset({"queued", "starting", "running", "pausing", "stopping"})
RESUMABLE = frozenset({"paused", "stopped", "failed", "lost"})
# The trainer writes its heartbeat every 2 seconds; a busy or suspended machine may be late.
HEARTBEAT_OLD = 60.0
HEARTBEAT_FRESH = 10.0  # too short for a pid to be used again
# What the fields of `status.json` hold.
WHOLE_NUMBERS = frozenset(
    "step total checkpoint_step resumed_from pid processes memory_bytes".split()
)
NUMBERS = frozenset(
    "created started process_started heartbeat queued_at loss images_per_second eta_seconds".split()
)
WORDS = frozenset("host device error warning message".split())


@dataclass(frozen=True)
class Run:
    """A run folder. Every property reads the disk, so it is as true as the folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def status(self) -> dict[str, Any]:
        """`status.json` as the trainer wrote it; `Run.state` is what is true now.

        Fields that hold nothing, or not what the trainer writes there, are left out.
        """
        status = read_json(self.path / "status.json") or {}
        return {name: value for name, value in status.items() if _is_sound(name, value)}

    @property
    def state(self) -> str:
        return state_now(self.status)

    @property
    def config(self) -> RunConfig | None:
        """The settings with everything that was changed since the start.

        None where the run has not got as far as writing them; raises ConfigError.
        """
        return self.config_at(None)

    def config_at(self, step: int | None) -> RunConfig | None:
        """The settings that hold at a step; 0: those of the start. As `config` otherwise."""
        path = self.path / "config.json"
        values = read_json(path)
        if values is None and path.exists():
            raise ConfigError("config.json is damaged or cannot be read.")
        if values is None:
            return None
        return with_changes(RunConfig.from_dict(values), read_changes(self.path), step)

    @property
    def details(self) -> dict[str, Any]:
        """What `config.json` says beside the settings: classes, counts, fingerprint, versions."""
        resolved = (read_json(self.path / "config.json") or {}).get("resolved")
        return resolved if isinstance(resolved, dict) else {}

    @property
    def created(self) -> float:
        """Seconds since 1970 of the run's start; 0 where it has not written a status."""
        return float(self.status.get("created", 0.0))

    def curve(self, name: str, max_points: int = 2000) -> dict[str, np.ndarray]:
        """See `metrics.read_curve`."""
        return metrics.read_curve(self.path / "metrics.sqlite", name, max_points)

    def curve_names(self) -> list[str]:
        return metrics.read_names(self.path / "metrics.sqlite")

    def last_values(self) -> dict[str, tuple[int, float]]:
        """The newest (step, value) of every curve."""
        return metrics.read_last(self.path / "metrics.sqlite")

    def samples(self) -> list[tuple[int, Path]]:
        """(step, image) of every sample strip, oldest first."""
        return _by_step(self.path / "samples", "*.png")

    def weights(self) -> list[tuple[int, Path]]:
        """(step, file) of every weights file, oldest first, good or broken."""
        return _by_step(self.path / "weights", "*.safetensors")

    def checkpoint(self, step: int) -> Checkpoint:
        """The checkpoint of one step; raises CheckpointError where it is missing or broken."""
        for found, path in self.weights():
            if found == step:
                return _open_checkpoint(path)
        raise CheckpointError(f"{self.name} has no checkpoint of step {step}.")

    def checkpoints(self) -> tuple[list[Checkpoint], list[str]]:
        """The usable checkpoints, oldest first, and a sentence for each that is not."""
        good, broken = [], []
        for _, path in self.weights():
            try:
                good.append(_open_checkpoint(path))
            except CheckpointError as error:
                if path.exists():  # else the trainer has just removed it, as too old
                    broken.append(str(error))
        return good, broken

    def latest_checkpoint(self) -> Checkpoint | None:
        """The highest step whose file opens and fits its settings; None where there is none."""
        for _, path in reversed(self.weights()):
            try:
                return _open_checkpoint(path)
            except CheckpointError:
                continue
        return None


def load_run(path: Path | str) -> Run:
    """The run in a folder; raises FileNotFoundError with a sentence where there is none."""
    run = Run(Path(path))
    if not ((run.path / "config.json").exists() or (run.path / "status.json").exists()):
        raise FileNotFoundError(f"{path} is not a run folder: it has no config.json.")
    return run


def list_runs(runs_dir: Path) -> list[Run]:
    """All runs in a folder, newest first; empty where the folder does not exist."""
    if not runs_dir.is_dir():
        return []
    runs = []
    for path in runs_dir.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(load_run(path))
            except FileNotFoundError:
                continue
    return sorted(runs, key=lambda run: (run.created, run.name), reverse=True)


def state_now(status: dict[str, Any]) -> str:
    """The state that is true now: `lost` where the process behind an active state is gone."""
    state = status.get("state", "starting")
    if state not in ACTIVE or waits_without_process(status):
        return state
    age = time.time() - status.get("heartbeat", 0.0)
    pid = status.get("pid")
    if pid and status.get("host") == socket.gethostname():
        # A clock that was set anew moves every start time, so a fresh heartbeat counts as well.
        started = None if 0 <= age < HEARTBEAT_FRESH else status.get("process_started")
        return state if process_alive(pid, started) else "lost"
    # Another host's process, or one that has not said its pid yet: only its heartbeat tells.
    return state if age < HEARTBEAT_OLD else "lost"


def waits_without_process(status: dict[str, Any]) -> bool:
    """Whether a run is queued and nothing but its folder waits: see `jobs.start_next`."""
    return status.get("state") == "queued" and not status.get("pid")


def process_alive(pid: int, started: float | None) -> bool:
    """Whether the process is there and is the same one (a pid is used again after a while)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < 2
    except psutil.Error:
        return False


def place_of(device: str) -> str:
    """The one place that a device's names mean: `cuda` is `cuda:0`; each other card is its own."""
    return "cuda:0" if device == "cuda" else device


def places_of(status: dict[str, Any]) -> set[str]:
    """The places that a run takes: one or, where it has several processes on CUDA, their cards."""
    device, processes = status.get("device", ""), status.get("processes", 1)
    if device == "cuda":
        return {f"cuda:{number}" for number in range(max(1, processes))}
    return {place_of(device)}


def same_place(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two statuses name the same device, or one of the same, of the same host."""
    return one.get("host") == other.get("host") and bool(places_of(one) & places_of(other))


def at_work(path: Path, mine: dict[str, Any]) -> list[Run]:
    """The other runs beside the one at `path` that use its device, or are about to."""
    return [
        run
        for run in list_runs(path.parent)
        if run.name != path.name
        and same_place(status := run.status, mine)
        and state_now(status) in ACTIVE - {"queued"}
    ]


def read_queue(runs_dir: Path) -> list[Run]:
    """All queued runs of a folder, of every host and device, in the order in which they start."""
    order = read_order(runs_dir)
    places = {}
    for run in list_runs(runs_dir):
        status = run.status
        if state_now(status) == "queued":
            places[run] = place_in_queue(run.path, status, order)
    return sorted(places, key=places.__getitem__)


def read_order(runs_dir: Path) -> list[list[Any]]:
    """What `jobs.move` has written: [name, queued_at] of the runs that go first, in their order."""
    order = (read_json(runs_dir / ".queue.json") or {}).get("order")
    return order if isinstance(order, list) else []


def place_in_queue(
    path: Path, status: dict[str, Any], order: list[list[Any]]
) -> tuple[int, float, str]:
    """What the queue is sorted by: `order`, then first come first served.

    An entry of the order is of one wait only: it has the time at which that began.
    """
    since = status.get("queued_at", 0.0)
    moved = [path.name, since]
    return (order.index(moved) if moved in order else len(order), since, path.name)


def queue_position(run: Run) -> int:
    """How many runs of the same folder, host and device are before this one; 0 for the next."""
    mine = run.status
    return len(queued_before(run.path, mine))


def queued_before(path: Path, mine: dict[str, Any]) -> list[Run]:
    """The queued runs that go before the one at `path` to the same device of the same host."""
    place = place_in_queue(path, mine, order := read_order(path.parent))
    return [
        run
        for run in read_queue(path.parent)
        if run.name != path.name
        and same_place(status := run.status, mine)
        and place_in_queue(run.path, status, order) < place
    ]


def _is_sound(name: str, value: Any) -> bool:
    """Whether a field of the status holds what its readers count on."""
    if name == "state":
        return value in STATES
    if name in WHOLE_NUMBERS:
        return type(value) is int and value >= 0
    if name in NUMBERS:
        return type(value) in (int, float) and math.isfinite(value)
    if name in WORDS:
        return isinstance(value, str)
    if name == "arguments":
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    return True


def _by_step(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    found = ((step_of(path), path) for path in folder.glob(pattern))
    return sorted((step, path) for step, path in found if step is not None)


def _open_checkpoint(path: Path) -> Checkpoint:
    try:
        stat = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be opened: {error.strerror}.") from error
    return _read_checkpoint(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=512)
def _read_checkpoint(path: Path, modified_ns: int, size: int) -> Checkpoint:
    """Cached by what changes when the file does; errors are not cached."""
    return read_checkpoint(path)
