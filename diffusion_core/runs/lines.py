"""Files of a run to which many processes add records, one line of JSON each, the oldest first.

A line goes to the end of the file in one write (O_APPEND), so no process overwrites another's, and
it is on the disk before `add_line` returns. A process that is killed, or a full disk, can leave a
part of a line: the next one begins a line of its own, and a reader skips the part and says so. (The
writers of a file share a machine: a disk that several machines share may not append so.)
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from diffusion_core.files import check_regular, naming_full_disk, open_log, sync_folder
from diffusion_core.records import Record, RecordError, read_record

Kind = TypeVar("Kind", bound=Record)


class Lines(NamedTuple, Generic[Kind]):
    """What is in a file, the oldest first."""

    entries: tuple[Kind, ...] = ()
    problem: str = ""  # why it cannot be read in full, as a sentence
    shortened: bool = False  # older lines were not read


def add_line(path: Path, record: Record) -> None:
    """Add a record to a file, which need not exist. Raises DiskFull, OSError."""
    # The first line end is for a part of a line that was left there.
    line = f"\n{record.model_dump_json(exclude_defaults=True)}\n".encode()
    is_new = not path.exists()
    with naming_full_disk(path), open_log(path) as file:
        if os.write(file.fileno(), line) < len(line):  # the rest could come behind another's line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def read_lines(path: Path, kind: type[Kind], most_bytes: int) -> Lines[Kind]:
    """The records in the last `most_bytes` of a file. Never raises."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            lines = file.read(most_bytes).split(b"\n")
    except FileNotFoundError:
        return Lines()
    except OSError as error:
        return Lines(problem=f"{path.name} cannot be read: {error.strerror}.")
    shortened = size > most_bytes
    entries, problem = list[Kind](), ""
    for line in filter(None, lines[1:] if shortened else lines):
        try:
            entries.append(read_record(kind, line, path.name))
        except RecordError as error:
            problem = problem or str(error)
    return Lines(tuple(entries), problem, shortened)
