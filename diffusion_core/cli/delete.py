"""`delete`: move a run to the trash."""

from __future__ import annotations

import argparse
import os
import shlex

from diffusion_core.cli.options import (
    DONE,
    FAILED,
    add_run,
    default_runs_dir,
    find_run,
    program,
)
from diffusion_core.files import complain
from diffusion_core.runs import trash


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.set_defaults(do=delete)


def delete(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    if not arguments.yes and not confirmed(f"Delete {run.name}? [y/N] "):
        print(f"{run.name} is not deleted.")
        return FAILED
    trash.delete(run)
    elsewhere = run.path.parent.resolve() != default_runs_dir().resolve()
    where = os.path.join(run.path.parent, run.name) if elsewhere else run.name
    print(
        f"{run.name} is deleted. Restore it within {trash.KEEP_DAYS} days with: "
        f"{program()} restore {shlex.quote(where)}"
    )
    return DONE


def confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # no terminal
        complain("There is no terminal to confirm in; use --yes.")
        return False
