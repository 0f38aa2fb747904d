"""`stop`, `pause`, `sample-now`, `checkpoint-now`: requests that a run answers at its next step."""

from __future__ import annotations

import argparse

from diffusion_core.cli.options import DONE, add_run, find_run
from diffusion_core.runs import jobs

# The action of each command, and its description.
ACTIONS = {
    "stop": ("stop", "stop"),
    "pause": ("pause", "pause"),
    "sample-now": ("sample", "write samples"),
    "checkpoint-now": ("checkpoint", "write a checkpoint"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.set_defaults(do=request)


def request(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    action, description = ACTIONS[arguments.command]
    jobs.request(run, action)
    if run.state in ("stopped", "paused"):  # it was in the queue
        print(f"{run.name} {run.state.predicate}.")
    else:
        print(f"{run.name} will {description} at its next step.")
    return DONE
