"""How a sweep goes on: which run starts next, and which stay paused at a rung.

A sweep needs no process of its own: whoever looks at the queue calls `advance`, as a trainer does
that ends. With successive halving each run pauses itself at the rung (`pause_at`). When all of a
round are there, the better half is resumed to the next rung, and the others stay paused.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion_core.device import device_count
from diffusion_core.files import os_sentence
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.metrics import MetricsError
from diffusion_core.runs.queue import holding_queue
from diffusion_core.runs.run import Run, RunSnapshot, is_run
from diffusion_core.runs.status import ACTIVE, RESUMABLE, RunState, write_status
from diffusion_core.runs.sweep_file import (
    JUDGES,
    Plan,
    Round,
    State,
    Sweep,
    holding_sweeps,
    read_sweeps,
    write_sweep,
)

_log = logging.getLogger(__name__)

# Runs by their names, as they were when they were read; None: gone, or it cannot be used.
Members = Mapping[str, RunSnapshot | None]


def advance(runs_dir: Path) -> None:
    """Start what comes next in the sweeps of a folder, and halve those whose runs are at a rung.

    To be called whenever a run may have ended; any number of callers do a thing once. Raises
    JobError.
    """
    if not any(_is_ours(sweep) for sweep in read_sweeps(runs_dir)):
        return
    with holding_sweeps(runs_dir):
        failed = None
        for sweep in read_sweeps(runs_dir):
            try:
                if _is_ours(sweep):
                    _advance(runs_dir, sweep)
            except (JobError, OSError) as error:
                failed = error  # the other sweeps go on
        if failed is not None:
            raise failed


def _is_ours(sweep: Sweep) -> bool:
    return sweep.state == State.RUNNING and sweep.host == socket.gethostname()


def _advance(runs_dir: Path, sweep: Sweep) -> None:
    """As `advance`, of one sweep. Each thing that is done is written before the next one."""
    while True:
        now = sweep.rounds[-1]
        sweep = _start_some(runs_dir, sweep, now)
        now = sweep.rounds[-1]
        members = members_of(runs_dir, sweep, now.runs)
        done = all(run in now.started and _is_done(members[run], now.until) for run in now.runs)
        if not done:
            return
        better = _halve(sweep, members) if now.until else []
        if not better:
            write_sweep(runs_dir, sweep.replace(state=State.OVER))
            _log.info("sweep over", extra={"sweep": sweep.name})
            return
        following = Round(until=next_rung(sweep.plan, now.until), runs=tuple(better))
        write_sweep(runs_dir, sweep := sweep.replace(rounds=(*sweep.rounds, following)))
        _log.info("sweep halved", extra={"sweep": sweep.name, "step": now.until})


def _start_some(runs_dir: Path, sweep: Sweep, now: Round) -> Sweep:
    """Start runs of the round, in their order, while fewer than wanted are at work or queued.

    A run of the weaker half that a user has resumed does not count.
    """
    members = members_of(runs_dir, sweep, now.runs)
    active = [seen for seen in members.values() if seen is not None and seen.state in ACTIVE]
    devices = [seen.status.device for seen in active]
    for run in now.runs:
        if run in now.started:
            continue
        seen = members[run]
        # One that is active was started before whoever did it could write it down, or by a user.
        if seen is not None and not has_arrived(seen, now.until):
            if seen.state not in ACTIVE and len(devices) >= sweep.plan.at_most:
                break
            device = _free_device(sweep, devices)
            if not _start(sweep, seen, device, now.until):
                continue
            if seen.state not in ACTIVE and seen.run.state in ACTIVE:
                devices.append(device)
        now = now.model_copy(update={"started": (*now.started, run)})
        sweep = sweep.replace(rounds=(*sweep.rounds[:-1], now))
        write_sweep(runs_dir, sweep)
    return sweep


def _free_device(sweep: Sweep, devices: Sequence[str]) -> str:
    """The device of the next run; of several cards, where several runs may be at work, the one that
    fewest have."""
    cards = min(device_count(sweep.device), sweep.plan.at_most) if sweep.device == "cuda" else 1
    if cards < 2:
        return sweep.device
    return min((f"cuda:{number}" for number in range(cards)), key=devices.count)


def _start(sweep: Sweep, seen: RunSnapshot, device: str, until: int) -> bool:
    """Start or resume a run until a step; False where it has to be tried again.

    One that cannot be started has failed then.
    """
    by = f"sweep {sweep.name}"
    changes = {"pause_at": until} if seen.config and seen.config.pause_at != until else {}
    try:
        if seen.state in RESUMABLE:
            jobs.resume(seen.run, device, changes, by=by)
        elif changes and seen.state in ACTIVE:
            jobs.change(seen.run, changes, by)
    except (JobError, ConfigError) as error:
        with holding_queue(seen.path.parent):
            status = seen.run.snapshot()
            if status.state in ACTIVE:  # it has not answered another request yet
                return False
            failed = status.status.replace(state=RunState.FAILED, error=str(error))
            write_status(seen.path, failed)
    return True


def _halve(sweep: Sweep, members: Members) -> list[str]:
    """Set the weaker half of a round aside; returns the others, in their order.

    Of equal runs the earlier one is better. Runs that have not come to the rung are the weakest,
    and never go on; then come those without a value. Where none has one, all go on.
    """
    now = sweep.rounds[-1]
    there = {run: seen for run, seen in members.items() if seen and has_arrived(seen, now.until)}
    title, values = judged(sweep, [seen.run for seen in there.values()], now.until)
    if not title:
        return list(there)
    order = sorted(there, key=lambda run: _rank(values[run]))
    better = set(order[: math.ceil(len(now.runs) / 2)])
    for place, run in enumerate(order, 1):
        if run not in better:
            value = "no value" if (found := values[run]) is None else f"{found:.4g}"
            _set_aside(
                sweep,
                there[run].run,
                f"The sweep {sweep.name} left it paused at step {now.until:,}: number {place} of "
                f"{len(now.runs)} by {title} ({value}).",
            )
    return [run for run in now.runs if run in better]


def _rank(value: float | None) -> float:
    """Python's sorting keeps the order of equal ones."""
    return math.inf if value is None else value


def judged(sweep: Sweep, runs: Sequence[Run], step: int) -> tuple[str, dict[str, float | None]]:
    """What runs are judged by at a step, and the values by their names.

    That is the first curve that all of them have, or else any has; "" where none has one.
    """
    found = {
        title: {run.name: value_at(run, curve, step) for run in runs}
        for curve, title in JUDGES[sweep.judge].items()
    }
    for enough in (all, any):
        for title, values in found.items():
            if values and enough(value is not None for value in values.values()):
                return title, values
    return "", {}


def value_at(run: Run, curve: str, step: int) -> float | None:
    """The newest value of a curve until a step; None where there is none."""
    try:
        points = run.curve(curve, max_points=10**9)
    except MetricsError:
        return None
    until = points["value"][points["step"] <= step]
    return float(until[-1]) if len(until) else None


def _set_aside(sweep: Sweep, run: Run, why: str) -> None:
    """Say of a paused run why it stays so; once, however often it is tried."""
    with holding_queue(run.path.parent):
        status = run.status
        if status.state != RunState.PAUSED or status.message == why:  # a user has resumed it
            return
        try:
            write_status(run.path, status.replace(message=why))
        except OSError as error:
            raise JobError(f"{run.name} cannot be changed: {os_sentence(error)}") from error
    record(run.path, Event.SET_ASIDE, f"sweep {sweep.name}", reason=why)


def next_rung(plan: Plan, step: int) -> int:
    """Until which step the runs go on from `step`; 0: to their end."""
    return next((rung for rung in plan.halve_at if rung > step), 0)


def has_arrived(seen: RunSnapshot, until: int) -> bool:
    """Whether a run has come to the end of a round, or past it: a user may have resumed it."""
    if not until:
        return seen.state == RunState.FINISHED
    step = seen.status.step
    return step > until or (step == until and seen.state not in ACTIVE)


def rests(seen: RunSnapshot | None, until: int) -> bool:
    """Whether a user has paused or stopped a run before the end of a round."""
    if seen is None or has_arrived(seen, until):
        return False
    return seen.state in (RunState.STOPPED, RunState.PAUSED)


def _is_done(seen: RunSnapshot | None, until: int) -> bool:
    """Whether a round need not wait for a run that was started for it.

    It does for a run that a user has paused, not for one that was stopped, failed or deleted.
    """
    if seen is None or has_arrived(seen, until):
        return True
    return seen.state not in ACTIVE and seen.state != RunState.PAUSED


def members_of(runs_dir: Path, sweep: Sweep, names: Sequence[str]) -> Members:
    """Runs of a sweep as they are now."""
    paths = [runs_dir / name for name in names]
    return pick_members([Run(path).snapshot() for path in paths if is_run(path)], sweep, names)


def pick_members(runs: Sequence[RunSnapshot], sweep: Sweep, names: Sequence[str]) -> Members:
    """Those of `runs` that are runs of a sweep."""
    ours = {seen.name: seen for seen in runs if seen.config and seen.config.sweep == sweep.name}
    return {name: ours.get(name) for name in names}
