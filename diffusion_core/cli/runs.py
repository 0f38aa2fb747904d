"""`runs`: the runs of a folder as a table."""

from __future__ import annotations

import argparse
import time

from diffusion_core.cli.options import DONE, add_runs_dir, check_runs_dir, listed, start_waiting
from diffusion_core.runs.run import snapshots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs_dir(parser)
    parser.set_defaults(do=print_runs)


def print_runs(arguments: argparse.Namespace) -> int:
    check_runs_dir(arguments.runs_dir)
    start_waiting(arguments.runs_dir)
    runs = snapshots(arguments.runs_dir)
    if not runs:
        print(f"There are no runs in {arguments.runs_dir}.")
        return DONE
    print(f"{'run':30} {'state':9} {'step':>15} {'loss':>8} {'images/s':>9}  started")
    for run in runs:
        status = run.status
        steps = f"{status.step:,}/{status.total:,}"
        loss, speed = status.loss, status.images_per_second
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created)) if run.created else ""
        print(
            f"{listed(run.name):30} {run.state:9} {steps:>15} "
            f"{'' if loss is None else f'{loss:.4f}':>8} "
            f"{'' if speed is None else f'{speed:.1f}':>9}  {when}"
        )
    for run in runs:
        if run.problem:
            print(f"{listed(run.name)} cannot be read in full: {run.problem}")
    return DONE
