"""The training loop: step after step, until the last one or a request to end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusion_core.cores import take_share
from diffusion_core.files import complain
from diffusion_core.runs.changes import (
    Change,
    add_change,
    check_changes,
    read_changes,
    with_change,
    with_changes,
)
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.request import ENDING
from diffusion_core.runs.status import RunState
from diffusion_core.training.checkpoint_writer import CheckpointWriter
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.control_sync import ControlSync
from diffusion_core.training.distributed import ProcessGroup
from diffusion_core.training.evaluations import Evaluations
from diffusion_core.training.step import one_step, validate
from diffusion_core.training.step_log import StepLog

OnStep = Callable[[int, int, float | None], None]


def run_steps(
    context: TrainingContext,
    done: int,
    group: ProcessGroup,
    log: StepLog,
    checkpoint_writer: CheckpointWriter,
    evaluations: Evaluations,
    on_step: OnStep | None,
) -> RunState:
    """Make the steps after `done`. Returns FINISHED, STOPPED or PAUSED. Raises NotFinite."""
    lead, status = context.accelerator.is_main_process, log.status
    path = status.path
    start, changes = context.config, read_changes(path)
    context.config = with_changes(start, changes, done + 1)
    status.update(total=context.config.steps)
    if done >= context.config.steps:  # killed after its last checkpoint: nothing is left to do
        group.leave()
        return RunState.FINISHED
    threads = 0
    control = ControlSync(context.accelerator, status, done)
    for step in itertools.count(done + 1):
        taken = take_share(context.config.threads)
        if lead and taken != threads and context.device.type == "cpu":
            if threads:  # the curve falls between two steps, and not slowly from the last change on
                log.add_value(step - 1, "threads", torch.tensor(float(threads)))
            log.add_value(step, "threads", torch.tensor(float(taken)))
            threads = taken
        log.add(step, one_step(context, step))
        config = context.config
        asked, settings = control.ask(step)
        if settings:
            changes = _change(path, config, changes, step + 1, settings, lead)
        if any(change.step == step + 1 for change in changes):
            context.config = with_changes(start, changes, step + 1)
            status.update(total=context.config.steps)
        last = step >= context.config.steps
        rests = step == config.pause_at
        action = "pause" if rests and asked not in ENDING else asked
        ending = last or action in ENDING
        if ending and not last:
            status.update(state=RunState.STOPPING if action == "stop" else RunState.PAUSING)
        resting = last or rests
        validated = _due(step, config.validate_every, resting)
        if lead and validated and len(context.validation_index):
            for name, value in validate(context).items():
                log.add_value(step, name, value)
        keep = _due(step, config.checkpoint_every, ending) or action == "checkpoint" or ending
        if keep or step == done + 1 or (control.met(step) if control.several else log.due()):
            log.send()
        loss = log.receive(wait=ending)  # raises on a broken step
        if lead and (_due(step, config.sample_every, last) or asked == "sample"):
            checkpoint_writer.strip(step)
        if lead and _due(step, config.average_snapshots, last):
            checkpoint_writer.snapshot_averages(step)
        evaluate = _due(step, config.evaluate_every, resting)
        # A run that pauses by itself does so to be compared with others: whatever it costs.
        evaluate = evaluate and (rests or evaluations.fit(log.speed, last))
        if lead and (keep or evaluate):
            checkpoint_writer.checkpoint(step, must=ending, evaluate=evaluate)
        checkpoint_writer.release(log.written)
        evaluations.write(log)
        if on_step is not None:
            on_step(step, context.config.steps, loss)
        if ending:
            group.leave()  # the others need not wait for what is still to be written
            if not resting:
                evaluations.cancel()
            checkpoint_writer.finish()
            if lead:
                evaluations.finish(log)
                checkpoint_writer.remove_old(config)
            return RunState.FINISHED if last else ENDING[action]
    raise AssertionError("itertools.count ends")


def _change(
    path: Path,
    config: RunConfig,
    changes: list[Change],
    step: int,
    settings: dict[str, Any],
    lead: bool,
) -> list[Change]:
    """All changes with this one from `step` on; reports one that cannot be made."""
    try:
        check_changes(config, settings)
        if lead:
            return add_change(path, step, settings)
    except (ConfigError, OSError) as error:
        complain(f"Not changed: {error}")
        return changes
    return with_change(changes, step, settings)


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (last or step % every == 0)
