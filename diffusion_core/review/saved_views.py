"""Views of the Review page saved by name, for everybody who sees the runs folder.

Each is a file of `.views` beside the runs. It holds the settings of a link, which are checked where
the link is opened.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from diffusion_core.files import listing, make_folder, os_sentence, write_json
from diffusion_core.records import Record, RecordError, read_record_file, sentences
from diffusion_core.text import has_control_characters

FOLDER = ".views"
LONGEST_NAME = 60
MOST = 200

Text = Annotated[str, Field(max_length=4096)]


class SavedView(Record):
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    # The settings of the link: {key: texts}.
    address: Annotated[
        dict[Annotated[str, Field(max_length=80)], Annotated[list[Text], Field(max_length=200)]],
        Field(max_length=100),
    ]
    by: Annotated[str, Field(max_length=320)] = ""
    time: Annotated[float, Field(ge=0, le=10**11)] = 0.0


class SavedViews(NamedTuple):
    """By name, and a sentence for each file that cannot be read."""

    views: dict[str, SavedView]
    problems: list[str]


class ViewError(ValueError):
    """A view that cannot be saved; one sentence."""


def read_views(runs_dir: Path) -> SavedViews:
    """Sorted by name. Never raises."""
    views, problems = dict[str, SavedView](), list[str]()
    for path in listing(runs_dir / FOLDER, "*.json"):
        try:
            if (view := read_record_file(SavedView, path)) is not None:
                views[view.name] = view
        except (RecordError, OSError) as error:
            why = os_sentence(error) if isinstance(error, OSError) else str(error)
            problems.append(f"A saved view is skipped: {why}")
    return SavedViews(dict(sorted(views.items(), key=lambda item: item[0].casefold())), problems)


def save_view(runs_dir: Path, name: str, address: dict[str, list[str]], by: str = "") -> SavedView:
    """Save a view; one of the same name is replaced. Raises ViewError, OSError."""
    name = name.strip()
    if not name or has_control_characters(name):
        raise ViewError("Give the view a name of visible characters.")
    try:
        view = SavedView(name=name, address=address, by=by, time=time.time())
    except ValidationError as error:
        raise ViewError(sentences(error, SavedView, "The view")[0]) from error
    known = read_views(runs_dir).views
    if name not in known and len(known) >= MOST:
        raise ViewError(f"There are {MOST} saved views. Delete one first.")
    make_folder(runs_dir / FOLDER)
    write_json(_path(runs_dir, name), view.model_dump())
    return view


def delete_view(runs_dir: Path, name: str) -> None:
    """Raises OSError; one that is not there is no error."""
    _path(runs_dir, name).unlink(missing_ok=True)


def _path(runs_dir: Path, name: str) -> Path:
    # A name may have any characters, and two may differ in capitals alone.
    return runs_dir / FOLDER / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
