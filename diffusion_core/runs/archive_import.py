"""Take a run out of an archive, which may be of any origin: see `archive.py`.

Its list of files is checked before anything is unpacked, and again while it is. Only names of
`archive.PARTS` are files here, so that nothing is written elsewhere. The files are unpacked into a
hidden folder beside the runs and checked there as those of any run are; then it becomes the run.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import filelock

from diffusion_core.files import (
    DiskFull,
    building_folder,
    os_sentence,
    remove_leftovers,
)
from diffusion_core.records import MAX_BYTES, RecordError, read_record
from diffusion_core.runs.archive import (
    LISTED,
    MANIFEST,
    MOST_FILES,
    Manifest,
    Member,
    part_of,
    settled,
)
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.jobs import JobError, check_name
from diffusion_core.runs.run import Run, is_run
from diffusion_core.runs.status import read_status, write_status
from diffusion_core.text import shown
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

_log = logging.getLogger(__name__)


def import_archive(
    source: Path | IO[bytes], runs_dir: Path, name: str | None = None, by: str | None = None
) -> Run:
    """Make a run of an archive, under its own name or another one.

    It appears whole or not at all. No process works on it: what was at work is stopped. `by`: who
    does it, for the run's history. Raises ArchiveError with the reason, JobError for a name that
    is taken or cannot be used, DiskFull, OSError.
    """
    with opened(source) as file, _damage_explained():
        check_list(file, MOST_FILES, LISTED, "a run")
        with zipfile.ZipFile(file) as archive:
            manifest, entries = _check_entries(archive, file.seek(0, os.SEEK_END))
            path = runs_dir / check_name(manifest.name if name is None else name)
            if is_run(runs_dir):
                raise JobError(f"{runs_dir} is a run; new runs need a folder of their own.")
            runs_dir.mkdir(parents=True, exist_ok=True)
            with _alone(runs_dir):
                remove_leftovers(runs_dir, deep=False)
                if os.path.lexists(path):
                    raise JobError(
                        f"There is already a run called {path.name}; choose another name."
                    )
                _check_room(runs_dir, manifest)
                with building_folder(path) as folder:
                    for member in manifest.files:
                        _unpack(archive, entries[member.name], member, folder)
                    _check(folder, manifest)
                    write_status(folder, settled(read_status(folder)))
                    record(folder, Event.IMPORTED, by)
    _log.info("run imported", extra={"run": path.name})
    return Run(path)


@contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        with damage_explained():
            yield
    except RecordError as error:
        raise ArchiveError(str(error)) from error


@contextmanager
def _alone(runs_dir: Path) -> Iterator[None]:
    """So that all that is half unpacked here was left by a process that is gone."""
    try:
        held = filelock.FileLock(runs_dir / ".import.lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise JobError("Another archive is being imported; try again in a moment.") from error
    with held:
        yield


def _check_entries(
    archive: zipfile.ZipFile, size: int
) -> tuple[Manifest, dict[str, zipfile.ZipInfo]]:
    """The manifest, and the entries of its files. Raises ArchiveError, RecordError."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        _check_entry(entry)
        if entry.filename in entries:
            raise ArchiveError(f"{entry.filename} is in the archive twice.")
        entries[entry.filename] = entry
    check_packed(list(entries.values()), size, "run")
    if MANIFEST not in entries:
        raise ArchiveError("This is no archive of a run: it has no manifest.json.")
    with archive.open(entries.pop(MANIFEST)) as file:
        manifest = read_record(Manifest, file.read(MAX_BYTES + 1), MANIFEST)
    if {member.name: member.size for member in manifest.files} != {
        name: entry.file_size for name, entry in entries.items()
    }:
        raise ArchiveError(f"{MANIFEST} lists other files than the archive has.")
    return manifest, entries


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Raises ArchiveError."""
    # Not the name that zipfile makes of it, which ends at a null byte.
    name, part = entry.orig_filename, part_of(entry.orig_filename)
    if part is None and name != MANIFEST:
        raise ArchiveError(f"The archive has a file {shown(name)}, which no run has.")
    most = MAX_BYTES if part is None else part.most
    check_entry(entry, name, most, "run")


def _check_room(runs_dir: Path, manifest: Manifest) -> None:
    """Raises DiskFull."""
    needed = sum(member.size for member in manifest.files)
    free = shutil.disk_usage(runs_dir).free
    if needed + SPARE > free:
        raise DiskFull(
            errno.ENOSPC,
            f"The run needs {needed / 2**20:,.0f} MiB, and the disk of {runs_dir} has "
            f"{free / 2**20:,.0f} MiB free. Free some space there and import it again.",
        )


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, member: Member, folder: Path) -> None:
    """Raises ArchiveError where a file is not what the manifest says."""
    path = folder / PurePosixPath(member.name)
    path.parent.mkdir(exist_ok=True)
    size, digest = 0, hashlib.sha256()
    with archive.open(entry) as packed, open(path, "xb") as file:
        while size <= member.size and (chunk := packed.read(CHUNK)):
            size += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    if size != member.size or digest.hexdigest() != member.sha256:
        raise ArchiveError(
            f"{member.name} is not what {MANIFEST} says; the archive is damaged or was changed."
        )


def _check(folder: Path, manifest: Manifest) -> None:
    """As a run's own files are checked when they are read. Raises ArchiveError."""
    for name in sorted({"config.json", *(member.name for member in manifest.files)}):
        part = part_of(name)
        assert part is not None
        try:
            part.check(folder / PurePosixPath(name))
        except (ValueError, OSError) as error:
            why = os_sentence(error) if isinstance(error, OSError) else str(error)
            raise ArchiveError(f"The run in the archive cannot be used: {why}") from error
