"""Starting, stopping, pausing and resuming runs: each run is a process of its own.

The process outlives whoever started it. Everything goes through the run folder, so whoever sees
the folder on this host can ask. What a run says back is read through `runs.py`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from diffusion_core.config import RunConfig
from diffusion_core.files import read_json, write_json
from diffusion_core.presets import as_arguments
from diffusion_core.runs import ACTIVE, RESUMABLE, Run
from diffusion_core.status import ACTIONS


class JobError(ValueError):
    """Something that cannot be asked of a run now; the message says why and what can."""


def check_name(name: str) -> str:
    """A run's name as a folder name: letters, digits, ".", "_", "-"; raises JobError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise JobError(
            f"{name!r} cannot be a run's name. Use up to 80 letters, digits, dots, dashes and "
            f"underscores, beginning with a letter or digit."
        )
    return name


def start(runs_dir: Path, name: str, config: RunConfig, device: str | None = None) -> Run:
    """Start a new run in a process of its own; returns at once.

    Raises JobError where the name is taken or the folder cannot be made.
    """
    path = runs_dir / check_name(name)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except FileExistsError as error:
        raise JobError(f"There is already a run called {name}; choose another name.") from error
    except OSError as error:
        raise JobError(f"{path} cannot be made: {error.strerror}.") from error
    _spawn(path, as_arguments(config), device)
    return Run(path)


def resume(run: Run, device: str | None = None) -> None:
    """Go on from the last checkpoint in a process of its own; raises JobError where it cannot."""
    state = run.state
    if state not in RESUMABLE:
        raise JobError(f"{run.name} is {state}; there is nothing to resume.")
    # One that ended before its settings were settled has them in its status alone.
    arguments = ["--resume"] if run.config else run.status.get("arguments", ["--resume"])
    _spawn(run.path, arguments, device)


def request(run: Run, action: str) -> None:
    """Ask a run at work to `pause`, `stop`, draw a `sample` or write a `checkpoint`.

    The run answers at its next step. Raises JobError for a run that is not at work.
    """
    if action not in ACTIONS:
        raise JobError(f"{action!r} is nothing that a run can do; it can {', '.join(ACTIONS)}.")
    state = run.state
    if state not in ACTIVE:
        raise JobError(f"{run.name} is {state}; there is nothing to {action}.")
    write_json(run.path / "request.json", {"action": action, "time": time.time()})


def pending_request(run: Run) -> str | None:
    """What was asked of a run and not yet taken up."""
    return (read_json(run.path / "request.json") or {}).get("action")


def _spawn(path: Path, arguments: list[str], device: str | None) -> None:
    """A detached trainer: a session of its own, its words in train.log."""
    path = path.resolve()
    # Until the process speaks for itself; where it never does, a reader takes it for lost.
    status = {
        "created": time.time(),
        **Run(path).status,
        "state": "starting",
        "heartbeat": time.time(),
        "pid": None,
        "host": socket.gethostname(),
        "error": None,
        "arguments": arguments,
    }
    write_json(path / "status.json", status)
    command = [sys.executable, "-m", "diffusion_core", "train", "--run", str(path), "--quiet"]
    command += [*arguments, *(["--device", device] if device else [])]
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with open(path / "train.log", "ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,
        )
