"""The queue of a folder of runs: who waits for a device, in which order, and who starts whom.

A run whose device is busy waits as a folder in the state `queued`, without a process, so that it
outlives everything but the disk. Whoever comes by when the device is free starts it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import psutil

from diffusion_core.device import usable_cores
from diffusion_core.files import os_sentence, write_json
from diffusion_core.runs.launch import command_here
from diffusion_core.runs.run import (
    ACTIVE,
    Run,
    list_runs,
    places_of,
    read_queue,
    same_place,
    waits_without_process,
)
from diffusion_core.runs.status import ENDING

# Whoever holds the queue does so for milliseconds.
QUEUE_PATIENCE_SECONDS = 30
# By these a process knows that it is one of several that train together.
DISTRIBUTED = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(ACCELERATE|TORCHELASTIC)_.*"
)


class JobError(ValueError):
    """Something that cannot be asked of a run now; the message says why and what can."""


def start_next(runs_dir: Path) -> None:
    """Start the first queued run of each device of this host that is free.

    To be called whenever a device may have become free; any number of callers start a run once.
    A run that cannot be started has failed then. Raises JobError.
    """
    if any(waits_without_process(run.status) for run in list_runs(runs_dir)):
        with holding_queue(runs_dir):
            _start_free(runs_dir)


def move(run: Run, places: int) -> None:
    """Move a queued run so many places back in the queue of its device; below 0, to the front.

    Raises JobError for a run that is not in the queue.
    """
    runs_dir = run.path.parent
    with holding_queue(runs_dir):
        queue = read_queue(runs_dir)
        mine = run.status
        peers = [other for other in queue if same_place(other.status, mine)]
        names = [other.name for other in peers]
        if run.name not in names:
            raise JobError(f"{run.name} is {run.state}; it is not in the queue.")
        at = names.index(run.name)
        peers.insert(max(0, at + places), peers.pop(at))
        moved = iter(peers)
        order = [next(moved) if other in peers else other for other in queue]
        entries = [[other.name, other.status.get("queued_at", 0.0)] for other in order]
        try:
            write_json(runs_dir / ".queue.json", {"order": entries})
        except OSError as error:
            raise JobError(f"{run.name} cannot be moved: {os_sentence(error)}") from error


@contextmanager
def holding_queue(runs_dir: Path) -> Iterator[None]:
    """Nobody else starts, moves or takes away a queued run of the folder. Raises JobError."""
    lock = filelock.FileLock(runs_dir / ".queue.lock")
    try:
        lock.acquire(timeout=QUEUE_PATIENCE_SECONDS)
    except filelock.Timeout as error:
        raise JobError(
            f"The queue in {runs_dir} has been in use for {QUEUE_PATIENCE_SECONDS} seconds; "
            f"try again."
        ) from error
    except OSError as error:
        raise JobError(f"{runs_dir} cannot be written to: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


def line_up(path: Path, arguments: list[str], device: str, steps: int, processes: int) -> None:
    """Put a run of so many steps at the end of the queue, then start what can start.

    Raises JobError.
    """
    status = {
        "created": time.time(),
        **Run(path).status,
        "state": "queued",
        "queued_at": time.time(),
        "total": steps,
        "pid": None,
        "host": socket.gethostname(),
        "device": device,
        "processes": processes,
        "error": None,
        "not_finite": False,
        "message": "",
        "arguments": arguments,
    }
    with holding_queue(path.parent):
        try:
            # What was asked of an earlier process of this run is not meant for the next one.
            (path / "request.json").unlink(missing_ok=True)
            write_json(path / "status.json", status)
        except OSError as error:
            raise JobError(f"{path.name} cannot be started: {os_sentence(error)}") from error
        failed = _start_free(path.parent)
    if path.name in failed:
        raise JobError(failed[path.name])


def _start_free(runs_dir: Path) -> dict[str, str]:
    """As `start_next`, by who holds the queue. Returns why which runs could not be started."""
    host = socket.gethostname()
    taken: set[str] = set()
    for run in list_runs(runs_dir):
        if run.state in ACTIVE - {"queued"} and (status := run.status).get("host") == host:
            taken |= places_of(status)
    failed = {}
    for run in read_queue(runs_dir):
        status = run.status
        if status.get("host") != host:
            continue
        if not taken & (places := places_of(status)) and waits_without_process(status):
            try:
                _spawn(run.path, status.get("arguments", ["--resume"]), status.get("device", ""))
            except JobError as error:
                failed[run.name] = str(error)
                with suppress(OSError):  # on a full disk it stays in the queue
                    record = status | {"state": "failed", "error": str(error)}
                    write_json(run.path / "status.json", record)
                continue
        # One that waits in a terminal takes its turn by itself; one that needs several cards is not
        # overtaken by those that need one of them.
        taken |= places
    return failed


def leave_queue(run: Run, action: str) -> bool:
    """Take a run without a process out of the queue; False where it has just been started."""
    with holding_queue(run.path.parent):
        status = run.status
        if not waits_without_process(status):
            return False
        if action not in ENDING:
            raise JobError(f"{run.name} is queued; it can {action} only when it is at work.")
        state = "stopped" if action == "stop" else "paused"
        try:
            write_json(run.path / "status.json", status | {"state": state})
        except OSError as error:
            raise JobError(f"{run.name} cannot leave the queue: {os_sentence(error)}") from error
    return True


def _spawn(path: Path, arguments: list[str], device: str) -> None:
    """A detached trainer: a session of its own, its words in train.log. Raises JobError.

    Of several processes it is the launcher that is started here; it ends with them.
    """
    path = path.resolve()
    # Until the process speaks for itself; where it never does, a reader takes it for lost.
    status = Run(path).status | {"state": "starting", "heartbeat": time.time(), "pid": None}
    processes = status.get("processes", 1)
    command = command_here(path, arguments, device, processes)
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # The one that starts it may be a trainer that has just ended, of several.
    own = {name: value for name, value in os.environ.items() if not DISTRIBUTED.fullmatch(name)}
    if "RANK" in os.environ:
        own.pop("OMP_NUM_THREADS", None)  # which was set for its share of the cores
    if processes > 1:
        own.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    try:
        write_json(path / "status.json", status)
        with open(path / "train.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**own, "PYTHONPATH": search},
                start_new_session=True,
            )
    except OSError as error:
        raise JobError(f"{path.name} cannot be started: {error.strerror or error}") from error
    # A reader can look for the process while it still imports PyTorch; then it speaks for itself.
    with suppress(OSError, psutil.Error):
        started = psutil.Process(process.pid).create_time()
        write_json(path / "status.json", status | {"pid": process.pid, "process_started": started})
