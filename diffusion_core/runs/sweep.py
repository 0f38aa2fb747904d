"""Sweeps: runs that differ in a few settings, started in turn, the weaker half paused on the way.

A run of a sweep names it in its setting `sweep`. `sweep_plan.py` finds the combinations,
`sweep_file.py` keeps what was asked for, `sweep_rounds.py` starts and halves the runs.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from diffusion_core.data.errors import DataError
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError, RunConfig, with_settings
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.launch import processes_for
from diffusion_core.runs.origin import settle_origin
from diffusion_core.runs.presets import check_network
from diffusion_core.runs.request import ENDING
from diffusion_core.runs.run import Run, RunSnapshot
from diffusion_core.runs.status import ACTIVE, RunState
from diffusion_core.runs.sweep_file import (
    LONGEST_NAME,
    Judge,
    Plan,
    Round,
    State,
    Sweep,
    file_of,
    holding_sweeps,
    read_sweep,
    write_sweep,
)
from diffusion_core.runs.sweep_plan import combinations, parse_dimension, setting_words
from diffusion_core.runs.sweep_rounds import (
    advance,
    has_arrived,
    members_of,
    next_rung,
    pick_members,
    rests,
)
from diffusion_core.text import some

_log = logging.getLogger(__name__)

TITLES: dict[Judge, str] = {"validation_loss": "validation loss", "quality": "quality"}
# What each judges by is not of the same quantity in runs that differ in one of these.
DATA = frozenset({"data", "image_size", "channels", "validation_count"})
MEASURE: dict[Judge, frozenset[str]] = {
    "validation_loss": DATA | {"prediction_type", "loss", "loss_on", "schedule"},
    "quality": DATA | {"evaluate_images", "evaluate_steps"},
}


def plan_runs(name: str, base: RunConfig, plan: Plan) -> dict[str, RunConfig]:
    """The settings of each run of a sweep, by its name.

    Raises ConfigError, which says of a run that cannot be what it was to be.
    """
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"The name of a sweep has at most {LONGEST_NAME} characters.")
    dimensions = [parse_dimension(text) for text in plan.vary]
    rows = combinations(dimensions, plan.method, plan.runs, plan.seed)
    digits = max(2, len(str(len(rows))))
    own = {"sweep": name, "pause_at": plan.halve_at[0] if plan.halve_at else 0}
    found = {}
    for number, row in enumerate(rows, 1):
        run = f"{name}-{number:0{digits}}"
        try:
            found[run] = with_settings(base, row).replace(**own)
        except ConfigError as error:
            raise ConfigError(f"{run} ({setting_words(row)}): {error}") from error
    if plan.halve_at:
        _check_halving(plan, judge_of(base, plan), list(found.values()))
    return found


def images_of(configs: Mapping[str, RunConfig], plan: Plan) -> dict[str, float]:
    """How many images each run trains on, on average where any half may be the better one."""
    found = dict.fromkeys(configs, 0.0)
    left, before = len(configs), 0
    for rung in (*plan.halve_at, 0):
        for run, config in configs.items():
            made = (rung or config.steps) - before
            found[run] += made * config.batch_size * left / len(configs)
        left, before = math.ceil(left / 2), rung
    return found


def judge_of(base: RunConfig, plan: Plan) -> Judge:
    return plan.judge or ("quality" if base.evaluate_every else "validation_loss")


def _check_halving(plan: Plan, judge: Judge, configs: Sequence[RunConfig]) -> None:
    steps = min(config.steps for config in configs)
    if list(plan.halve_at) != sorted(set(plan.halve_at)):
        raise ConfigError("The steps at which the runs are halved must rise.")
    if plan.halve_at[-1] >= steps:
        raise ConfigError(
            f"The runs are halved at step {plan.halve_at[-1]:,}, but there are only {steps:,} "
            "steps; choose a smaller one."
        )
    if len(configs) < 2:
        raise ConfigError("There is one run; halving takes two or more.")
    every = "evaluate_every" if judge == "quality" else "validate_every"
    if not all(getattr(config, every) for config in configs):
        raise ConfigError(f"Halving by {TITLES[judge]} needs {every}.")
    names = [parse_dimension(text).name for text in plan.vary]
    differ = [name for name in names if name.partition(".")[0] in MEASURE[judge]]
    if differ:
        other = differ[0].partition(".")[0] not in MEASURE["quality"]
        raise ConfigError(
            f"Runs that differ in {differ[0]} cannot be halved by {TITLES[judge]}: it measures "
            f"something else in each. {'Judge by quality, or do' if other else 'Do'} not halve."
        )
    if judge == "validation_loss" and configs[0].validation_count == 0:
        raise ConfigError("Halving by validation loss needs images held out; see validation_count.")


def check_runs(
    runs_dir: Path, name: str, configs: Mapping[str, RunConfig], device: str | None
) -> None:
    """Check all that can be known before the runs of `plan_runs` are started.

    Raises ConfigError, DataError, and JobError for names that are taken.
    """
    jobs.check_name(name)
    if os.path.lexists(file_of(runs_dir, name)):
        raise JobError(f"There is already a sweep called {name}; choose another name.")
    looked: set[tuple[str, int, int]] = set()
    for run, config in configs.items():
        if os.path.lexists(runs_dir / run):
            raise JobError(f"There is already a run called {run}; choose another name.")
        try:
            check_network(config)
            settle_origin(config, runs_dir)
            processes_for(config, jobs.on_this_machine(device))
            images = (config.data, config.validation_count, config.batch_size)
            if images not in looked:
                looked.add(images)
                jobs.check_data(config)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{run}: {error}") from error


# ---------------------------------------------------------------- starting and stopping


def start(
    runs_dir: Path,
    name: str,
    base: RunConfig,
    plan: Plan,
    device: str | None = None,
    by: str | None = None,
) -> Sweep:
    """Make all runs of a sweep, then start the first ones.

    `by`: see `jobs`. Raises as `plan_runs` and `check_runs`; then no run is left.
    """
    base = base.alone()
    configs = plan_runs(name, base, plan)
    check_runs(runs_dir, name, configs, device)
    sweep = Sweep(
        name=name,
        plan=plan,
        judge=judge_of(base, plan),
        host=socket.gethostname(),
        device=jobs.on_this_machine(device),
        created=time.time(),
        by=by or "",
        rounds=(Round(until=next_rung(plan, 0), runs=tuple(configs)),),
    )
    with holding_sweeps(runs_dir):
        if os.path.lexists(file_of(runs_dir, name)):
            raise JobError(f"There is already a sweep called {name}; choose another name.")
        made: list[Run] = []
        try:
            for run, config in configs.items():
                made.append(jobs.create(runs_dir, run, config, by))
            write_sweep(runs_dir, sweep)
        except BaseException:
            for each in made:
                shutil.rmtree(each.path, ignore_errors=True)
            raise
    _log.info("sweep created", extra={"sweep": name, "runs": len(configs)})
    advance(runs_dir)
    return read_sweep(runs_dir, name)


def stop(runs_dir: Path, name: str, by: str | None = None) -> Sweep:
    """Start no more runs of a sweep, and stop those at work. Raises JobError."""
    with holding_sweeps(runs_dir):
        sweep = read_sweep(runs_dir, name)
        if sweep.state == State.OVER:
            raise JobError(f"The sweep {name} is over; there is nothing to stop.")
        write_sweep(runs_dir, sweep.replace(state=State.STOPPED))
        for seen in members_of(runs_dir, sweep, sweep.runs).values():
            if seen is not None and seen.state in ACTIVE:
                with suppress(JobError):  # it has ended meanwhile
                    jobs.request(seen.run, "stop", by)
        return read_sweep(runs_dir, name)


def resume(runs_dir: Path, name: str) -> Sweep:
    """Continue a sweep that was stopped, with the runs that were stopped or paused since.

    Raises JobError.
    """
    with holding_sweeps(runs_dir):
        sweep = read_sweep(runs_dir, name)
        if sweep.state == State.OVER:
            raise JobError(f"The sweep {name} is over; there is nothing to resume.")
        now = sweep.rounds[-1]
        members = members_of(runs_dir, sweep, now.started)
        for run, seen in members.items():
            ending = (RunState.PAUSING, RunState.STOPPING)
            if seen and (seen.state in ending or seen.pending in ENDING):
                raise JobError(f"{run} is still ending; try again in a moment.")
        started = tuple(run for run, seen in members.items() if not rests(seen, now.until))
        rounds = (*sweep.rounds[:-1], now.model_copy(update={"started": started}))
        write_sweep(runs_dir, sweep.replace(state=State.RUNNING, rounds=rounds))
    advance(runs_dir)
    return read_sweep(runs_dir, name)


def in_words(sweep: Sweep, runs: Sequence[RunSnapshot]) -> str:
    """How far a sweep has come, as a sentence or two; `runs` has its runs."""
    if sweep.state == State.OVER:
        return "It is over."
    now = sweep.rounds[-1]
    members = pick_members(runs, sweep, now.runs)
    there = sum(seen is not None and has_arrived(seen, now.until) for seen in members.values())
    until = f"step {now.until:,}" if now.until else "their end"
    number = f"Round {len(sweep.rounds)} of {len(sweep.plan.halve_at) + 1}, until {until}: "
    said = f"{number if sweep.plan.halve_at else ''}{there} of {len(now.runs)} runs are there."
    if sweep.state == State.STOPPED:
        return f"It is stopped. {said}"
    paused = [
        f"{run} (step {seen.status.step:,})"
        for run, seen in members.items()
        if seen is not None and seen.state == RunState.PAUSED and run in now.started
        if not has_arrived(seen, now.until)
    ]
    return f"{said} It waits for paused runs: {some(paused)}." if paused else said
