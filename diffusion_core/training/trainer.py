"""Train a run: one process, or several under accelerate, one run folder.

The parts: `context.py` (made once), `loop.py` (the loop), `step.py` (one step), `step_log.py` (the
numbers), `checkpoint_writer.py` (checkpoints and strips), `evaluations.py` (quality).
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffusion_core.cores import computing
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import sentence
from diffusion_core.data.store import absolute
from diffusion_core.device import cards_of
from diffusion_core.files import DiskFull, check_folder, complain, os_sentence, remove_leftovers
from diffusion_core.runs.alerts import watch as alerts
from diffusion_core.runs.changes import read_changes
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.config_file import update_config_file, write_config_file
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.jobs import JobError, check_new
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.origin import keep_origin, load_origin, settle_origin
from diffusion_core.runs.post_hoc import remove_after
from diffusion_core.runs.request import ENDING
from diffusion_core.runs.run import Run, load_run
from diffusion_core.runs.status import RunState
from diffusion_core.runs.status_writer import StatusWriter, StopRequested, only_trainer
from diffusion_core.training.checkpoint_writer import (
    CheckpointWriter,
    WriteReport,
    refresh_report,
    restore,
    start_from,
)
from diffusion_core.training.context import (
    make_context,
    prepare_images,
    resolved,
    settle_network,
)
from diffusion_core.training.device_turn import device_turn, memory_returned
from diffusion_core.training.distributed import (
    ProcessGroup,
    ProcessLost,
    joined,
    process_number,
    processes_here,
)
from diffusion_core.training.evaluations import Evaluations
from diffusion_core.training.loop import OnStep, run_steps
from diffusion_core.training.reasons import (
    TrainingError,
    log_traceback,
    lost_reason,
    not_finite_reason,
    reason,
)
from diffusion_core.training.step_log import NotFinite, StepLog

if TYPE_CHECKING:
    from diffusion_core.training.event_files import EventWriter

__all__ = ["TrainingError", "train"]


def train(
    path: Path,
    config: RunConfig | None = None,
    *,
    resume: bool = False,
    device: torch.device,
    on_step: OnStep | None = None,
    write_report: WriteReport | None = None,
) -> RunState:
    """Train the run at `path` until it is finished or gets a request to stop.

    A new run takes `config`, in which a path is made absolute, or, if it was created before, that
    of its `config.json`; a resumed one takes its own. `on_step(step, steps, loss)` is called after
    every step (loss only when it was fetched). `write_report(path)` is called beside the training
    after each checkpoint of a run with the setting `report`, and at its end. Returns FINISHED,
    STOPPED or PAUSED. Raises TrainingError after writing the state `failed`, the reason and the
    traceback; Busy if another process trains the run; ConfigError for weights to start from that
    do not fit.
    """
    path = Path(path)
    lead = process_number() == 0  # of the processes, the one that writes
    if config is not None:
        config = settle_origin(config, path.parent)
    with joined(device) as group:
        settings = _open_folder(path, config, resume, lead)
        settings = settings.replace(data=absolute(settings.data))
        with only_trainer(path) if lead else nullcontext():
            if lead:
                remove_leftovers(path, but="request.json")
                if Run(path).state != RunState.STARTING:  # else the queue starts it for somebody
                    record(path, Event.RESUMED if resume else Event.STARTED, None)
            status = StatusWriter(
                path,
                device=str(device),
                total=settings.steps,
                lead=lead,
                processes=processes_here(),
                cards=cards_of(device, processes_here()),
            )
            return _train_alone(
                _Job(
                    settings,
                    config is not None,
                    resume,
                    device,
                    status,
                    group,
                    on_step,
                    write_report,
                )
            )


@dataclass(frozen=True)
class _Job:
    """The training of a run by this process, which has the folder to itself."""

    config: RunConfig
    new: bool  # `config.json` is still to be written
    resume: bool
    device: torch.device
    status: StatusWriter
    group: ProcessGroup
    on_step: OnStep | None
    write_report: WriteReport | None


def _train_alone(job: _Job) -> RunState:
    """As `train`; writes the status however training ends."""
    status, group, path = job.status, job.group, job.status.path

    def lost(loss: ProcessLost) -> str:
        return lost_reason(loss, status.status.checkpoint_step)

    group.on_loss = lambda loss: status.update(state=RunState.FAILED, error=lost(loss))
    try:
        with status, group.blamed():
            if status.lead:
                alerts.begin(path, status.status)
            if not job.resume and status.lead:
                keep_origin(path, job.config)
            if job.new and status.lead:
                write_config_file(path, job.config)
            with (
                device_turn(status, path.parent),
                computing(path.parent, job.device),
                memory_returned(job.device),
            ):
                state = _train(job)
                why = status.enough if state == RunState.STOPPED else ""
                status.update(state=state, message=why)
            if status.lead:
                refresh_report(path, job.write_report)
            return state
    except StopRequested as request:  # while it waited or prepared: nothing to keep
        state = ENDING[request.action]
        status.update(state=state, message="")
        group.leave_alone(request)
        return state
    except KeyboardInterrupt:
        status.update(state=RunState.STOPPED, message="")
        raise
    except Exception as error:
        why = lost(error) if isinstance(error, ProcessLost) else reason(error)
        if not isinstance(error, (DiskFull, ProcessLost)):  # whose sentence is complete
            log_traceback(path, error)
        status.update(state=RunState.FAILED, error=why)
        raise TrainingError(why) from error


def _train(job: _Job) -> RunState:
    """Prepare everything, then make the steps."""
    config, status, group, path = job.config, job.status, job.group, job.status.path

    def progress(ready: int, count: int) -> None:
        group.check()
        status.raise_if_requested()
        status.update(message=f"Preparing the images: {ready:,} of {count:,}.", quick=True)

    status.update(state=RunState.STARTING, message="Preparing the images.", not_finite=False)
    group.my_turn(status.raise_if_requested)
    try:
        store = prepare_images(config, progress)
    except DataError as error:
        if not job.resume:
            raise
        raise DataError(
            f"{error} If the images were moved, change data to their new place."
        ) from error
    status.update(found=store.found)
    if status.lead:
        complain(f"{config.data}: {sentence(store.found)}")
    group.all_ready(status.raise_if_requested)
    details = Run(path).snapshot().details
    context = make_context(settle_network(config, store), store, job.device, details)
    done, warning = restore(path, context) if job.resume else (0, "")
    if job.resume and status.lead:
        remove_after(path, done)
    if config.init_from and not (done and context.teacher is None):
        told = context.config.network_args.get("augment_dim", 0)
        weights = load_origin(path, store.classes if context.labelled else (), told)
        if not done:
            start_from(weights, context)
        if context.teacher is not None:
            context.teacher.load_state_dict(weights)
    # Each has planned with the memory of its own card.
    context.micro_batch = group.least(context.micro_batch)
    changes = [(change.step, change.settings) for change in read_changes(path)]
    settings = (config.to_json(), changes)
    group.check_same({"settings": settings, "images": store.content, "checkpoint": done})
    lead = context.accelerator.is_main_process
    if lead and details is None:
        write_config_file(path, context.config, resolved(context))
    elif lead:  # earlier versions kept a relative path and no content
        update_config_file(path, {"data": config.data}, {"data_content": store.content})
    status.update(
        state=RunState.RUNNING,
        message="",
        step=done,
        resumed_from=done,
        checkpoint_step=done or None,
    )
    status.warn(warning, lasting=True)

    def say(sentence: str) -> None:
        complain(sentence)
        status.warn(sentence, lasting=True)

    metrics = None
    if lead:
        metrics = MetricsWriter(path / "metrics.sqlite", keep_up_to_step=done, say=say)
    events = _open_events(path, done) if lead and config.tensorboard else None
    log = StepLog(context, metrics, events, status)
    evaluations = Evaluations(context, status, done if lead else 0)
    if metrics is not None:
        metrics.add(evaluations.rows())
    checkpoint_writer = CheckpointWriter(context, status, events, evaluations, job.write_report)
    try:
        return run_steps(context, done, group, log, checkpoint_writer, evaluations, job.on_step)
    except NotFinite as error:
        checkpoint_writer.finish()  # the reason names the last checkpoint
        status.update(not_finite=True)
        why = not_finite_reason(error, context, status.status.checkpoint_step)
        raise TrainingError(why) from error
    finally:
        evaluations.close()
        checkpoint_writer.close()
        for writer in (metrics, events):
            if writer is not None:
                writer.close()


def _open_events(path: Path, done: int) -> EventWriter:
    # Only a run that writes event files loads their format.
    from diffusion_core.training.event_files import EventWriter

    return EventWriter(path, done)


def _open_folder(path: Path, config: RunConfig | None, resume: bool, lead: bool) -> RunConfig:
    """The run's settings as they were at its start; makes the folder of a new run."""
    try:
        run = load_run(path)
    except FileNotFoundError as error:
        if resume or config is None:
            hint = "to resume" if resume else "to train; choose settings, for example --preset"
            raise TrainingError(f"There is no run at {path} {hint}.") from error
        try:
            if lead:
                check_new(path)
            path.mkdir(parents=True, exist_ok=True)
        except JobError as job_error:
            raise TrainingError(str(job_error)) from job_error
        except OSError as os_error:
            raise TrainingError(f"{path} cannot be made: {os_error.strerror}.") from os_error
        _check_writable(path)
        return config
    _check_writable(path)
    # Of several processes the first may have begun the run by now.
    if not resume and lead and run.snapshot().begun:
        raise TrainingError(
            f"{path} already holds a run. Continue it with --resume, or choose another name."
        )
    settings = config or run.config_at(0)
    if settings is None:
        raise TrainingError(f"{path} has no settings; start a new run.")
    return settings


def _check_writable(path: Path) -> None:
    """The run's files are written into its folder, the locks into the one above."""
    for folder in (path.resolve().parent, path):
        if not os.access(folder, os.W_OK):
            raise TrainingError(f"{folder} cannot be written to; training writes there.")
    try:
        for name in ("weights", "state", "samples"):
            check_folder(path / name)
    except OSError as error:
        raise TrainingError(os_sentence(error)) from error
