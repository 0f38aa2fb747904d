"""`export`: a run as one file, a checkpoint for diffusers or as ONNX, or the metrics as a table."""

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
from diffusion_core.files import complain, replacing
from diffusion_core.runs.archive import WEIGHTS, plan_archive, write_archive
from diffusion_core.runs.config import MAIN_AVERAGE, ConfigError
from diffusion_core.runs.export import FORMATS, metrics_table, write_diffusers
from diffusion_core.runs.export_onnx import write_onnx
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.run import Run
from diffusion_core.text import either


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--format", choices=(*FORMATS, "archive"), required=True)
    parser.add_argument(
        "--step",
        type=whole_number,
        help="diffusers, onnx: step of the checkpoint (default: the latest)",
    )
    parser.add_argument(
        "--average", metavar="NAME", help=f"onnx: averaged weights (default: {MAIN_AVERAGE})"
    )
    parser.add_argument(
        "--float16", action="store_true", help="onnx: store the weights in half precision"
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        metavar="CHOICE",
        help=f"archive: {either(WEIGHTS)}, or steps (default: best)",
    )
    parser.add_argument(
        "--with-state", action="store_true", help="archive: also what resuming the run needs"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="archive: say what would be in it and how large"
    )
    parser.add_argument(
        "--out", type=Path, help="a new folder for diffusers and onnx, otherwise a file"
    )
    parser.set_defaults(do=export)


def export(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    if arguments.format != "onnx" and (arguments.average is not None or arguments.float16):
        raise ConfigError("--average and --float16 go with --format onnx.")
    if arguments.format == "archive":
        return export_run(run, arguments)
    if arguments.weights or arguments.with_state or arguments.dry_run:
        raise ConfigError("--weights, --with-state and --dry-run go with --format archive.")
    if arguments.format == "diffusers":
        return export_checkpoint(run, arguments)
    if arguments.format == "onnx":
        return export_onnx(run, arguments)
    if arguments.step is not None:
        raise ConfigError(
            "--step goes with --format diffusers and onnx; metrics are exported whole."
        )
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


def export_run(run: Run, arguments: argparse.Namespace) -> int:
    if arguments.step is not None:
        raise ConfigError(
            f"--step goes with --format diffusers and onnx; use --weights {arguments.step}."
        )
    weights = chosen_weights(arguments.weights or ["best"])
    out = arguments.out or Path(f"{run.name}.zip")
    check_place(out)
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give --out the name of a file.")
    plan = plan_archive(run, weights, arguments.with_state)
    steps = ", ".join(f"{step:,}" for step in plan.steps) or "none"
    what = f"{len(plan.files):,} files, weights of step {steps}, at most {megabytes(plan.size)}"
    if arguments.dry_run:
        print(f"{run.name} as an archive: {what}.")
        return DONE
    for reason in write_archive(plan, out):
        complain(f"Left out: {reason}")
    print(f"{run.name} as an archive of {megabytes(out.stat().st_size)}: {out}")
    return DONE


def chosen_weights(words: list[str]) -> str | list[int]:
    """Raises ConfigError."""
    if len(words) == 1 and words[0] in WEIGHTS:
        return words[0]
    try:
        return [whole_number(word) for word in words]
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--weights takes {either(WEIGHTS)}, or steps.") from error


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def export_checkpoint(run: Run, arguments: argparse.Namespace) -> int:
    out = arguments.out or Path(f"{run.name}-diffusers")
    check_place(out)
    checkpoint = find_checkpoint(run, arguments.step)
    write_diffusers(run, checkpoint, out)
    record(run.path, Event.EXPORTED, None, format=arguments.format)
    print(f"{run.name}, step {checkpoint.step}, for diffusers: {out}")
    return DONE


def export_onnx(run: Run, arguments: argparse.Namespace) -> int:
    out = arguments.out or Path(f"{run.name}-onnx")
    check_place(out)
    checkpoint = find_checkpoint(run, arguments.step)
    average = arguments.average or MAIN_AVERAGE
    found = write_onnx(run, checkpoint, out, average, arguments.float16)
    record(run.path, Event.EXPORTED, None, format=arguments.format)
    print(f"{run.name}, step {checkpoint.step}, as ONNX: {out}")
    print(found.text)
    return DONE
