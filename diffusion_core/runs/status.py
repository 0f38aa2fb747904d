"""`status.json`: the status that a trainer writes, and the state that a reader concludes from it.

A run whose process is gone is `lost`. The writer is in `status_writer.py`.
"""

from __future__ import annotations

import socket
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import Field

from diffusion_core.data.found import Found
from diffusion_core.files import write_json
from diffusion_core.records import Count, LenientRecord, RecordError, ShortText, read_record_file

# The trainer writes its heartbeat every 2 seconds; a busy or suspended machine may be late.
HEARTBEAT_OLD = 60.0
HEARTBEAT_FRESH = 10.0  # too short for a pid to be used again


class RunState(StrEnum):
    """The state of a run. `lost` is never written: a reader concludes it, see `state_now`."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    LOST = "lost"

    @property
    def predicate(self) -> str:
        """What a sentence says of a run in this state: "is paused", "has failed"."""
        return "has failed" if self == RunState.FAILED else f"is {self}"


# A process works on the run or, if it is queued, will.
AT_WORK = frozenset({RunState.STARTING, RunState.RUNNING, RunState.PAUSING, RunState.STOPPING})
ACTIVE = AT_WORK | {RunState.QUEUED}
RESUMABLE = frozenset({RunState.PAUSED, RunState.STOPPED, RunState.FAILED, RunState.LOST})

Bytes = Annotated[int, Field(ge=0, le=10**18)]
Moment = Annotated[float, Field(ge=0, le=10**11)]  # seconds since 1970
Process = Annotated[int, Field(ge=1, le=2**31 - 1)]


class StatusRecord(LenientRecord):
    """`status.json` of a run or of a series of images.

    A field that is missing or does not hold what it must has its default value. `state` is the
    last one written, None where there is none; `state_now` is the current one.
    """

    state: Annotated[RunState | None, Field(strict=False)] = None
    step: Count = 0  # of a series: images
    total: Count = 0
    created: Moment = 0.0
    started: Moment = 0.0  # of the process
    queued_at: Moment = 0.0
    checkpoint_step: Count | None = None
    resumed_from: Count | None = None
    sampling_step: Count | None = None  # of the strip that is being sampled
    pid: Process | None = None
    process_started: Moment | None = None
    heartbeat: Moment = 0.0
    host: ShortText = ""
    device: ShortText = ""
    processes: Annotated[int, Field(ge=1, le=65_536)] = 1  # on this host
    cards: Annotated[tuple[ShortText, ...], Field(strict=False, max_length=4096)] = ()  # of CUDA
    loss: float | None = None
    images_per_second: Annotated[float, Field(ge=0)] | None = None
    eta_seconds: Annotated[float, Field(ge=0, le=10**11)] | None = None
    memory_bytes: Bytes | None = None
    seconds: Annotated[float, Field(ge=0, le=10**11)] = 0.0  # of a series: spent sampling
    found: Found | None = None  # in the data set of a run, once it is decoded
    not_finite: bool = False  # the loss or gradient became NaN or infinite
    message: str = ""
    warning: str = ""
    error: str = ""
    # Where earlier versions kept the settings of a run that had not begun: see `config_file.py`.
    arguments: Annotated[tuple[str, ...], Field(strict=False)] = ()

    def replace(self, **changes: Any) -> StatusRecord:
        """A copy with other values, which are not checked."""
        return self.model_copy(update=changes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dict(self) | {"found": self.found and self.found.model_dump()}


def read_status(path: Path) -> StatusRecord:
    """The status in the folder `path`; an empty one where it is missing or damaged."""
    try:
        return read_record_file(StatusRecord, path / "status.json") or StatusRecord()
    except RecordError:
        return StatusRecord()


def write_status(path: Path, status: StatusRecord) -> None:
    """Replace `status.json` in the folder `path`. Raises DiskFull, OSError."""
    write_json(path / "status.json", status.to_dict())


def state_now(status: StatusRecord) -> RunState:
    """The state that is true now: `lost` where the process behind an active state is gone."""
    state = status.state or RunState.STARTING
    if state not in ACTIVE or waits_without_process(status):
        return state
    age = time.time() - status.heartbeat
    if status.pid and status.host == socket.gethostname():
        # Setting the clock moves every start time, so a fresh heartbeat counts as well.
        started = None if 0 <= age < HEARTBEAT_FRESH else status.process_started
        return state if process_alive(status.pid, started) else RunState.LOST
    # A process of another host, or one without a pid yet: only its heartbeat tells.
    return state if age < HEARTBEAT_OLD else RunState.LOST


def waits_without_process(status: StatusRecord) -> bool:
    """Whether a run is queued and no process waits for it: see `queue.start_next`."""
    return status.state == RunState.QUEUED and status.pid is None


def process_alive(pid: int, started: float | None) -> bool:
    """Whether the process exists and is the same one (a pid is used again after a while)."""
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


def places_of(status: StatusRecord) -> set[str]:
    """The places that a run takes: one or, with several processes on CUDA, one a card.

    A process that has begun knows what its cards are really called (`cards`): `cuda:0` depends on
    CUDA_VISIBLE_DEVICES, and on the job of a cluster.
    """
    if status.cards:
        return set(status.cards)
    return named_places(status)


def named_places(status: StatusRecord) -> set[str]:
    """As `places_of`, by the names that the devices have in the run's process."""
    if status.device == "cuda":
        return {f"cuda:{number}" for number in range(status.processes)}
    return {place_of(status.device)}


def same_place(one: StatusRecord, other: StatusRecord) -> bool:
    """Whether two runs use the same device, or one of the same, of the same host."""
    places = places_of if one.cards and other.cards else named_places
    return one.host == other.host and bool(places(one) & places(other))
