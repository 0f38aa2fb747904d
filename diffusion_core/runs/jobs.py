"""Starting, stopping, pausing, resuming and changing runs: each run is a process of its own.

The process outlives whoever started it. Everything goes through the run folder, so whoever sees
the folder on this host can ask. What a run says back is read through `runs.py`; how runs wait for
a device is in `run_queue.py`.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from diffusion_core.data import store
from diffusion_core.device import pick_device
from diffusion_core.files import os_sentence, read_json, write_json
from diffusion_core.runs.changes import add_change, check_changes
from diffusion_core.runs.checkpoint import step_of
from diffusion_core.runs.config import ConfigError, RunConfig, parse_settings, with_settings
from diffusion_core.runs.launch import launch_commands, processes_for
from diffusion_core.runs.presets import as_arguments, preset
from diffusion_core.runs.queue import (
    JobError,
    holding_queue,
    leave_queue,
    line_up,
    move,
    start_next,
)
from diffusion_core.runs.run import ACTIVE, RESUMABLE, Run, waits_without_process
from diffusion_core.runs.status import ACTIONS, ENDING
from diffusion_core.training.batches import held_out_count

__all__ = [
    "JobError",
    "can_go_on",
    "change",
    "check_data",
    "check_name",
    "commands_for",
    "free_name",
    "move",
    "pending_request",
    "request",
    "resume",
    "settings_of",
    "start",
    "start_next",
]

REQUESTS = tuple(action for action in ACTIONS if action != "change")  # which takes settings too


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
    """Look at the images that a run would learn before it is started.

    Raises DataError where there are none, ConfigError where they do not fill a batch. A set that
    may have to be downloaded first is left to the run.
    """
    if store.may_download(config.data):
        return
    held_out_count(config, store.count(config.data))


def settings_of(run: Run) -> RunConfig | None:
    """A run's settings as they are now, also of one that has not begun; None where it left none.

    Raises ConfigError.
    """
    config = run.config
    words = run.status.get("arguments", [])
    if config is None and words[:1] == ["--preset"]:
        # As `as_arguments` wrote them.
        return with_settings(preset(words[1]), parse_settings(words[3::2]))
    return config


def start(
    runs_dir: Path, name: str, config: RunConfig, device: str | None = None, processes: int = 0
) -> Run:
    """Start a new run in a process of its own, or put it in the queue; returns at once.

    `processes`: see `launch.processes_for`. Raises JobError where the name is taken, the folder
    cannot be made or the process not started; ConfigError for a preset that does not exist or
    processes that cannot share a batch. Nothing is left behind then.
    """
    arguments = as_arguments(config)
    path = runs_dir / check_name(name)
    device = _on_this_machine(device)
    processes = processes_for(config, device, processes)
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
        line_up(path, arguments, device, config.steps, processes)
    except JobError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return Run(path)


def resume(
    run: Run,
    device: str | None = None,
    settings: dict[str, Any] | None = None,
    processes: int = 0,
) -> None:
    """Go on from the last checkpoint in a process of its own, or wait for the device in the queue.

    `settings`: see `change`; with more `steps` a finished run goes on too. `processes`: see
    `launch.processes_for`; it may be another number than before. Raises JobError where it cannot,
    ConfigError for settings that cannot be used.
    """
    state = run.state
    more_steps = "steps" in (settings or {})
    if state not in RESUMABLE and not (state == "finished" and more_steps):
        hint = " Give it more steps, and it goes on." if state == "finished" else ""
        raise JobError(f"{run.name} is {state}; there is nothing to resume.{hint}")
    if not can_go_on(run):
        raise JobError(
            f"{run.name} has kept weights to draw with, but no state to go on from. "
            f"Start another run like it instead."
        )
    device = _on_this_machine(device)
    if settings:
        change(run, settings)
    try:
        # One that ended before its settings were settled has them in its status alone.
        arguments = ["--resume"] if run.config else run.status.get("arguments")
        config = settings_of(run)
    except ConfigError as error:
        raise JobError(f"{run.name} cannot be resumed: {error}") from error
    if arguments is None or config is None:
        raise JobError(f"{run.name} has left no settings to resume it with; start a new run.")
    processes = processes_for(config, device, processes)
    line_up(run.path, arguments, device, config.steps, processes)


def commands_for(run: Run, machines: int, processes: int) -> list[str]:
    """What to type on each machine to go on with a run: see `launch.launch_commands`.

    Raises JobError where it cannot go on, ConfigError where its batch cannot be shared so.
    """
    state = run.state
    if state in ACTIVE:
        raise JobError(f"{run.name} is {state}; pause it first, and it can go on elsewhere.")
    if state == "finished" or not can_go_on(run):
        raise JobError(f"{run.name} is {state}; there is nothing to go on with.")
    config = settings_of(run)
    if config is None:
        raise JobError(f"{run.name} has left no settings to go on with; start a new run.")
    return launch_commands(run.path, config, machines, processes, resume=run.config is not None)


def can_go_on(run: Run) -> bool:
    """Whether a run has what it needs to go on from a checkpoint, or has none and begins anew."""
    weights = {step for step, _ in run.weights()}
    states = {step_of(path) for path in (run.path / "state").glob("*.pt")}
    return not weights or bool(weights & states)


def request(run: Run, action: str) -> None:
    """Ask a run at work to `pause`, `stop`, draw a `sample` or write a `checkpoint`.

    The run answers at its next step; one that waits without a process leaves the queue at once.
    Raises JobError for a run that is not at work.
    """
    if action not in REQUESTS:
        raise JobError(f"{action!r} is nothing that a run can do; it can {', '.join(REQUESTS)}.")
    if waits_without_process(run.status) and leave_queue(run, action):
        return
    state = run.state
    if state not in ACTIVE:
        raise JobError(f"{run.name} is {state}; there is nothing to {action}.")
    waiting = read_json(run.path / "request.json") or {}
    pending = pending_request(run)
    if pending in ENDING and action not in ENDING:
        raise JobError(f"{run.name} was asked to {pending} and will; it takes no more requests.")
    if pending == "change" and action not in ENDING:
        raise JobError(f"{run.name} was asked for a change just now; ask again in a moment.")
    # A change that waits is done before the run ends.
    _ask(run, action, waiting.get("settings") if pending else None)


def change(run: Run, settings: dict[str, Any]) -> None:
    """Change settings of a run (those of `changes.CHANGEABLE`) from its next step on.

    A run at work is asked to; else it is written down and holds when the run goes on. Raises
    ConfigError for settings that cannot be used, JobError where the run takes none now.
    """
    if not settings:
        raise ConfigError("Say what is to change, for example learning_rate=0.0001.")
    with holding_queue(run.path.parent):  # so that it does not start meanwhile
        status = run.status
        if run.state in ACTIVE and not waits_without_process(status):
            _ask_to_change(run, settings)
            return
        config = _check_change(run, settings, reached := _resumes_after(run))
        if "steps" in settings:
            status["total"] = config.steps
        try:
            if run.config is not None:
                add_change(run.path, reached + 1, settings)
            else:
                status["arguments"] = as_arguments(config)
            write_json(run.path / "status.json", status)
        except OSError as error:
            raise JobError(f"{run.name} cannot be changed: {os_sentence(error)}") from error


def pending_request(run: Run) -> str | None:
    """What was asked of a run and not yet taken up."""
    action = (read_json(run.path / "request.json") or {}).get("action")
    return action if action in ACTIONS else None


def _on_this_machine(device: str | None) -> str:
    """The device that a name means here, so that a run knows what it waits for. Raises JobError."""
    try:
        return str(pick_device(device))
    except ValueError as error:
        raise JobError(str(error)) from error


def _ask(run: Run, action: str, settings: dict[str, Any] | None = None) -> None:
    asked = {"action": action, "time": time.time(), **({"settings": settings} if settings else {})}
    try:
        write_json(run.path / "request.json", asked)
    except OSError as error:
        raise JobError(f"{run.name} cannot be asked to {action}: {error.strerror}") from error


def _ask_to_change(run: Run, settings: dict[str, Any]) -> None:
    waiting = read_json(run.path / "request.json") or {}
    pending = pending_request(run)
    if pending in ENDING:
        raise JobError(f"{run.name} was asked to {pending} and will; change it after that.")
    if pending in ("sample", "checkpoint"):
        raise JobError(f"{run.name} was asked for a {pending} just now; ask again in a moment.")
    if pending == "change":
        settings = {**waiting.get("settings", {}), **settings}
    _check_change(run, settings, run.status.get("step", 0))
    _ask(run, "change", settings)


def _check_change(run: Run, settings: dict[str, Any], reached: int) -> RunConfig:
    """The settings of a run after a change at step `reached`. Raises ConfigError, JobError."""
    config = settings_of(run)
    if config is None:
        raise JobError(f"{run.name} has left no settings that could change.")
    if "steps" in settings and settings["steps"] <= reached:
        raise ConfigError(
            f"{run.name} has made {reached:,} steps; steps is {settings['steps']} and must be more."
        )
    return check_changes(config, settings)


def _resumes_after(run: Run) -> int:
    """The step of the checkpoint that a run would go on from; 0 for the beginning."""
    latest = run.latest_checkpoint()
    return latest.step if latest is not None else 0
