"""`note`, `tag`, `star`, `decide`: say something of a run; `remarks` lists it.

Whoever can write to the folder operates it: here everybody may edit and delete every remark.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from diffusion_core.cli.options import DONE, FAILED, add_run, find_run, listed, whole_number
from diffusion_core.files import complain
from diffusion_core.runs import remarks
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.remarks import DECISIONS, RUN, Kind, Remark, Subject
from diffusion_core.runs.run import Run

KINDS = {"note": Kind.NOTE, "tag": Kind.TAG, "star": Kind.STAR, "decide": Kind.DECISION}
MOST_STEPS = 10**12  # of a run that does not say how many it has
SHOWN_ID = 8  # characters of an id in the list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    command = parser.get_default("command")
    if command == "remarks":
        parser.add_argument("--delete", metavar="ID", help="delete a remark")
        parser.add_argument("--json", action="store_true", help="print the remarks as JSON")
        parser.set_defaults(do=list_remarks)
        return
    if command == "note":
        parser.add_argument("text", help="Markdown without HTML and images")
        parser.add_argument("--edit", metavar="ID", help="replace the text of this note")
    elif command == "tag":
        parser.add_argument("text", nargs="+", metavar="TAG")
    elif command == "decide":
        parser.add_argument("text", choices=DECISIONS)
    about = parser.add_mutually_exclusive_group()
    about.add_argument("--step", type=whole_number, metavar="N", help="about this step of the run")
    about.add_argument("--image", type=Path, metavar="FILE", help="about the image of a PNG file")
    parser.set_defaults(do=say, text="", edit=None)


def say(arguments: argparse.Namespace) -> int:
    run, kind = find_run(arguments.run), KINDS[arguments.command]
    texts = [arguments.text] if isinstance(arguments.text, str) else arguments.text
    if arguments.edit is not None:
        if arguments.step is not None or arguments.image is not None:
            raise ConfigError("--edit changes the text alone; leave --step and --image out.")
        remark = remarks.edit(run.path, arguments.edit, texts[0], operates=True)
        print(f"{run.name}: {remark.kind} {remark.id[:SHOWN_ID]} of {remark.subject} is edited.")
        return DONE
    subject = subject_of(run, arguments)
    for text in texts:
        remark = remarks.add(run.path, kind, text, subject)
        print(f"{run.name}: {kind} {remark.id[:SHOWN_ID]} of {subject}.")
    return DONE


def subject_of(run: Run, arguments: argparse.Namespace) -> Subject:
    """Raises ConfigError, NoSettings, OSError."""
    if arguments.image is not None:
        from diffusion_core.sampling import metadata

        made = metadata.read(arguments.image.read_bytes())
        if made.spec.run != run.name:
            raise ConfigError(f"{arguments.image} is an image of {listed(made.spec.run)}.")
        return metadata.subject_of(made)
    if arguments.step is None:
        return RUN
    last = run.status.total or MOST_STEPS
    if not 0 <= arguments.step <= last:
        raise ConfigError(f"--step is {arguments.step:,}; it must be from 0 to {last:,}.")
    return Subject(step=arguments.step)


def list_remarks(arguments: argparse.Namespace) -> int:
    run = find_run(arguments.run)
    if arguments.delete is not None:
        gone = remarks.delete(run.path, arguments.delete, operates=True)
        complain(f"{run.name}: {gone.kind} {gone.id[:SHOWN_ID]} of {gone.subject} is deleted.")
    found = remarks.read_remarks(run.path)
    if arguments.json:
        print(json.dumps([as_json(remark) for remark in found.current], indent=2))
    elif not found.current and not found.problem:
        print(f"{run.name} has no remarks.")
    else:
        for remark in found.current:
            print(in_words(remark))
    if found.problem:
        complain(f"Remarks of {run.name} cannot be read in full: {found.problem}")
        return FAILED
    return DONE


def in_words(remark: Remark) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(remark.time))
    by = f" by {remark.by}" if remark.by else ""
    text = f": {remark.text}" if remark.text else ""
    what = f"{remark.kind}{' (edited)' if remark.edited else ''}"
    line = f"{remark.id[:SHOWN_ID]}  {when}  {what} of {remark.subject}{by}{text}"
    return line.replace("\n", f"\n{'':{SHOWN_ID + 2}}")


def as_json(remark: Remark) -> dict[str, Any]:
    return {
        "id": remark.id,
        "kind": remark.kind,
        "subject": remark.subject.model_dump(exclude_none=True),
        "text": remark.text,
        "by": remark.by,
        "time": remark.time,
        "edited": remark.edited,
    }
