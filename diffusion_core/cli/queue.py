"""`queue`: the runs that wait for a device; move one up or down, or cancel it."""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path

from diffusion_core.cli.options import (
    DONE,
    RUN_HELP,
    add_runs_dir,
    check_runs_dir,
    find_run,
    listed,
    start_waiting,
)
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=["up", "down", "cancel"])
    parser.add_argument("run", nargs="?", help=RUN_HELP)
    add_runs_dir(parser)
    parser.set_defaults(do=queue)


def queue(arguments: argparse.Namespace) -> int:
    runs_dir = arguments.runs_dir
    check_runs_dir(runs_dir)
    if arguments.action:
        if not arguments.run:
            raise ConfigError(f"Which run? Write: queue {arguments.action} RUN.")
        run = find_run(arguments.run, runs_dir)
        act(run, arguments.action)
        runs_dir = run.path.parent
    start_waiting(runs_dir)
    print_queue(runs_dir)
    return DONE


def act(run: Run, action: str) -> None:
    """Move a run "up" or "down" in the queue, or "cancel" it. Raises JobError."""
    if action != "cancel":
        jobs.move(run, -1 if action == "up" else 1)
    elif run.state != "queued":
        raise jobs.JobError(f"{run.name} {run.state.predicate}; it is not in the queue.")
    else:
        jobs.request(run, "stop")


def print_queue(runs_dir: Path) -> None:
    queue = read_queue(runs_dir)
    if not queue:
        print(f"No runs are waiting in {runs_dir}.")
        return
    print(f"{'':3} {'run':30} {'device':9} queued since")
    for number, run in enumerate(queue, 1):
        status = run.status
        where = "" if status.host == socket.gethostname() else f", on {status.host}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.queued_at))
        print(f"{number:3} {listed(run.name):30} {status.device:9} {since}{where}")
