"""Starting, stopping, pausing and resuming runs: each run is a process of its own.

The process outlives whoever started it. Everything goes through the run folder, so whoever sees
the folder on this host can ask. What a run says back is read through `runs.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from diffusion_core.batches import held_out_count
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.data import store
from diffusion_core.data.torchvision_sets import may_download
from diffusion_core.files import read_json, write_json
from diffusion_core.presets import as_arguments
from diffusion_core.runs import ACTIVE, RESUMABLE, Run
from diffusion_core.status import ACTIONS, ENDING


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


def free_name(runs_dir: Path, stem: str) -> str:
    """`stem`, or the first of `stem`-2, `stem`-3, ... that is no run yet."""
    name, number = stem, 1
    while (runs_dir / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def check_data(config: RunConfig) -> None:
    """Look at the pictures that a run would learn before it is started.

    Raises DataError where there are none, ConfigError where they do not fill a batch. A set that
    torchvision may yet have to download is left to the run.
    """
    if config.data.startswith("torchvision:") and may_download():
        return
    held_out_count(config, store.count(config.data))


def start(runs_dir: Path, name: str, config: RunConfig, device: str | None = None) -> Run:
    """Start a new run in a process of its own; returns at once.

    Raises JobError where the name is taken, the folder cannot be made or the process not started;
    ConfigError for a preset that does not exist. Nothing is left behind then.
    """
    arguments = as_arguments(config)
    path = runs_dir / check_name(name)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except FileExistsError as error:
        if not runs_dir.is_dir():
            raise JobError(f"{runs_dir} is a file; the runs need a folder.") from error
        raise JobError(f"There is already a run called {name}; choose another name.") from error
    except OSError as error:
        raise JobError(f"{path} cannot be made: {error.strerror}.") from error
    try:
        _spawn(path, arguments, device)
    except JobError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return Run(path)


def resume(run: Run, device: str | None = None) -> None:
    """Go on from the last checkpoint in a process of its own; raises JobError where it cannot."""
    state = run.state
    if state not in RESUMABLE:
        raise JobError(f"{run.name} is {state}; there is nothing to resume.")
    try:
        # One that ended before its settings were settled has them in its status alone.
        arguments = ["--resume"] if run.config else run.status.get("arguments")
    except ConfigError as error:
        raise JobError(f"{run.name} cannot be resumed: {error}") from error
    if arguments is None:
        raise JobError(f"{run.name} has left no settings to resume it with; start a new run.")
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
    pending = pending_request(run)
    if pending in ENDING and action not in ENDING:
        raise JobError(f"{run.name} was asked to {pending} and will; it takes no more requests.")
    try:
        write_json(run.path / "request.json", {"action": action, "time": time.time()})
    except OSError as error:
        raise JobError(f"{run.name} cannot be asked to {action}: {error.strerror}") from error


def pending_request(run: Run) -> str | None:
    """What was asked of a run and not yet taken up."""
    action = (read_json(run.path / "request.json") or {}).get("action")
    return action if action in ACTIONS else None


def _spawn(path: Path, arguments: list[str], device: str | None) -> None:
    """A detached trainer: a session of its own, its words in train.log. Raises JobError."""
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
    command = [sys.executable, "-m", "diffusion_core", "train", "--run", str(path), "--quiet"]
    command += [*arguments, *(["--device", device] if device else [])]
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        write_json(path / "status.json", status)
        # What was asked of an earlier process of this run is not meant for the next one.
        (path / "request.json").unlink(missing_ok=True)
        with open(path / "train.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": search},
                start_new_session=True,
            )
    except OSError as error:
        raise JobError(f"{path.name} cannot be started: {error.strerror or error}") from error
    # A reader can look for the process while it still imports PyTorch; then it speaks for itself.
    with suppress(OSError, psutil.Error):
        started = psutil.Process(process.pid).create_time()
        write_json(path / "status.json", status | {"pid": process.pid, "process_started": started})
