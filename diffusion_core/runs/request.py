"""`request.json`: a request to a run at work, which answers at its next step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from diffusion_core.files import write_json
from diffusion_core.records import Record, RecordError, read_record_file
from diffusion_core.runs.changes import ChangedSettings
from diffusion_core.runs.status import Moment, RunState

Action = Literal["pause", "stop", "sample", "checkpoint", "change"]
ACTIONS: tuple[Action, ...] = get_args(Action)
# The requests that end the process, with the state that they leave.
ENDING: dict[str | None, RunState] = {"pause": RunState.PAUSED, "stop": RunState.STOPPED}


class RequestRecord(Record):
    """A request. `settings` are those to change; a stop or pause after a change has them too."""

    action: Action | None = None
    time: Moment = 0.0
    settings: ChangedSettings = Field(default_factory=dict)


def read_request(path: Path) -> RequestRecord:
    """The request in a file; without an action where it is missing or damaged."""
    try:
        return read_record_file(RequestRecord, path) or RequestRecord()
    except RecordError:
        return RequestRecord()


def write_request(run: Path, action: str, settings: dict[str, Any] | None = None) -> None:
    """Raises DiskFull, OSError."""
    request = {
        "action": action,
        "time": time.time(),
        **({"settings": settings} if settings else {}),
    }
    write_json(run / "request.json", request)
