"""Data sets that were sent as a zip file: each is a folder of images in `.data` beside the runs.

`data/uploaded.py` makes them.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from diffusion_core.data.errors import DataError
from diffusion_core.data.source import SourceKind
from diffusion_core.data.sources.folder import SIZE, FolderSource, open_folder
from diffusion_core.records import Record, RecordError, read_record_file
from diffusion_core.text import shown

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
LEFT_OUT = ".left-out.json"  # in the folder of a set, where no image is looked for
MOST_LEFT_OUT = 10_000  # files


class LeftOut(Record):
    """What of an archive is not in the set."""

    files: Annotated[
        tuple[tuple[str, str], ...], Field(strict=False, max_length=MOST_LEFT_OUT)
    ] = ()


def data_dir() -> Path:
    """`.data` in the folder of the runs: DIFFUSION_LAB_RUNS_DIR, else checkpoints."""
    return Path(os.environ.get("DIFFUSION_LAB_RUNS_DIR") or "checkpoints") / ".data"


def names() -> list[str]:
    """The data sets that are there."""
    try:
        found = [each.name for each in data_dir().iterdir() if each.is_dir()]
    except OSError:
        return []
    return sorted(name for name in found if re.fullmatch(NAME, name))


def folder_of(name: str) -> Path:
    """The folder of a data set. Raises DataError where there is none."""
    path = data_dir() / check_name(name)
    if not path.is_dir():
        there = ", ".join(names()[:5])
        instead = f"There are: {there}." if there else "None has been uploaded yet."
        raise DataError(f"There is no uploaded data set {shown(name)}. {instead}")
    return path


def check_name(name: str) -> str:
    """Raises DataError."""
    if not re.fullmatch(NAME, name):
        raise DataError(
            f"{shown(name)} cannot be the name of a data set. Use up to 80 letters, digits, dots, "
            "dashes and underscores, beginning with a letter or digit."
        )
    return name


def left_out_of(path: Path) -> tuple[tuple[str, str], ...]:
    """What was left out when a set was unpacked."""
    try:
        found = read_record_file(LeftOut, path / LEFT_OUT)
    except RecordError:
        return ()
    return found.files if found is not None else ()


def open_uploaded(detail: str, seconds: float | None = None) -> FolderSource:
    """The images of a set with their classes, as those of any folder. Raises DataError."""
    path = folder_of(detail)
    source = open_folder(str(path), seconds)
    return replace(source, left_out=(*source.left_out, *left_out_of(path)))


SOURCE = SourceKind(
    name="uploaded",
    help="images of your own, uploaded on the Data page.",
    usage=("uploaded:NAME",),
    open=open_uploaded,
    open_within=open_uploaded,
    size=SIZE,
    names=names,
    detail="Uploaded data set",
    placeholder="my-images",
    missing="Give the name of a data set that was uploaded on the Data page.",
)
