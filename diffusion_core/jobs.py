"""Starting, stopping, pausing and resuming runs: each run is a process of its own.

The process outlives whoever started it. Everything goes through the run folder, so whoever sees
the folder on this host can ask. What a run says back is read through `runs.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.files import write_json
from diffusion_core.runs import ACTIVE, RESUMABLE, Run, load_run
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
    write_json(path / "wanted.json", {"config": config_dict(config)})
    _spawn(path, ["--config", str(path / "wanted.json")], device)
    return Run(path)


def resume(run: Run, device: str | None = None) -> None:
    """Go on from the last checkpoint in a process of its own; raises JobError where it cannot."""
    state = run.state
    if state not in RESUMABLE:
        raise JobError(f"{run.name} is {state}; only a run that is not at work can be resumed.")
    wanted = run.path / "wanted.json"
    if run.config is None and wanted.exists():  # it ended before its settings were settled
        _spawn(run.path, ["--config", str(wanted)], device)
    else:
        _spawn(run.path, ["--resume"], device)


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
    """What was asked and not yet taken up."""
    from diffusion_core.files import read_json

    return (read_json(run.path / "request.json") or {}).get("action")


def config_dict(config: RunConfig) -> dict:
    import json

    return json.loads(config.to_json())


def _spawn(path: Path, arguments: list[str], device: str | None) -> None:
    """A detached trainer: a session of its own, its words in train.log."""
    # Until the process speaks for itself; a reader takes it for lost when it never does.
    before = load_status(path)
    starting = {"state": "starting", "heartbeat": time.time(), "pid": None, "error": None}
    write_json(path / "status.json", {"created": time.time(), **before, **starting})
    command = [sys.executable, "-m", "diffusion_core", "train", "--run", str(path), "--quiet"]
    command += [*arguments, *(["--device", device] if device else [])]
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path[:0]])}
    with open(path / "train.log", "ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=root,
            env=environment,
            start_new_session=True,
        )
