"""`resume`: resume a run in the background."""

from __future__ import annotations

import argparse

from diffusion_core.cli.options import (
    DONE,
    add_device,
    add_run,
    add_settings,
    find_run,
    print_started,
    whole_number,
)
from diffusion_core.runs import jobs
from diffusion_core.runs.config import parse_settings, with_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--steps", type=whole_number, help="training steps in total; more extend a finished run"
    )
    add_settings(parser, "settings that may change")
    add_device(parser)
    parser.add_argument("--processes", type=whole_number, metavar="N", help="default: one per GPU")
    parser.set_defaults(do=resume)


def resume(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    settings = with_options(parse_settings(arguments.set), {"steps": arguments.steps})
    jobs.resume(run, arguments.device, settings, arguments.processes)
    print_started(run)
    return DONE
