"""Zip files of any origin: what is checked before anything of one is unpacked.

Links, encryption, two sizes, the same bytes several times and what becomes far larger are refused.
`archive_import.py` takes runs out of them, `data/uploaded.py` images.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from diffusion_core.files import check_regular

CHUNK = 2**20  # bytes that are unpacked at a time
MOST_TIMES = 200  # as many bytes as compressed ones; curves and JSON have a tenth of that
SPARE = 64 * 2**20  # bytes that stay free on the disk


class ArchiveError(ValueError):
    """An archive that cannot be written or used; the message says why."""


@contextmanager
def opened(source: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """The bytes of a file, which must be a regular one where it is named by a path."""
    if not isinstance(source, Path):
        yield source
        return
    check_regular(source)
    with open(source, "rb") as file:
        yield file


@contextmanager
def damage_explained() -> Iterator[None]:
    """The errors of a damaged file as ArchiveError."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,  # of zipfile, for a way to compress that it does not know
        OverflowError,
        UnicodeDecodeError,
    ) as error:
        raise ArchiveError("The archive is damaged or cut short.") from error


def check_list(file: IO[bytes], most_files: int, a_file: int, what: str) -> None:
    """Raises ArchiveError for what is no zip file, and for one with more files than `what` has.

    The list of its files, at its end, is read at once by whatever opens it; `a_file`: the bytes of
    one of them in it, with its name.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 98))
    end = file.read().rjust(98, b"\0")
    whole = end[76:80] == b"PK\5\6" and end[96:] == b"\0\0"
    listed, first = struct.unpack("<II", end[88:96])
    behind = size - 22
    if end[56:60] == b"PK\6\7":  # a large file has larger numbers before that
        (behind,) = struct.unpack("<Q", end[64:72])
        whole = whole and end[:4] == b"PK\6\6" and behind == size - 98
        listed, first = struct.unpack("<QQ", end[40:56])
    if whole and listed > most_files * a_file:
        raise ArchiveError(f"The archive has too many files; {what} has at most {most_files:,}.")
    if not whole or first + listed != behind:
        raise ArchiveError(f"This is no archive of {what}, or it is cut short.")


def check_entry(entry: zipfile.ZipInfo, name: str, most: int | None, what: str) -> None:
    """Raises ArchiveError. `most`: bytes of it; None: any, and then it must not be compressed."""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ArchiveError(f"{name} is a link or a device in the archive; it must be a file.")
    if entry.flag_bits & 1:
        raise ArchiveError(f"{name} is encrypted in the archive.")
    stored = entry.compress_type == zipfile.ZIP_STORED
    if not stored and (most is None or entry.compress_type != zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{name} is compressed in the archive in a way that no {what} is.")
    if stored and entry.compress_size != entry.file_size:
        raise ArchiveError(f"{name} has two sizes in the archive.")
    if most is not None and entry.file_size > most:
        raise ArchiveError(f"{name} is larger than {most // 2**20:,} MB in the archive.")
    if entry.file_size > max(entry.compress_size * MOST_TIMES, CHUNK):
        raise ArchiveError(f"{name} becomes more than {MOST_TIMES} times as large; no {what} does.")


def check_packed(entries: Sequence[zipfile.ZipInfo], size: int, what: str) -> None:
    """Raises ArchiveError where the entries of an archive of so many bytes overlap."""
    if sum(entry.compress_size for entry in entries) > size:
        raise ArchiveError(f"The archive holds the same bytes several times; no {what} does.")
