"""Records that people save by name beside the runs: a folder of them, a file each.

They are for everybody who sees the runs folder.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, ValidationError

from diffusion_core.files import listing, make_folder, os_sentence, write_json
from diffusion_core.records import Record, RecordError, read_record_file, sentences
from diffusion_core.text import has_control_characters

LONGEST_NAME = 60


class Saved(Record):
    """What every saved record has."""

    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    by: Annotated[str, Field(max_length=320)] = ""
    time: Annotated[float, Field(ge=0, le=10**11)] = 0.0


AnySaved = TypeVar("AnySaved", bound=Saved)


class SaveError(ValueError):
    """A record that cannot be saved; one sentence."""


@dataclass(frozen=True)
class Shelf(Generic[AnySaved]):
    """The records of one kind: `what` names one in a sentence, `folder` lies beside the runs."""

    record: type[AnySaved]
    what: str
    folder: str
    most: int = 200

    def read(self, runs_dir: Path) -> tuple[dict[str, AnySaved], list[str]]:
        """All of them by name, sorted, and a sentence for each file that cannot be read. Never
        raises."""
        found, problems = dict[str, AnySaved](), list[str]()
        for path in listing(runs_dir / self.folder, "*.json"):
            try:
                if (one := read_record_file(self.record, path)) is not None:
                    found[one.name] = one
            except (RecordError, OSError) as error:
                why = os_sentence(error) if isinstance(error, OSError) else str(error)
                problems.append(f"A saved {self.what} is skipped: {why}")
        return dict(sorted(found.items(), key=lambda item: item[0].casefold())), problems

    def save(self, runs_dir: Path, name: str, by: str = "", **values: Any) -> AnySaved:
        """Save one; another of the same name is replaced. Raises SaveError, OSError."""
        name = name.strip()
        if not name or has_control_characters(name):
            raise SaveError(f"Give the {self.what} a name of visible characters.")
        try:
            one = self.record(name=name, by=by, time=time.time(), **values)
        except ValidationError as error:
            said = sentences(error, self.record, f"The {self.what}")
            raise SaveError(said[0]) from error
        known, _ = self.read(runs_dir)
        if name not in known and len(known) >= self.most:
            raise SaveError(f"There are {self.most} saved {self.what}s. Delete one first.")
        make_folder(runs_dir / self.folder)
        write_json(self._path(runs_dir, name), one.model_dump())
        return one

    def delete(self, runs_dir: Path, name: str) -> None:
        """Raises OSError; one that is not there is no error."""
        self._path(runs_dir, name).unlink(missing_ok=True)

    def _path(self, runs_dir: Path, name: str) -> Path:
        # A name may have any characters, and two may differ in capitals alone.
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        return runs_dir / self.folder / f"{digest}.json"
