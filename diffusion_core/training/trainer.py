"""Training: one process, or several under accelerate, one run folder.

It writes the run folder and reads `request.json`; it knows nothing of who asks or who watches. The
parts of it: `trainer_setup.py` (made once), `trainer_step.py` (one step), `step_log.py` (the
numbers), `trainer_keep.py` (checkpoints and strips).
"""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusion_core.data.store import DataError, ImageStore
from diffusion_core.files import DiskFull, complain, os_sentence, remove_leftovers
from diffusion_core.runs.changes import (
    Change,
    add_change,
    check_changes,
    read_changes,
    with_change,
    with_changes,
)
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.run import load_run
from diffusion_core.runs.status_writer import StatusWriter, StopRequested, only_trainer
from diffusion_core.training.checkpoint_writer import CannotResume, CheckpointWriter, restore
from diffusion_core.training.context import (
    TrainingContext,
    make_context,
    prepare_images,
    resolved,
    settle_network,
)
from diffusion_core.training.control_sync import ControlSync
from diffusion_core.training.device_turn import device_turn
from diffusion_core.training.distributed import (
    ProcessesDiffer,
    ProcessGroup,
    ProcessLost,
    joined,
    process_number,
    processes_here,
)
from diffusion_core.training.nan_report import first_layer
from diffusion_core.training.step import one_step, validate
from diffusion_core.training.step_log import NotFinite, StepLog

if TYPE_CHECKING:
    from diffusion_core.training.event_files import EventWriter


class TrainingError(RuntimeError):
    """Training could not start or go on; the message is one sentence for the user."""


OnStep = Callable[[int, int, float | None], None]


def train(
    path: Path,
    config: RunConfig | None = None,
    *,
    resume: bool = False,
    device: torch.device,
    on_step: OnStep | None = None,
) -> str:
    """Train the run at `path` until it is finished or asked to stop; returns the final state.

    A new run takes `config`, or that of its `config.json` where it was created before; a resumed
    one takes its own. `on_step(step, steps, loss)` is called
    after every step (loss only when it was fetched). Returns `finished`, `stopped` or `paused`.
    Raises TrainingError, after writing the state `failed`, the reason and the traceback; Busy
    where another process trains the run.
    """
    path = Path(path)
    lead = process_number() == 0  # of the processes, the one that writes
    with joined(device) as group:
        new, config = config is not None, _open_folder(path, config, resume, lead)
        with only_trainer(path) if lead else nullcontext():
            if lead:
                remove_leftovers(path, but="request.json")
            if lead and new:
                write_config_file(path, config)
            return _train_alone(path, config, resume, device, lead, group, on_step)


def _train_alone(
    path: Path,
    config: RunConfig,
    resume: bool,
    device: torch.device,
    lead: bool,
    group: ProcessGroup,
    on_step: OnStep | None,
) -> str:
    """As `train`, with the run's folder to itself: keeps its status true, come what may."""
    status = StatusWriter(
        path, device=str(device), total=config.steps, lead=lead, processes=processes_here()
    )
    group.on_loss = lambda loss: status.update(state="failed", error=_lost_sentence(loss, status))
    try:
        with status, group.blamed(), device_turn(status, path.parent):
            state = _train(path, config, resume, device, status, group, on_step)
            status.update(state=state, message="")
            return state
    except StopRequested as asked:  # while it waited or prepared: nothing to keep
        state = "stopped" if asked.action == "stop" else "paused"
        status.update(state=state, message="")
        group.leave_alone(asked)
        return state
    except KeyboardInterrupt:
        status.update(state="stopped", message="")
        raise
    except Exception as error:
        reason = (
            _lost_sentence(error, status) if isinstance(error, ProcessLost) else _sentence(error)
        )
        if not isinstance(error, (DiskFull, ProcessLost)):  # which the sentence says all about
            _log_traceback(path)
        status.update(state="failed", error=reason)
        raise TrainingError(reason) from error


def _train(
    path: Path,
    config: RunConfig,
    resume: bool,
    device: torch.device,
    status: StatusWriter,
    group: ProcessGroup,
    on_step: OnStep | None,
) -> str:
    def progress(ready: int, count: int) -> None:
        group.check()
        status.raise_if_asked()
        status.update(message=f"Preparing the images: {ready:,} of {count:,}.", quick=True)

    status.update(state="starting", message="Preparing the images.", not_finite=False)
    group.my_turn(status.raise_if_asked)
    store = prepare_images(config, progress)
    group.all_ready(status.raise_if_asked)
    context = make_context(settle_network(config, store), store, device)
    done, warning = restore(path, context) if resume else (0, None)
    group.check_same(_what_must_be_same(path, config, store, done))
    lead = context.accelerator.is_main_process
    if lead and load_run(path).snapshot().details is None:
        write_config_file(path, context.config, resolved(context))
    status.update(state="running", message="", step=done, resumed_from=done)
    status.update(checkpoint_step=done or None, error="", warning=warning or "")
    metrics = MetricsWriter(path / "metrics.sqlite", keep_up_to_step=done) if lead else None
    events = _open_events(path, done) if lead and config.tensorboard else None
    timesteps = context.schedule.timesteps
    log = StepLog(config, context.accelerator, timesteps, metrics, events, status)
    checkpoint_writer = CheckpointWriter(path, context, status, events)
    try:
        return _steps(path, done, context, status, group, log, checkpoint_writer, on_step)
    except NotFinite as error:
        status.update(not_finite=True)
        raise TrainingError(_not_finite_sentence(error, context, status)) from error
    finally:
        checkpoint_writer.close()
        for writer in (metrics, events):
            if writer is not None:
                writer.close()


def _steps(
    path: Path,
    done: int,
    context: TrainingContext,
    status: StatusWriter,
    group: ProcessGroup,
    log: StepLog,
    checkpoint_writer: CheckpointWriter,
    on_step: OnStep | None,
) -> str:
    """The loop, from the step after `done`. Returns `finished`, `stopped` or `paused`."""
    lead = context.accelerator.is_main_process
    start, changes = context.config, read_changes(path)
    context.config = log.config = with_changes(start, changes, done + 1)
    status.update(total=context.config.steps)
    control = ControlSync(context.accelerator, status, done)
    for step in itertools.count(done + 1):
        log.add(step, one_step(context, step))
        config = context.config
        action, settings = control.ask(step)
        if settings:
            changes = _change(path, config, changes, step + 1, settings, lead)
        if any(change.step == step + 1 for change in changes):
            context.config = log.config = with_changes(start, changes, step + 1)
            status.update(total=context.config.steps)
        last = step >= context.config.steps
        ending = last or action in ("stop", "pause")
        if ending and not last:
            status.update(state="stopping" if action == "stop" else "pausing")
        if lead and _due(step, config.validate_every, last) and len(context.validation_index):
            log.add_value(step, "validation_loss", validate(context))
        keep = _due(step, config.checkpoint_every, ending) or action == "checkpoint" or ending
        if keep or step == done + 1 or (control.met(step) if control.several else log.due()):
            log.send()
        loss = log.receive(wait=ending)  # raises on a broken step
        if lead and (_due(step, config.sample_every, last) or action == "sample"):
            checkpoint_writer.strip(step)
        if lead and keep:
            checkpoint_writer.checkpoint(step, must=ending)
        checkpoint_writer.release(log.written)
        if on_step is not None:
            on_step(step, context.config.steps, loss)
        if ending:
            group.leave()  # the others need not wait for what is still to be written
            checkpoint_writer.finish()
            return "finished" if last else "stopped" if action == "stop" else "paused"
    raise AssertionError("itertools.count ends")


def _change(
    path: Path,
    config: RunConfig,
    changes: list[Change],
    step: int,
    settings: dict[str, Any],
    lead: bool,
) -> list[Change]:
    """All changes with this one, which holds from `step` on; what cannot be is said and left."""
    try:
        check_changes(config, settings)
        if lead:
            return add_change(path, step, settings)
    except (ConfigError, OSError) as error:
        complain(f"Not changed: {error}")
        return changes
    return with_change(changes, step, settings)


def _open_events(path: Path, done: int) -> EventWriter:
    from diffusion_core.training.event_files import (
        EventWriter,  # only who wants the files loads their format
    )

    return EventWriter(path, done)


def _what_must_be_same(
    path: Path, config: RunConfig, store: ImageStore, done: int
) -> dict[str, Any]:
    """Of a run's processes, by what it is called."""
    changes = [(change.step, change.settings) for change in read_changes(path)]
    return {
        "settings": (config.to_json(), changes),
        "pictures": store.fingerprint,
        "checkpoint": done,
    }


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (last or step % every == 0)


def _open_folder(path: Path, config: RunConfig | None, resume: bool, lead: bool) -> RunConfig:
    """The run's settings as they were at its start; makes the folder of a new run."""
    try:
        run = load_run(path)
    except FileNotFoundError as error:
        if resume or config is None:
            hint = "to resume" if resume else "to train; give it settings, for example --preset"
            raise TrainingError(f"There is no run at {path} {hint}.") from error
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{path} cannot be made: {error.strerror}.") from error
        _check_writable(path)
        return config
    _check_writable(path)
    # Of several processes the first one may have begun the run by now.
    if not resume and lead and run.snapshot().begun:
        raise TrainingError(
            f"{path} already holds a run. Continue it with --resume, or choose another name."
        )
    config = config or run.config_at(0)
    if config is None:
        raise TrainingError(f"{path} has no settings; start a new run.")
    return config


def _check_writable(path: Path) -> None:
    """The run's files are written into its folder, the locks into the one above."""
    for folder in (path.resolve().parent, path):
        if not os.access(folder, os.W_OK):
            raise TrainingError(f"{folder} cannot be written to, and training writes there.")


def _not_finite_sentence(error: NotFinite, context: TrainingContext, status: StatusWriter) -> str:
    saved = status.status.checkpoint_step
    rate = f"a lower learning rate than {context.config.learning_rate:g}"
    if saved:
        way = f"The checkpoint of step {saved:,} is intact: resume from it with {rate}."
    else:
        way = f"There is no checkpoint before it: start again with {rate}."
    return f"{error} It shows first in {first_layer(context, error.step)}. {way}"


def _lost_sentence(loss: ProcessLost, status: StatusWriter) -> str:
    saved = status.status.checkpoint_step
    if saved:
        return f"{loss} Resume the run, and it goes on from step {saved:,}."
    return f"{loss} Resume the run; it has no checkpoint yet and begins anew."


def _log_traceback(path: Path) -> None:
    """Add the traceback to `train.log`: the terminal gets the sentence alone."""
    try:
        with open(path / "train.log", "a") as log:
            log.write(traceback.format_exc())
    except OSError:  # a full disk, most likely
        complain(traceback.format_exc())


def _sentence(error: Exception) -> str:
    """The reason in one sentence for the status and the terminal."""
    if isinstance(error, (TrainingError, CannotResume, ConfigError, DataError, ProcessesDiffer)):
        return str(error)
    if isinstance(error, OSError):
        return os_sentence(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "The device has not enough memory for a single image of this size and network."
    return f"{type(error).__name__}: {error}"
