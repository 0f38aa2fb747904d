"""A folder of images: which of its files count, and what class each is of."""

from __future__ import annotations

import os
import time
import unicodedata
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from diffusion_core.data.decode import (
    EXTENSIONS,
    OTHER_EXTENSIONS,
    begins_as_image,
    format_names,
    open_image,
)
from diffusion_core.data.errors import DataError, TooLong
from diffusion_core.data.source import SourceKind
from diffusion_core.data.sources.layout import arrange, is_hidden
from diffusion_core.files import short_path
from diffusion_core.text import printable, some

SIZE = 64  # pixels
PACKED = frozenset(
    ".zip .tar .gz .tgz .bz2 .xz .7z .rar .parquet .arrow .tfrecord .npy .npz .h5 .hdf5 .mat .lmdb "
    ".pickle .pkl .mp4 .mov .avi .mkv .webm .pdf".split()
)


@dataclass
class Walk:
    """The image files below a folder, each once, without what is hidden."""

    files: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)  # and the reason
    packed: list[Path] = field(default_factory=list)  # that may hold images


def walk(path: Path, seconds: float | None = None) -> Walk:
    """Find the image files below `path`, in the order of their names.

    Linked folders come last, so that an image counts where it really lies. Raises DataError where
    `path` cannot be read, TooLong after so many seconds.
    """
    found = Walk()
    if not os.path.isdir(path):  # nor one of a name that no disk takes
        raise DataError(f"There is no folder {quoted(path)}; give the folder of the images.")
    end = None if seconds is None else time.monotonic() + seconds
    inodes: dict[tuple[int, int], Path] = {}  # of files, where they were found
    folders: set[tuple[int, int]] = set()
    links: list[Path] = []  # files that are links, then folders
    waiting, linked = deque([path]), deque[Path]()
    while waiting or linked:
        folder = waiting.popleft() if waiting else linked.popleft()
        try:
            known = folder.stat()
            if (known.st_dev, known.st_ino) in folders:
                continue
            folders.add((known.st_dev, known.st_ino))
            with os.scandir(folder) as entries:
                here = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if folder == path:
                raise DataError(
                    f"The folder {quoted(path)} cannot be read: {error.strerror}."
                ) from error
            found.left_out.append((folder, "folder"))
            continue
        for entry in here:
            if end is not None and time.monotonic() > end:
                raise TooLong
            if is_hidden(entry.name):
                continue
            each = folder / entry.name
            suffix = os.path.splitext(entry.name)[1].lower()
            if _is_folder(entry):
                (linked if entry.is_symlink() else waiting).append(each)
            elif suffix in PACKED:
                found.packed.append(each)
            elif suffix in OTHER_EXTENSIONS:
                found.left_out.append((each, "format"))
            elif suffix in EXTENSIONS or (suffix == "" and _begins_as_image(entry)):
                if entry.is_symlink():
                    links.append(each)
                else:
                    _take(each, inodes, found)
    for each in sorted(links):
        _take(each, inodes, found)
    found.files.sort(key=lambda file: (file.parent.parts, file.name))  # as ImageFolder does
    found.left_out.sort()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _begins_as_image(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            return begins_as_image(file.read(16))
    except OSError:
        return False


def _take(file: Path, inodes: dict[tuple[int, int], Path], found: Walk) -> None:
    """Add a file, unless it is there already or cannot be read."""
    try:
        stat = file.stat()
    except OSError:  # a link that leads nowhere
        found.left_out.append((file, "unreadable"))
        return
    first = inodes.setdefault((stat.st_dev, stat.st_ino), file)
    if first is not file:
        found.left_out.append((file, "again"))
    elif file.is_file() and os.access(file, os.R_OK):
        found.files.append(file)
    else:
        found.left_out.append((file, "unreadable"))


def readable(name: Path | str) -> str:
    """A name as it can be shown and stored: bytes that are no text as \\xe9."""
    try:
        return printable(os.fsencode(name).decode(errors="backslashreplace"))
    except UnicodeEncodeError:  # no file can have this name
        return printable(str(name))


def quoted(path: Path | str) -> str:
    """A path as a message has it."""
    return short_path(readable(path))


@dataclass(frozen=True)
class FolderSource:
    """The image files of a folder."""

    path: Path
    files: tuple[tuple[Path, int], ...]  # with their labels
    classes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]  # names and reasons
    identity: str
    size: int = SIZE
    parallel: bool = True

    @property
    def count(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.files[index]
        return open_image(file), label

    def label(self, index: int) -> int:
        return self.files[index][1]

    def name(self, index: int) -> str:
        return readable(self.files[index][0].relative_to(self.path))


def open_folder(detail: str, seconds: float | None = None) -> FolderSource:
    """The images of a folder with their classes, by the rules of `layout.py`. Raises DataError."""
    # No user's name has a null character, and Python does not look for one.
    path = Path(detail if "\0" in detail else os.path.expanduser(detail))
    there = walk(path, seconds)
    below = [file.relative_to(path) for file in there.files]
    root = path.name or path.resolve().name or "images"
    by_class, left_out = arrange([each.parts for each in below], root)
    # The same name may be written in two ways, as on macOS and Linux.
    names = {k: unicodedata.normalize("NFC", readable(name)) for k, name in by_class.items()}
    classes = tuple(sorted(set(names.values())))
    number = {name: k for k, name in enumerate(classes)}
    kept = sorted(names)
    gone = [(readable(file.relative_to(path)), why) for file, why in there.left_out]
    gone += [(readable(below[k]), why) for k, why in sorted(left_out.items())]
    if not kept:
        why = f" These cannot be used: {some([name for name, _ in gone])}." if gone else ""
        if there.packed:
            packed = some([readable(file.relative_to(path)) for file in there.packed])
            why += f" These have to be unpacked or converted first: {packed}."
        raise DataError(
            f"There are no images in {quoted(path)}. Put {format_names()} files into it, or "
            f"into one folder for each class.{why}"
        )
    return FolderSource(
        path=path,
        files=tuple((there.files[k], number[names[k]]) for k in kept),
        classes=classes,
        left_out=tuple(gone),
        identity="\n".join(_line(below[k], names[k], there.files[k]) for k in kept),
    )


def _line(below: Path, class_name: str, file: Path) -> str:
    """What the fingerprint is made of. The class of a deep file has not always been the same."""
    name = f"{readable(below)} of {class_name}" if len(below.parts) > 2 else readable(below)
    return f"{name} {_size_and_time(file)}"


def earlier_identity(source: FolderSource, labelled: bool) -> str:
    """See `SourceKind.earlier_identity`: until 0.1, folders were splits if each held another."""
    inside = [child for child in source.path.iterdir() if child.is_dir()]
    level = int(all(any(each.is_dir() for each in child.iterdir()) for child in inside))
    below = [file.relative_to(source.path) for file, _ in source.files]
    if labelled:
        names = [each.parts[level] if len(each.parts) > level + 1 else "" for each in below]
        names = [unicodedata.normalize("NFC", readable(name)) for name in names]
        now = [source.classes[label] for _, label in source.files]
        if names != now and not len(source.classes) == len(set(names)) == 1:
            return ""
    lines = zip(below, source.files, strict=True)
    return "\n".join(f"{name} {_size_and_time(file)}" for name, (file, _) in lines)


def _size_and_time(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # removed just now: skipped and named when it is read
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


SOURCE = SourceKind(
    name="folder",
    help="images of your own, for example Stanford Cars.",
    usage=("folder:PATH",),
    open=open_folder,
    open_within=open_folder,
    earlier_identity=earlier_identity,
    size=SIZE,
    detail="Folder on this machine",
    placeholder="/data/stanford_cars",
    missing="Give the folder that holds the images.",
    is_path=True,
)
