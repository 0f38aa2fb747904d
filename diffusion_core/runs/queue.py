"""The queue of a folder of runs: which run waits for which device, in which order.

A run whose device is busy waits as a folder in the state `queued`, without a process, so that it
survives restarts. The first process that looks at the queue when the device is free starts it.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import filelock
import psutil
from pydantic import Field

from diffusion_core.cores import go_behind, usable_cores
from diffusion_core.files import open_log, os_sentence, write_json
from diffusion_core.records import Record, RecordError, read_record_file
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.config_file import config_of_earlier_version, write_config_file
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.launch import command_here
from diffusion_core.runs.request import ENDING
from diffusion_core.runs.run import Run, RunSnapshot, snapshots
from diffusion_core.runs.status import (
    AT_WORK,
    Moment,
    RunState,
    StatusRecord,
    named_places,
    read_status,
    same_place,
    waits_without_process,
    write_status,
)

_log = logging.getLogger(__name__)

# The queue is held for milliseconds.
QUEUE_PATIENCE_SECONDS = 30
# The environment of one of several processes that train together.
DISTRIBUTED = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(ACCELERATE|TORCHELASTIC)_.*"
)


class JobError(ValueError):
    """Something that a run cannot do now; the message says why and what it can."""


class QueueFile(Record):
    """`.queue.json` in the folder of the runs: the runs that go first, in their order.

    An entry is of one wait only: it has the time at which that began.
    """

    order: Annotated[tuple[tuple[str, Moment], ...], Field(max_length=10_000)] = ()


def read_queue(runs_dir: Path, runs: Sequence[RunSnapshot] | None = None) -> list[RunSnapshot]:
    """The queued runs of a folder, of every host and device, in the order in which they start.

    `runs`: all runs of the folder, where they have been read already.
    """
    runs = snapshots(runs_dir) if runs is None else runs
    try:
        file = read_record_file(QueueFile, runs_dir / ".queue.json") or QueueFile()
    except RecordError:
        file = QueueFile()
    places = {entry: place for place, entry in enumerate(file.order)}

    def place(run: RunSnapshot) -> tuple[int, float, str]:
        """Those of the file first, then first come first served."""
        queued_at = run.status.queued_at
        return places.get((run.name, queued_at), len(places)), queued_at, run.name

    return sorted((run for run in runs if run.state == RunState.QUEUED), key=place)


def at_work(run: RunSnapshot, runs: Sequence[RunSnapshot]) -> list[RunSnapshot]:
    """Those of `runs` beside `run` that use its device, or are about to."""
    return [
        other
        for other in runs
        if other.name != run.name
        and other.state in AT_WORK
        and same_place(other.status, run.status)
    ]


def queued_before(run: RunSnapshot, runs: Sequence[RunSnapshot]) -> list[RunSnapshot]:
    """Those of `runs` that wait for the same device as `run`, which is queued, and start before."""
    others = [other for other in runs if other.name != run.name]
    queue = read_queue(run.path.parent, [*others, run])
    before = itertools.takewhile(lambda other: other is not run, queue)
    return [other for other in before if same_place(other.status, run.status)]


def start_next(runs_dir: Path) -> None:
    """Start the first queued run of each device of this host that is free.

    To be called whenever a device may have become free; any number of callers start a run once.
    A run that cannot be started has failed then. Raises JobError.
    """
    if any(waits_without_process(run.status) for run in snapshots(runs_dir)):
        with holding_queue(runs_dir):
            _start_free(runs_dir)


def move(run: Run, places: int, by: str | None = None) -> None:
    """Move a queued run by `places` in the queue of its device; below 0, towards the front.

    `by`: who does it, for `history.py`. Raises JobError for a run that is not in the queue.
    """
    runs_dir = run.path.parent
    with holding_queue(runs_dir):
        queue = read_queue(runs_dir)
        mine = next((other for other in queue if other.name == run.name), None)
        if mine is None:
            raise JobError(f"{run.name} {run.state.predicate}; it is not in the queue.")
        peers = [other for other in queue if same_place(other.status, mine.status)]
        slots = [queue.index(other) for other in peers]
        at = peers.index(mine)
        peers.insert(max(0, at + places), peers.pop(at))
        for slot, other in zip(slots, peers, strict=True):
            queue[slot] = other
        order = [[other.name, other.status.queued_at] for other in queue]
        try:
            write_json(runs_dir / ".queue.json", {"order": order})
        except OSError as error:
            raise JobError(f"{run.name} cannot be moved: {os_sentence(error)}") from error
    record(run.path, Event.MOVED, by)
    _log.info("run moved in the queue", extra={"run": run.name, "places": places})


@contextmanager
def holding_queue(runs_dir: Path) -> Iterator[None]:
    """Nobody else starts, moves or takes away a queued run of the folder. Raises JobError."""
    lock = filelock.FileLock(runs_dir / ".queue.lock")
    try:
        held = lock.acquire(timeout=QUEUE_PATIENCE_SECONDS)
    except filelock.Timeout as error:
        raise JobError(
            f"The queue in {runs_dir} has been in use for {QUEUE_PATIENCE_SECONDS} seconds; "
            f"try again."
        ) from error
    except OSError as error:
        raise JobError(f"{runs_dir} cannot be written to: {error.strerror}.") from error
    with held:
        yield


def line_up(path: Path, device: str, steps: int, processes: int) -> None:
    """Put a run with its `config.json` at the end of the queue, then start the runs that can start.

    Raises JobError.
    """
    now = time.time()
    before = read_status(path)
    status = before.replace(
        created=before.created or now,
        state=RunState.QUEUED,
        queued_at=now,
        total=steps,
        pid=None,
        host=socket.gethostname(),
        device=device,
        processes=processes,
        cards=(),
        error="",
        not_finite=False,
        message="",
    )
    with holding_queue(path.parent):
        try:
            # A request to an earlier process of this run is not meant for the next one.
            (path / "request.json").unlink(missing_ok=True)
            write_status(path, status)
        except OSError as error:
            raise JobError(f"{path.name} cannot be started: {os_sentence(error)}") from error
        failed = _start_free(path.parent)
    if path.name in failed:
        raise JobError(failed[path.name])


def _start_free(runs_dir: Path) -> dict[str, str]:
    """As `start_next`, by who holds the queue. Returns why which runs could not be started."""
    host = socket.gethostname()
    runs = snapshots(runs_dir)
    taken: set[str] = set()
    for run in runs:
        if run.state in AT_WORK and run.status.host == host:
            taken |= named_places(run.status)
    failed = {}
    for run in read_queue(runs_dir, runs):
        status = run.status
        if status.host != host:
            continue
        if not taken & (places := named_places(status)) and waits_without_process(status):
            try:
                _spawn(run)
                _log.info("run started", extra={"run": run.name, "device": status.device})
            except JobError as error:
                _log.info("run not started", extra={"run": run.name, "reason": str(error)})
                failed[run.name] = str(error)
                with suppress(OSError):  # on a full disk it stays in the queue
                    write_status(run.path, status.replace(state=RunState.FAILED, error=str(error)))
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
        try:
            write_status(run.path, status.replace(state=ENDING[action]))
        except OSError as error:
            raise JobError(f"{run.name} cannot leave the queue: {os_sentence(error)}") from error
    return True


def _spawn(run: RunSnapshot) -> None:
    """Start a detached trainer: a session of its own, its output in train.log. Raises JobError.

    With several processes it is the launcher that is started here; it ends with them.
    """
    path, processes = run.path.resolve(), run.status.processes
    if run.config is None and run.problem:
        raise JobError(f"{path.name} cannot be started: {run.problem}")
    # Until the process speaks for itself; where it never does, a reader takes it for lost.
    status = run.status.replace(state=RunState.STARTING, heartbeat=time.time(), pid=None)
    command = command_here(path, run.status.device, processes, resume=run.begun)
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # The one that starts it may be a trainer that has just ended, of several.
    own = {name: value for name, value in os.environ.items() if not DISTRIBUTED.fullmatch(name)}
    if "RANK" in os.environ:
        own.pop("OMP_NUM_THREADS", None)
    if processes > 1:  # else torchrun gives each a single thread, and they share the cores
        own.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    try:
        settle_config(path, run.status)
        write_status(path, status)
        with open_log(path / "train.log") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**own, "PYTHONPATH": search},
                start_new_session=True,
            )
    except ConfigError as error:
        raise JobError(f"{path.name} cannot be started: {error}") from error
    except OSError as error:
        raise JobError(f"{path.name} cannot be started: {os_sentence(error)}") from error
    # A reader can look for the process while it still imports PyTorch; then it speaks for itself.
    with suppress(OSError, psutil.Error):
        go_behind(process.pid)
        started = psutil.Process(process.pid).create_time()
        if read_status(path) == status:
            write_status(path, status.replace(pid=process.pid, process_started=started))


def settle_config(path: Path, status: StatusRecord) -> None:
    """Write `config.json` for a run that an earlier version put in the queue without one.

    Raises ConfigError, OSError.
    """
    if not (path / "config.json").exists():
        config = config_of_earlier_version(status)
        if config is None:
            raise ConfigError("it has left no settings.")
        write_config_file(path, config)
