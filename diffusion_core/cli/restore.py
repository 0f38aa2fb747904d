"""`restore`: put a deleted run back."""

from __future__ import annotations

import argparse

from diffusion_core.cli.options import DONE, add_runs_dir, check_runs_dir, run_path
from diffusion_core.runs import jobs, trash


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="name or former folder of the deleted run")
    add_runs_dir(parser)
    parser.set_defaults(do=restore)


def restore(arguments: argparse.Namespace) -> int:
    path = run_path(arguments.name, arguments.runs_dir)
    check_runs_dir(path.parent)
    deleted = trash.deleted(path.parent)
    for each in deleted:
        if each.name == path.name:
            run = trash.restore(each)
            print(f"{each.name} is restored as {run.path}.")
            return DONE
    names = ", ".join(dict.fromkeys(each.name for each in deleted)) or "none"
    raise jobs.JobError(f"There is no deleted run called {arguments.name}. Deleted runs: {names}.")
