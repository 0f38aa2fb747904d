"""`sweep`: train runs that differ in some settings; list, show, stop or resume sweeps."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusion_core.cli.options import (
    DONE,
    add_device,
    add_runs_dir,
    check_runs_dir,
    start_waiting,
    whole_number,
)
from diffusion_core.cli.runs import print_table
from diffusion_core.cli.train import add_start, given_settings, start_settings
from diffusion_core.review.index import Index, Row, settings_of
from diffusion_core.review.query import kind_of, sort_rows
from diffusion_core.runs import sweep as sweeps
from diffusion_core.runs.config import ConfigError, RunConfig, with_settings
from diffusion_core.runs.run import snapshots
from diffusion_core.runs.sweep_file import JUDGES, Plan, Sweep, read_sweep, read_sweeps
from diffusion_core.runs.sweep_plan import METHODS, MOST_RUNS, parse_dimension


def steps(text: str) -> tuple[int, ...]:
    """An argparse type: whole numbers with commas between them."""
    return tuple(whole_number(part) for part in text.split(","))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="of a new sweep, or of one to show")
    parser.add_argument(
        "--vary",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUES",
        help="start a sweep over these settings: batch_size=16,32,64 or "
        "learning_rate=1e-4..1e-2:log; a grid takes 5 values of it with 1e-4..1e-2:log:5",
    )
    parser.add_argument(
        "--method", choices=METHODS, default="grid", help="which combinations (default: grid)"
    )
    parser.add_argument(
        "--runs", type=whole_number, metavar="N", help=f"of random and sobol, up to {MOST_RUNS}"
    )
    parser.add_argument(
        "--sweep-seed",
        type=whole_number,
        default=0,
        metavar="N",
        help="seed of the combinations (default: 0)",
    )
    parser.add_argument(
        "--at-most",
        type=whole_number,
        default=1,
        metavar="N",
        help="runs at work or queued at once (default: 1)",
    )
    parser.add_argument(
        "--halve-at",
        type=steps,
        default=(),
        metavar="STEPS",
        help="pause the weaker half of the runs after these steps, for example 200,400",
    )
    parser.add_argument(
        "--judge",
        choices=list(JUDGES),
        help="which runs are the weaker ones (default: quality if evaluate_every is set, else "
        "validation_loss)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the runs")
    parser.add_argument("--stop", action="store_true", help="stop a sweep and its runs at work")
    parser.add_argument("--resume", action="store_true", help="resume a stopped sweep")
    add_start(parser)
    add_device(parser)
    add_runs_dir(parser)
    parser.set_defaults(do=sweep)


def sweep(arguments: argparse.Namespace) -> int:
    runs_dir, name = arguments.runs_dir, arguments.name
    check_runs_dir(runs_dir)
    if arguments.vary:
        if arguments.stop or arguments.resume:
            raise ConfigError("--vary starts a sweep; leave --stop and --resume out.")
        return begin(arguments)
    if arguments.dry_run:
        raise ConfigError("Say what varies, for example --vary batch_size=16,32.")
    if name is None and (arguments.stop or arguments.resume):
        raise ConfigError("Which sweep? Write: sweep NAME --stop or --resume.")
    if arguments.stop:
        sweeps.stop(runs_dir, name)
    elif arguments.resume:
        sweeps.resume(runs_dir, name)
    else:
        start_waiting(runs_dir)
    if name is not None:
        show(runs_dir, read_sweep(runs_dir, name))
        return DONE
    found = read_sweeps(runs_dir)
    if not found:
        print(f"There are no sweeps in {runs_dir}.")
    runs = snapshots(runs_dir)
    for each in found:
        print(f"{each.name}: {sweeps.in_words(each, runs)}")
    return DONE


def begin(arguments: argparse.Namespace) -> int:
    """Start a sweep, or print what it would be."""
    if arguments.name is None:
        raise ConfigError("Give the sweep a name: sweep NAME --vary KEY=VALUES.")
    runs_dir, name = arguments.runs_dir, arguments.name
    plan = Plan(
        vary=arguments.vary,
        method=arguments.method,
        runs=arguments.runs,
        seed=arguments.sweep_seed,
        at_most=arguments.at_most,
        halve_at=arguments.halve_at,
        judge=arguments.judge,
    )
    arguments.run = runs_dir / name  # beside which other runs are looked for by their names
    settings = given_settings(arguments)
    base = with_settings(start_settings(arguments, settings), settings)
    if not arguments.dry_run:
        show(runs_dir, sweeps.start(runs_dir, name, base, plan, arguments.device))
        return DONE
    runs = sweeps.plan_runs(name, base, plan)
    sweeps.check_runs(runs_dir, name, runs, arguments.device)
    rows = [row_of(run, config) for run, config in runs.items()]
    names = varied(plan)
    print_table(rows, names, [kind_of(each) for each in names])
    return DONE


def row_of(name: str, config: RunConfig) -> Row:
    """A run that is not there yet."""
    values: dict[str, Any] = {"name": name}
    return Row(values=values | settings_of(config))


def varied(plan: Plan) -> list[str]:
    return [parse_dimension(text).name for text in plan.vary]


def show(runs_dir: Path, found: Sweep) -> None:
    """What a sweep is and how far it has come, then its runs."""
    plan = found.plan
    print(f"{found.name}: {plan.method} over {' '.join(plan.vary)}.")
    if plan.halve_at:
        print(f"Halved after step {numbers(plan.halve_at)} by {sweeps.TITLES[found.judge]}.")
    print(sweeps.in_words(found, snapshots(runs_dir)))
    rows = [row for row in Index(runs_dir).rows() if row.values.get("sweep") == found.name]
    names = ["state", "step", *varied(plan), "validation_loss"]
    print_table(sort_rows(rows, "name"), names, [kind_of(name) for name in names])
    print(f"Compare them on the Review page, or with: runs --where '{found.filter}'")


def numbers(values: Iterable[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)
