"""Writing files so that a reader never sees half of one, and a full disk gets a clear sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class DiskFull(OSError):
    """The disk has no room for a file; the message says which and how to go on."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary name beside `path`; on success it is synced and renamed to `path`.

    On any failure the temporary file is removed and what was at `path` stays as it was.
    Raises DiskFull where the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error, path.parent):
            free = shutil.disk_usage(path.parent).free
            raise DiskFull(
                errno.ENOSPC,
                f"The disk is full: {path.name} could not be written to {path.parent} "
                f"({free / 2**20:.0f} MiB free). Free some space there, then go on; "
                f"what was written before is intact.",
            ) from error
        raise


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether `error` means "no space left"; torch.save says so only by the state of the disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < 2**16


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where the file is missing or does not hold one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def folder_size(path: Path, match: Callable[[Path], bool] = lambda _: True) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and match(file))
