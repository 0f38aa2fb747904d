"""`runs`: the runs of a folder as a table, filtered, sorted and grouped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from diffusion_core.cli.options import DONE, add_runs_dir, check_runs_dir, listed, start_waiting
from diffusion_core.review.index import Index, Row, Value
from diffusion_core.review.query import (
    Kind,
    comparable,
    group_rows,
    kind_of,
    parse_filter,
    sort_rows,
)

COLUMNS = ("state", "step", "steps", "latest_loss", "images_per_second", "created")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where",
        default="",
        metavar="FILTER",
        help="only these runs, for example 'batch_size >= 64 and state = finished'",
    )
    parser.add_argument("--sort", metavar="NAME", help="by a setting or result (default: newest)")
    parser.add_argument("--reverse", action="store_true", help="the other way around")
    parser.add_argument("--group", metavar="NAME", help="one table for each value of a setting")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=COLUMNS,
        metavar="NAME",
        help=f"settings or results to show (default: {' '.join(COLUMNS)})",
    )
    add_runs_dir(parser)
    parser.set_defaults(do=print_runs)


def print_runs(arguments: argparse.Namespace) -> int:
    runs_dir, columns = arguments.runs_dir, arguments.columns
    holds = parse_filter(arguments.where)
    kinds = [kind_of(name) for name in columns]
    check_runs_dir(runs_dir)
    start_waiting(runs_dir)
    every = Index(runs_dir).rows()
    rows = [row for row in every if holds(row.values)]
    if arguments.sort:
        rows = sort_rows(rows, arguments.sort, arguments.reverse)
    elif arguments.reverse:
        rows.reverse()
    groups = group_rows(rows, arguments.group) if arguments.group else {}
    if not rows:
        none = "No run in {} fits the filter." if every else "There are no runs in {}."
        print(none.format(runs_dir))
        return DONE
    if not arguments.group:
        print_table(rows, columns, kinds)
    for value, members in groups.items():
        title = text_of(kind_of(arguments.group), value) or "none"
        print(f"{arguments.group} = {listed(title)} ({len(members):,})")
        print_table(members, columns, kinds)
        print()
    for row in rows:
        if row.problem:
            print(f"{listed(str(row.values['name']))} cannot be read in full: {row.problem}")
    return DONE


def print_table(rows: Sequence[Row], columns: Sequence[str], kinds: Sequence[Kind]) -> None:
    """Numbers to the right, all else to the left."""
    lines = [["run", *columns]]
    for row in rows:
        cells = (
            text_of(kind, row.values.get(name)) for name, kind in zip(columns, kinds, strict=True)
        )
        lines.append([listed(each) for each in (str(row.values["name"]), *cells)])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    right = [kind == Kind.NUMBER for kind in (Kind.TEXT, *kinds)]
    for line in lines:
        cells = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        )
        print("  ".join(cells).rstrip())


def text_of(kind: Kind, value: Value | None) -> str:
    """A value as the table shows it; empty where there is none."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if kind == Kind.TIME:
        return str(comparable(kind, value) or "")
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
