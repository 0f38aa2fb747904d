"""Writing files so that a reader never sees half of one, and a full disk gets a clear sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from diffusion_core.text import cut

# The end of a temporary name; the next trainer removes what a killed process leaves.
TEMPORARY = ".tmp"
LONGEST_PATH = 200  # characters of a path that a message quotes


class DiskFull(OSError):
    """The disk has no room for a file; the message names the file and the remedy."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raise DiskFull where what the block does for `path` finds no space."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, DiskFull) or not is_disk_full(error):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFull(
            errno.ENOSPC,
            f"The disk is full: {path.name} could not be written to {path.parent} "
            f"({free / 2**20:.0f} MiB free). Free some space there, then go on; "
            f"what was written before is intact.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary name beside `path`; on success it is synced and renamed to `path`,
    and the folder is synced, so that the renaming survives a loss of power too.

    On any failure the temporary file is removed and what was at `path` stays as it was.
    Raises DiskFull where the disk is full.
    """
    temporary = _temporary(path)
    with naming_full_disk(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException as error:
            if isinstance(error, OSError) and error.filename:
                error.filename, error.filename2 = str(path), None  # not the temporary name
            # The reason for the failure counts, not that this fails too (a read-only disk).
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def building_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `path`; on success it is synced and renamed to `path`.

    On any failure it is removed, and there is no folder `path`. Raises DiskFull where the disk is
    full, OSError where `path` exists.
    """
    temporary = _temporary(path)
    with naming_full_disk(path):
        try:
            temporary.mkdir()
            yield temporary
            rename_synced(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # the reason for the failure counts
            raise


def rename_synced(folder: Path, path: Path) -> None:
    """Rename a folder once all that is in it is on the disk. Raises OSError where `path` exists."""
    inside = list(folder.rglob("*"))
    for file in inside:
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
    for each in (folder, *inside):
        if each.is_dir():
            sync_folder(each)
    os.rename(folder, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the entries of a folder to the disk, where the system can do that with a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")


def make_folder(path: Path) -> None:
    """Make a folder where there is none yet. Raises DiskFull, OSError."""
    check_folder(path)
    with naming_full_disk(path):
        path.mkdir(exist_ok=True)


def check_folder(path: Path) -> None:
    """Raise NotADirectoryError for something else in the place of a folder."""
    if os.path.lexists(path) and not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def listing(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder and matches, sorted; nothing where it is missing or must not be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def check_regular(path: Path) -> None:
    """Raise OSError for a folder and for a pipe, a socket or a device, which could block."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to it. Raises OSError, also for a pipe or device, which could block."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, f"{path.name} is not a file")
    return open(path, "ab")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether "no space left" is behind `error`, which torch.save makes a RuntimeError of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        error = error.__cause__ or error.__context__
    return False


def os_sentence(error: OSError) -> str:
    """The system's message without its number: "runs/a: Read-only file system."."""
    if error.strerror is None or isinstance(error, DiskFull):
        return str(error)
    name = error.filename2 or error.filename  # of a renaming, the new name: the other is temporary
    name = str(name) if isinstance(name, (str, os.PathLike)) else ""
    return f"{short_path(name)}: {error.strerror}." if name else f"{error.strerror}."


def short_path(path: str | Path) -> str:
    """A path as a message quotes it, cut short."""
    return cut(str(path), LONGEST_PATH)


def complain(text: str) -> None:
    """Print a text on standard error, if that can be written: it may be a log on a full disk."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def remove_leftovers(folder: Path, but: str = "", *, deep: bool = True) -> None:
    """Remove the temporary files and folders that a killed process left below `folder`.

    Those of a live process of this machine stay, and those of a file called `but`, which processes
    of other machines write too. `deep`: also in the folders in it.
    """
    for path in list((folder.rglob if deep else folder.glob)(f".*{TEMPORARY}")):
        if path.name.startswith(f".{but}.") or _is_being_written(path):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_being_written(temporary: Path) -> bool:
    """Whether the process in its name is alive and not this one."""
    writer = temporary.name.removesuffix(TEMPORARY).rpartition(".")[2].partition("-")[0]
    return writer.isdecimal() and int(writer) != os.getpid() and psutil.pid_exists(int(writer))


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode())


def folder_size(path: Path) -> int:
    """Bytes of the files below a folder, without those that disappear or must not be read."""
    total = 0
    for file in path.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def why_no_list(runs_dir: Path) -> str:
    """Why the runs in a folder cannot be listed, as the end of a sentence about it.

    Empty where they can be, and where the folder does not exist yet.
    """
    try:
        os.scandir(runs_dir).close()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        return "is a file; the runs need a folder."
    except OSError as error:
        return f"cannot be read: {error.strerror}."
    return ""
