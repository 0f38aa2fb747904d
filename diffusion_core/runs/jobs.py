"""Starting, stopping, pausing, resuming and changing runs: each run is a process of its own.

The process outlives the one that started it. It is controlled through files in the run folder, by
any process of this host. `run.py` reads a run, `queue.py` waits for a device.

`by`, in every function that does something: who does it, for `history.py`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffusion_core.data import store
from diffusion_core.data.errors import DataError
from diffusion_core.data.split import held_out_count
from diffusion_core.device import pick_device
from diffusion_core.files import TEMPORARY, listing, os_sentence
from diffusion_core.runs.changes import add_change, check_changes
from diffusion_core.runs.checkpoint import step_of
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import update_config_file, write_config_file
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.launch import launch_commands, processes_for
from diffusion_core.runs.moved import find_moved
from diffusion_core.runs.origin import keep_origin, settle_origin
from diffusion_core.runs.presets import check_network
from diffusion_core.runs.queue import JobError as JobError
from diffusion_core.runs.queue import holding_queue, leave_queue, line_up, settle_config
from diffusion_core.runs.queue import move as move
from diffusion_core.runs.queue import start_next as start_next
from diffusion_core.runs.request import ACTIONS, ENDING, read_request, write_request
from diffusion_core.runs.run import Run, RunSnapshot, is_run
from diffusion_core.runs.slurm import job_script
from diffusion_core.runs.status import (
    ACTIVE,
    RESUMABLE,
    RunState,
    StatusRecord,
    waits_without_process,
    write_status,
)
from diffusion_core.text import shown

_log = logging.getLogger(__name__)

REQUESTS = tuple(action for action in ACTIONS if action != "change")  # which takes settings too


def check_name(name: str) -> str:
    """A run's name as a folder name: letters, digits, ".", "_", "-"; raises JobError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise JobError(
            f"{shown(name)} cannot be a run's name. Use up to 80 letters, digits, dots, dashes and "
            f"underscores, beginning with a letter or digit."
        )
    return name


def check_new(path: Path) -> None:
    """Whether a new run may use this folder: it does not exist yet or is empty, its name can be
    listed, and it is in no other run. Raises JobError.
    """
    if not path.name:
        raise JobError(f"{path} cannot be a run; name a folder in it.")
    check_name(path.name)
    for parent in path.absolute().parents:
        if is_run(parent):
            raise JobError(f"{path} is inside the run {parent.name}; choose a folder of its own.")
    try:
        found = sorted(each.name for each in path.iterdir() if not each.name.endswith(TEMPORARY))
    except FileNotFoundError:
        return
    except OSError as error:
        raise JobError(f"{path} cannot be used: {error.strerror}.") from error
    if found:
        more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
        raise JobError(
            f"{path} holds other files: {', '.join(map(shown, found[:3]))}{more}. Choose a new "
            "folder: deleting the run would delete them too."
        )


def free_name(runs_dir: Path, stem: str) -> str:
    """`stem`, or the first of `stem`-2, `stem`-3, ... that is no run yet."""
    name, number = stem, 1
    while os.path.lexists(runs_dir / name):
        number += 1
        name = f"{stem}-{number}"
    return name


def check_data(config: RunConfig) -> None:
    """Check the images of a run before it is started.

    Raises DataError where there are none, ConfigError where they do not fill a batch. A set that
    may have to be downloaded first is left to the run.
    """
    if store.may_download(config.data):
        return
    count = store.count(config.data)
    held_out_count(count, config.validation_count, config.batch_size, config.data)


def create(runs_dir: Path, name: str, config: RunConfig, by: str | None = None) -> Run:
    """Make the folder of a new run with its `config.json`, stopped before its first step.

    A path in its settings is made absolute, and the weights that it starts from are copied. Raises
    JobError where the name is taken or the folder cannot be made, ConfigError for a network that
    cannot be built or weights that do not fit; then nothing is left.
    """
    run = _create(runs_dir, name, config)
    record(run.path, Event.CREATED, by)
    return run


def _create(runs_dir: Path, name: str, config: RunConfig) -> Run:
    path = runs_dir / check_name(name)
    check_network(config)
    if is_run(runs_dir):
        raise JobError(f"{runs_dir} is a run; new runs need a folder of their own.")
    config = settle_origin(config.replace(data=store.absolute(config.data)), runs_dir)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except FileExistsError as error:
        if not runs_dir.is_dir():
            raise JobError(f"{runs_dir} is a file; the runs need a folder.") from error
        raise JobError(f"There is already a run called {name}; choose another name.") from error
    except OSError as error:
        raise JobError(f"{path} cannot be made: {error.strerror}.") from error
    status = StatusRecord(created=time.time(), state=RunState.STOPPED, total=config.steps)
    try:
        keep_origin(path, config)
        write_config_file(path, config)
        write_status(path, status)
    except ConfigError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise JobError(f"{name} cannot be created: {os_sentence(error)}") from error
    return Run(path)


def start(
    runs_dir: Path,
    name: str,
    config: RunConfig,
    device: str | None = None,
    processes: int | None = None,
    by: str | None = None,
) -> Run:
    """Start a new run in a process of its own, or put it in the queue; returns at once.

    `processes`: see `launch.processes_for`. Raises JobError as `create` and where the process
    cannot be started, ConfigError for processes that cannot share a batch. Leaves nothing behind
    then.
    """
    check_name(name)
    device = on_this_machine(device)
    processes = processes_for(config, device, processes)
    run = _create(runs_dir, name, config)
    try:
        line_up(run.path, device, config.steps, processes)
    except JobError:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    record(run.path, Event.STARTED, by)
    _log.info("run created", extra={"run": name, "device": device, "steps": config.steps})
    return run


def resume(
    run: Run,
    device: str | None = None,
    settings: dict[str, Any] | None = None,
    processes: int | None = None,
    by: str | None = None,
) -> None:
    """Continue from the last checkpoint in a process of its own, or wait in the queue.

    `settings`: see `change`; with more `steps` a finished run continues too. `processes`: see
    `launch.processes_for`; it may be another number than before. Raises JobError where it cannot,
    ConfigError for settings that cannot be used.
    """
    seen = run.snapshot()
    more_steps = "steps" in (settings or {})
    if seen.state not in RESUMABLE and not (seen.state == RunState.FINISHED and more_steps):
        hint = " Give it more steps to continue." if seen.state == RunState.FINISHED else ""
        raise JobError(f"{run.name} {seen.state.predicate}; there is nothing to resume.{hint}")
    check_state(run)
    device = on_this_machine(device)
    if settings:
        change(run, settings, by)
        seen = run.snapshot()
    config = _usable_config(seen, "resume")
    line_up(run.path, device, config.steps, processes_for(config, device, processes))
    record(run.path, Event.RESUMED if seen.begun else Event.STARTED, by)
    _log.info("run resumed", extra={"run": run.name, "device": device, "steps": config.steps})


def commands_for(run: Run, machines: int, processes: int) -> list[str]:
    """The commands that continue a run, one for each machine: see `launch.launch_commands`.

    Raises JobError where it cannot continue, ConfigError where its batch cannot be shared so.
    """
    seen, config = _to_continue_elsewhere(run)
    return launch_commands(run.path, config, machines, processes, resume=seen.begun)


def slurm_script(run: Run, machines: int, processes: int, device: str | None) -> str:
    """The script that continues a run as a job of Slurm: see `slurm.job_script`.

    Raises as `commands_for`.
    """
    _, config = _to_continue_elsewhere(run)
    return job_script(run.path, config, machines, processes, device)


def _to_continue_elsewhere(run: Run) -> tuple[RunSnapshot, RunConfig]:
    seen = run.snapshot()
    if seen.state in ACTIVE:
        raise JobError(
            f"{run.name} {seen.state.predicate}; pause it first to continue it elsewhere."
        )
    if seen.state == RunState.FINISHED:
        raise JobError(f"{run.name} is finished; there is nothing to continue.")
    check_state(run)
    config = _usable_config(seen, "continue")
    try:
        settle_config(run.path, seen.status)
    except OSError as error:
        raise JobError(f"{run.name} cannot be changed: {os_sentence(error)}") from error
    return seen, config


def _usable_config(run: RunSnapshot, action: str) -> RunConfig:
    if run.config is not None:
        return run.config
    if run.problem:
        raise JobError(f"{run.name} cannot {action}: {run.problem}")
    raise JobError(f"{run.name} has left no settings to {action} with; start a new run.")


def can_go_on(run: Run) -> bool:
    """Whether a run can continue from a checkpoint, or has none and starts from the beginning."""
    weights = {step for step, _ in run.weights()}
    states = {step_of(path) for path in listing(run.path / "state", "*.pt")}
    return not weights or bool(weights & states)


def check_state(run: Run) -> None:
    """Raises JobError for a run that has weights but can continue from none of them."""
    if not can_go_on(run):
        raise JobError(
            f"{run.name} has weights to sample with, but no state to continue from. "
            f"Start another run like it instead."
        )


def request(run: Run, action: str, by: str | None = None) -> None:
    """Request a run at work to `pause`, `stop`, write a `sample` strip or a `checkpoint`.

    The run answers at its next step; one that waits without a process leaves the queue at once.
    Raises JobError for a run that is not at work.
    """
    if action not in REQUESTS:
        raise JobError(f"{action!r} is not a request; use {', '.join(REQUESTS)}.")
    if waits_without_process(run.status) and leave_queue(run, action):
        record(run.path, Event.UNQUEUED, by)
        _log.info("run left the queue", extra={"run": run.name, "request": action})
        return
    if (state := run.state) not in ACTIVE:
        raise JobError(f"{run.name} {state.predicate}; there is nothing to {action}.")
    with holding_queue(run.path.parent):  # so that none takes the place of one that came meanwhile
        waiting = read_request(run.path / "request.json")
        if waiting.action in ENDING and action not in ENDING:
            raise JobError(f"{run.name} will {waiting.action}; it takes no more requests.")
        if waiting.action == "change" and action not in ENDING:
            raise JobError(
                f"{run.name} has not answered the last change yet; ask again in a moment."
            )
        # A change that waits is done before the run ends.
        _ask(run, action, waiting.settings if waiting.action else None)
        record(run.path, Event(action), by)
    _log.info("request to a run", extra={"run": run.name, "request": action})


def change(run: Run, settings: dict[str, Any], by: str | None = None) -> None:
    """Change settings of a run (those of `changes.CHANGEABLE`) from its next step on.

    A run at work gets a request; for another the change is written and holds when it resumes.
    `data`, for images that were moved, changes only where the images are the same, and not while
    the run is at work. Raises ConfigError for settings that cannot be used, JobError where the run
    takes none now.
    """
    if not settings:
        raise ConfigError("Say what to change, for example learning_rate=0.0001.")
    before = run.snapshot().config
    _change(run, settings)
    edits = {name: (getattr(before, name, None), value) for name, value in settings.items()}
    record(run.path, Event.CHANGED, by, settings=edits)
    _log.info("run changed", extra={"run": run.name, "settings": settings})


def _restart(seen: RunSnapshot, settings: dict[str, Any], reached: int) -> dict[str, Any]:
    """A run that has made all its steps, and gets more, begins the decay of its rate anew: a warm
    restart (Loshchilov & Hutter 2017)."""
    config = seen.config
    if config is None or config.learning_rate_decay == "constant" or "restart_at" in settings:
        return {}
    more = settings.get("steps", 0) > config.steps
    return {"restart_at": reached + 1} if more and reached >= config.steps else {}


def _change(run: Run, settings: dict[str, Any]) -> None:
    at_step = {name: value for name, value in settings.items() if name != "data"}
    moved = _find_moved(run.snapshot(), settings["data"]) if "data" in settings else None
    with holding_queue(run.path.parent):  # so that it does not start meanwhile
        seen = run.snapshot()
        if seen.state in ACTIVE and not waits_without_process(seen.status):
            if moved is not None:
                raise _at_work(seen)
            _ask_to_change(seen, at_step)
            return
        latest = run.latest_checkpoint()
        reached = latest.step if latest is not None else 0
        at_step |= _restart(seen, at_step, reached)
        config = _check_change(seen, at_step, reached)
        try:
            if not seen.begun:
                data = {"data": moved[0]} if moved is not None else {}
                write_config_file(run.path, config.replace(**data))
            elif moved is not None:
                update_config_file(run.path, {"data": moved[0]}, {"data_content": moved[1]})
            if seen.begun and at_step:
                add_change(run.path, reached + 1, at_step)
            if "steps" in at_step:
                with suppress(OSError):  # the change counts; a resume writes the number again
                    write_status(run.path, seen.status.replace(total=config.steps))
        except OSError as error:
            raise JobError(f"{run.name} cannot be changed: {os_sentence(error)}") from error


def _find_moved(run: RunSnapshot, data: str) -> tuple[str, str]:
    """See `moved.find_moved`; a run that has not begun may take other images."""
    if run.state in ACTIVE and not waits_without_process(run.status):
        raise _at_work(run)
    config = _usable_config(run, "change")
    if run.begun:
        return find_moved(run, data)
    config = config.replace(data=store.absolute(data))
    try:
        check_data(config)
    except DataError as error:
        raise ConfigError(str(error)) from error
    return config.data, ""


def _at_work(run: RunSnapshot) -> JobError:
    return JobError(f"{run.name} {run.state.predicate}; pause it before you change its data.")


def on_this_machine(device: str | None) -> str:
    """The device that a name means here, so that a run knows what it waits for. Raises JobError."""
    try:
        return str(pick_device(device))
    except ValueError as error:
        raise JobError(str(error)) from error


def _ask(run: Run, action: str, settings: dict[str, Any] | None = None) -> None:
    try:
        write_request(run.path, action, settings)
    except OSError as error:
        raise JobError(f"{run.name} cannot be asked to {action}: {error.strerror}") from error


def _ask_to_change(run: RunSnapshot, settings: dict[str, Any]) -> None:
    if run.pending in ENDING:
        raise JobError(f"{run.name} will {run.pending}; change it after that.")
    if run.pending in ("sample", "checkpoint"):
        raise JobError(
            f"{run.name} has not answered the request for a {run.pending} yet; ask again in a "
            f"moment."
        )
    settings = {**run.request.settings, **settings}
    _check_change(run, settings, run.status.step)
    _ask(run.run, "change", settings)


def _check_change(run: RunSnapshot, settings: dict[str, Any], reached: int) -> RunConfig:
    """The settings of a run after a change at step `reached`. Raises ConfigError, JobError."""
    config = check_changes(_usable_config(run, "change"), settings)
    if "steps" in settings and config.steps <= reached:
        raise ConfigError(
            f"{run.name} has made {reached:,} steps; steps is {config.steps:,} and must be more."
        )
    return config
