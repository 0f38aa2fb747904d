"""Views of the Review page saved by name, for everybody who sees the runs folder.

Each holds the settings of a link, which are checked where the link is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from diffusion_core.saved import Saved, Shelf

Text = Annotated[str, Field(max_length=4096)]


class SavedView(Saved):
    # The settings of the link: {key: texts}.
    address: Annotated[
        dict[Annotated[str, Field(max_length=80)], Annotated[list[Text], Field(max_length=200)]],
        Field(max_length=100),
    ]


SHELF = Shelf(SavedView, "view", ".views")


class SavedViews(NamedTuple):
    """By name, and a sentence for each file that cannot be read."""

    views: dict[str, SavedView]
    problems: list[str]


def read_views(runs_dir: Path) -> SavedViews:
    """Sorted by name. Never raises."""
    return SavedViews(*SHELF.read(runs_dir))


def save_view(runs_dir: Path, name: str, address: dict[str, list[str]], by: str = "") -> SavedView:
    """Save a view; one of the same name is replaced. Raises SaveError, OSError."""
    return SHELF.save(runs_dir, name, by, address=address)


def delete_view(runs_dir: Path, name: str) -> None:
    """Raises OSError; one that is not there is no error."""
    SHELF.delete(runs_dir, name)
