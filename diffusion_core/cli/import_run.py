"""`import`: make a run of an archive that `export --format archive` has written."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_core.cli.options import DONE, add_runs_dir, check_runs_dir
from diffusion_core.runs.archive_import import import_archive
from diffusion_core.runs.jobs import can_go_on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the archive")
    parser.add_argument("--name", help="name of the run (default: as it was called)")
    add_runs_dir(parser)
    parser.set_defaults(do=import_run)


def import_run(arguments: argparse.Namespace) -> int:
    check_runs_dir(arguments.runs_dir)
    run = import_archive(arguments.file, arguments.runs_dir, arguments.name)
    usable, _ = run.checkpoints()
    steps = ", ".join(f"{checkpoint.step:,}" for checkpoint in usable) or "none"
    goes_on = "it can be resumed" if can_go_on(run) else "it has no state to resume from"
    print(f"{run.name} is imported as {run.path}. Checkpoints: {steps}; {goes_on}.")
    return DONE
