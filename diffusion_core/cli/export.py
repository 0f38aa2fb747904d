"""`export`: a checkpoint for diffusers, or the metrics as CSV or Parquet."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_core.cli.options import (
    DONE,
    add_run,
    check_place,
    find_checkpoint,
    find_run,
    whole_number,
)
from diffusion_core.files import replacing
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.export import FORMATS, metrics_table, write_diffusers
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--step", type=whole_number, help="step of the checkpoint (default: the latest)"
    )
    parser.add_argument("--out", type=Path, help="a new folder for diffusers, otherwise a file")
    parser.set_defaults(do=export)


def export(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    if arguments.format == "diffusers":
        return export_checkpoint(run, arguments)
    if arguments.step is not None:
        raise ConfigError("--step goes with --format diffusers; metrics are exported whole.")
    out = arguments.out or Path(f"{run.name}-metrics.{arguments.format}")
    check_place(out)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give --out the name of a file.")
    table = metrics_table(run, arguments.format)
    with replacing(out) as file:
        file.write(table)
    record(run.path, Event.EXPORTED, None, format=arguments.format)
    print(f"Metrics of {run.name}: {out}")
    return DONE


def export_checkpoint(run: Run, arguments: argparse.Namespace) -> int:
    out = arguments.out or Path(f"{run.name}-diffusers")
    check_place(out)
    checkpoint = find_checkpoint(run, arguments.step)
    write_diffusers(run, checkpoint, out)
    record(run.path, Event.EXPORTED, None, format=arguments.format)
    print(f"{run.name}, step {checkpoint.step}, for diffusers: {out}")
    return DONE
