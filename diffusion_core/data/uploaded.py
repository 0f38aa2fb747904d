"""Make a data set of a zip file of images, which may be of any origin, and delete one.

Its list of files is checked before anything is unpacked, and each file while it is. It is unpacked
into a hidden folder beside its place; then it becomes the set, whole or not at all.
`sources/uploaded.py` reads it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import filelock

from diffusion_core.data.decode import (
    EXTENSIONS,
    OTHER_EXTENSIONS,
    ImageError,
    ImageTooLarge,
    upright_size,
)
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources.layout import is_hidden
from diffusion_core.data.sources.uploaded import (
    LEFT_OUT,
    MOST_LEFT_OUT,
    check_name,
    data_dir,
    folder_of,
)
from diffusion_core.files import (
    DiskFull,
    building_folder,
    remove_leftovers,
    short_path,
    sync_folder,
)
from diffusion_core.text import cut, has_control_characters, shown
from diffusion_core.zips import (
    CHUNK,
    SPARE,
    ArchiveError,
    check_entry,
    check_list,
    check_packed,
    damage_explained,
    opened,
)

MOST_FILES = 100_000
LISTED = 320  # bytes of a file in the archive's list: numbers and a name
MOST_BYTES = 64 * 2**20  # of a file
LONGEST_PART, LONGEST_NAME, MOST_PARTS = 200, 1000, 16  # bytes, bytes, folders and the file

Progress = Callable[[int, int], object]  # files done, total


class Uploaded(NamedTuple):
    """What became of an archive."""

    path: Path
    images: int
    left_out: tuple[tuple[str, str], ...]  # names and reasons, keys of `found.REASONS`


def delete(name: str) -> None:
    """Raises DataError, OSError."""
    path = folder_of(name)
    with _alone():
        gone = path.with_name(f".{name}.deleted")
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        sync_folder(path.parent)
        shutil.rmtree(gone)


def take(source: Path | IO[bytes], name: str, progress: Progress | None = None) -> Uploaded:
    """Make a data set of the images in a zip file, whose folders become classes.

    Raises ArchiveError with the reason, DataError for a name that is taken or cannot be used and
    for an archive without images, DiskFull, OSError.
    """
    path = data_dir() / check_name(name)
    with opened(source) as file, damage_explained():
        check_list(file, MOST_FILES, LISTED, "a data set")
        with zipfile.ZipFile(file) as archive:
            entries = _check_entries(archive, file.seek(0, os.SEEK_END))
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone():
                remove_leftovers(path.parent, deep=False)
                _check_free(path)
                _check_room(path.parent, entries)
                with building_folder(path) as folder:
                    left_out = _unpack(archive, entries, folder, progress)
                    images = len(entries) - len(left_out)
                    if not images:
                        raise DataError("There are no images in the archive that can be used.")
                    (folder / LEFT_OUT).write_text(json.dumps({"files": left_out}))
    return Uploaded(path, images, tuple(left_out))


@contextmanager
def _alone() -> Iterator[None]:
    """So that all that is half unpacked here was left by a process that is gone."""
    try:
        held = filelock.FileLock(data_dir() / ".lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise DataError("Another data set is being uploaded; try again in a moment.") from error
    with held:
        yield


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise DataError(
            f"There is already a data set called {path.name}; choose another name or delete it."
        )


def _check_entries(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """The entries that are images by their names, also of formats that cannot be read.

    Raises ArchiveError.
    """
    taken: dict[str, zipfile.ZipInfo] = {}
    listed = archive.infolist()
    if len(listed) > MOST_FILES:
        raise ArchiveError(
            f"The archive has too many files; a data set has at most {MOST_FILES:,}."
        )
    check_packed(listed, size, "data set")
    for entry in listed:
        # Not the name that zipfile makes of it, which ends at a null byte.
        name = entry.orig_filename
        _check_name_in_archive(name)
        if name.endswith("/"):
            if entry.file_size:
                raise ArchiveError(f"{shown(name)} is a folder with content in the archive.")
            continue
        check_entry(entry, shown(name), MOST_BYTES, "image")
        if any(map(is_hidden, name.split("/"))):
            continue
        if os.path.splitext(name)[1].lower() not in EXTENSIONS | OTHER_EXTENSIONS:
            continue
        if name in taken:
            raise ArchiveError(f"{shown(name)} is in the archive twice.")
        taken[name] = entry
    return list(taken.values())


def _check_name_in_archive(name: str) -> None:
    """Raises ArchiveError for what is no path below the folder that it is unpacked to."""
    parts = name.removesuffix("/").split("/")
    lengths = [len(part.encode(errors="surrogateescape")) for part in parts]
    if (
        any(part in ("", ".", "..") for part in parts)
        or max(lengths) > LONGEST_PART
        or sum(lengths) > LONGEST_NAME
        or len(parts) > MOST_PARTS
        or "\\" in name
        or re.match("[A-Za-z]:", name)  # a drive of Windows
        or has_control_characters(name)
    ):
        raise ArchiveError(f"The archive has a file {shown(name)}; no image can have this name.")


def _check_room(folder: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises DiskFull."""
    needed = sum(entry.file_size for entry in entries)
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise DiskFull(
            errno.ENOSPC,
            f"The images need {needed / 2**20:,.0f} MiB, and the disk of {short_path(folder)} has "
            f"{free / 2**20:,.0f} MiB free. Free some space there and try again.",
        )


def _unpack(
    archive: zipfile.ZipFile,
    entries: list[zipfile.ZipInfo],
    folder: Path,
    progress: Progress | None,
) -> list[tuple[str, str]]:
    """Returns the names that are left out and why. Raises ArchiveError."""
    left_out = []
    for done, entry in enumerate(entries):
        if progress is not None:
            progress(done, len(entries))
        name = entry.orig_filename
        if os.path.splitext(name)[1].lower() in OTHER_EXTENSIONS:
            left_out.append((cut(name, LONGEST_PART), "format"))
            continue
        data = _read(archive, entry)
        try:
            upright_size(data)
        except ImageError as error:
            why = "large" if isinstance(error, ImageTooLarge) else "unreadable"
            left_out.append((cut(name, LONGEST_PART), why))
            continue
        path = folder / PurePosixPath(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except (FileExistsError, NotADirectoryError) as error:  # capitals may not count
            raise ArchiveError(
                f"{shown(name)} is in the archive twice, or is a file and a folder."
            ) from error
    if len(left_out) > MOST_LEFT_OUT:
        raise ArchiveError(
            f"More than {MOST_LEFT_OUT:,} files of the archive are no images that can be read."
        )
    return left_out


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Raises ArchiveError where a file is larger or smaller than the list says."""
    data = bytearray()
    with archive.open(entry) as packed:
        while len(data) <= entry.file_size and (chunk := packed.read(CHUNK)):
            data += chunk
    if len(data) != entry.file_size:
        raise ArchiveError("The archive is damaged or cut short.")
    return bytes(data)
