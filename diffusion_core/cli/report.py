"""`report`: runs as one HTML or PDF file that opens anywhere without a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_core.cli.options import DONE, RUN_HELP, check_place, find_run
from diffusion_core.runs.config import ConfigError

PARTS = ("samples", "images", "remarks", "votes", "names")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help=f"{RUN_HELP}; up to 8")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        help="FILE.html or FILE.pdf (default: %(default)s)",
    )
    parser.add_argument("--title", default="", help="heading of the report")
    parser.add_argument(
        "--without",
        action="extend",
        nargs="+",
        default=[],
        choices=PARTS,
        metavar="PART",
        help=f"leave out {', '.join(PARTS)}; names are those of people",
    )
    parser.add_argument("--dry-run", action="store_true", help="only state the size")
    parser.set_defaults(do=report)


def report(arguments: argparse.Namespace) -> int:
    from diffusion_core.review.report.content import Parts
    from diffusion_core.review.report.write import FORMATS, expected_size, write_report
    from diffusion_core.runs.history import Event, record

    out: Path = arguments.out
    if out.suffix.lower() not in FORMATS or out.is_dir():
        raise ConfigError(f"--out is {out}; it must be a file that ends with .html or .pdf.")
    check_place(out)
    runs = [find_run(name) for name in arguments.runs]
    without = arguments.without
    parts = Parts(
        samples="samples" not in without,
        images="images" not in without,
        remarks="remarks" not in without,
        votes="votes" not in without,
        names="names" not in without,
    )
    size = expected_size(runs, out.suffix.lower(), parts)
    print(f"{out}: about {megabytes(size)}")
    if not arguments.dry_run:
        written = write_report(runs, out, parts, arguments.title)
        for run in runs:
            record(run.path, Event.EXPORTED, None, format=f"report{out.suffix.lower()}")
        print(f"Written: {megabytes(written)}")
    return DONE


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
