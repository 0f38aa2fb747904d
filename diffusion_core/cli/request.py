"""`stop`, `pause`, `sample-now`, `checkpoint-now`: what a run does at its next step."""

from __future__ import annotations

import argparse

from diffusion_core.cli.options import DONE, add_run, find_run
from diffusion_core.runs import jobs

# The action of each command that is not called like its action, and how to say it.
ACTIONS = {"sample-now": "sample", "checkpoint-now": "checkpoint"}
SENTENCES = {"sample": "write samples", "checkpoint": "write a checkpoint"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.set_defaults(do=request)


def request(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    action = ACTIONS.get(arguments.command, arguments.command)
    jobs.request(run, action)
    if run.state in ("stopped", "paused"):  # it was in the queue
        print(f"{run.name} is {run.state}.")
    else:
        print(f"{run.name} will {SENTENCES.get(action, action)} at its next step.")
    return DONE
