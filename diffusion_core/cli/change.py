"""`change`: change settings of a run, also while it trains."""

from __future__ import annotations

import argparse

from diffusion_core.cli.options import DONE, add_run, find_run
from diffusion_core.runs import jobs
from diffusion_core.runs.changes import CHANGEABLE
from diffusion_core.runs.config import parse_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    can = f"{', '.join(CHANGEABLE)}, and data where the same images have moved"
    parser.add_argument("set", nargs="+", metavar="KEY=VALUE", help=can)
    parser.set_defaults(do=change)


def change(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    settings = parse_settings(arguments.set)
    jobs.change(run, settings)
    pending = run.snapshot().pending == "change"
    when = "at its next step" if pending else "when it is resumed"
    print(f"{run.name} takes {', '.join(arguments.set)} {when}.")
    return DONE
