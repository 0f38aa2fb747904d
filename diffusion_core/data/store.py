"""The decoded store: every image of a data set as uint8, memory-mapped.

Images are decoded once, here; training gathers rows. PyTorch is not imported, so that the decoding
processes start quickly.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

import numpy as np

from diffusion_core.data.cache import default_cache_dir
from diffusion_core.data.decode import SQUASH, ImageError, ImageTooLarge, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.found import Found, found
from diffusion_core.data.source import Source
from diffusion_core.data.sources import SOURCES, kind_of, open_source
from diffusion_core.files import is_disk_full, rename_synced, short_path, write_json
from diffusion_core.records import Count, Record
from diffusion_core.text import cut

__all__ = [
    "DataError",
    "ImageStore",
    "absolute",
    "build_store",
    "count",
    "default_cache_dir",
    "fingerprint_of",
    "load_image",
    "look",
    "may_download",
    "same_images",
]

CHUNK = 250  # images that a process decodes at a time

Progress = Callable[[int, int], None]  # images done, total


@dataclass(frozen=True)
class ImageStore:
    """A data set, decoded."""

    images: np.ndarray  # uint8 (N, C, H, W), memory-mapped; C = 3, or 1 for grey
    labels: np.ndarray  # int64 (N,)
    classes: tuple[str, ...]
    spec: str  # for example "cars:300"
    size: int  # H = W
    resize: str  # one of `decode.FITS`
    fingerprint: str  # sha256 of what the images come from: names, sizes and times of files
    folder: Path  # in the cache
    skipped: tuple[str, ...]  # names of files that cannot be read
    found: Found  # what is said of it
    file: IO[bytes]  # the images, open for reading
    start: int  # offset of the first image, bytes

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def content(self) -> str:
        """sha256 of pixels, labels and classes: the same wherever the files lie."""
        return _content(self.folder, self.classes)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of these rows, uint8 (n, C, H, W).

        Each is read by itself: of a set larger than the memory, the map would load the pages around
        each row too and evict others for them.
        """
        if not hasattr(os, "preadv"):  # Windows
            return self.images[rows]
        out = np.empty((len(rows), *self.images.shape[1:]), np.uint8)
        size = self.images[0].nbytes
        for image, row in zip(out, rows, strict=True):
            os.preadv(self.file.fileno(), [image.reshape(-1).data], self.start + int(row) * size)
        return out


def count(spec: str) -> int:
    """Number of images of a data set. Raises DataError."""
    return open_source(spec).count


def look(spec: str, seconds: float) -> Found | None:
    """What a set of files holds before it is decoded; None for others, whose name says it.

    Downloads nothing. Raises DataError, which is TooLong where it takes more seconds to see.
    """
    kind, detail = kind_of(spec), spec.partition(":")[2]
    if kind.open_within is None:
        return None
    source = kind.open_within(detail, seconds)
    return found(source.count, source.classes, source.left_out)


def may_download(spec: str) -> bool:
    """Whether opening a data set may download it first. Raises DataError."""
    return kind_of(spec).may_download()


def fingerprint_of(spec: str, size: int, channels: int = 3, resize: str = SQUASH) -> str:
    """Fingerprint of the store, built or not. Raises DataError."""
    return _fingerprint(open_source(spec), size, channels, resize)


def _fingerprint(source: Source, size: int, channels: int, resize: str, identity: str = "") -> str:
    grey = "" if channels == 3 else ", grey"
    fit = "" if resize == SQUASH else f", {resize}"  # as all stores were before the others came
    recipe = f"store 1, size {size}{grey}{fit}, count {source.count}\n{identity or source.identity}"
    return hashlib.sha256(recipe.encode(errors="surrogateescape")).hexdigest()


def same_images(
    store: ImageStore, fingerprint: str, content: str = "", labelled: bool = True
) -> bool | None:
    """Whether a store holds the images that had this fingerprint and, where it is known, content.

    Where it is not, as in runs of earlier versions, the images decoded then are looked for in the
    cache, and the fingerprint that those versions gave the files is compared; None where neither
    tells. Then `labelled` says whether their classes matter.
    """
    if store.fingerprint == fingerprint:
        return True
    if content:
        return store.content == content
    before = store.folder.with_name(_folder_name(fingerprint))
    try:
        if labelled:
            return store.content == _content(before, store.classes)
        return _pixels(store.folder) == _pixels(before)
    except Exception:  # NumPy raises half a dozen kinds for a damaged file
        pass
    source, kind = open_source(store.spec), kind_of(store.spec)
    identity = kind.earlier_identity(source, labelled) if kind.earlier_identity else ""
    channels = store.images.shape[1]
    earlier = identity and _fingerprint(source, store.size, channels, store.resize, identity)
    return True if earlier == fingerprint else None


def absolute(spec: str) -> str:
    """A data set as it is named from any folder: a path in it is made absolute."""
    name, _, detail = spec.partition(":")
    if name in SOURCES and SOURCES[name].is_path and detail:
        return f"{name}:{os.path.abspath(os.path.expanduser(detail))}"
    return spec


def load_image(
    spec: str, index: int, size: int | None = None, resize: str = SQUASH
) -> tuple[np.ndarray, int, str]:
    """Read one image without a store: uint8 (H, W, 3), its label and its class name.

    `resize`: one of `decode.FITS`. Raises DataError for a spec or index that does not exist,
    ImageError for a broken file.
    """
    source = open_source(spec)
    check_index(source, index, spec)
    image, label = _read(source, index, size or source.size, resize)
    return image, label, source.classes[label]


def check_index(source: Source, index: int, spec: str) -> None:
    """Raises DataError where a source, named `spec`, has no such image."""
    if not 0 <= index < source.count:
        raise DataError(f"{spec} has the images 0 to {source.count - 1:,}, not {index}.")


def build_store(
    spec: str,
    size: int,
    channels: int = 3,
    resize: str = SQUASH,
    *,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """Open the store of a data set at size x size pixels; build it if the cache lacks it.

    `channels`: 3 for colour, 1 for grey. `resize`: one of `decode.FITS`. `workers`: number of
    decoding processes, by default one per core; 0 decodes in this process. `progress` is called
    after each chunk; raising in it stops the build. A store is built in a temporary folder and
    renamed, so that half of one is never seen. Raises DataError.
    """
    source = open_source(spec)
    fingerprint = _fingerprint(source, size, channels, resize)
    folder = (cache_dir or default_cache_dir()) / _folder_name(fingerprint)
    arrays = (source.count, channels, size, size), len(source.classes)
    existed = folder.exists()
    kept = _open(folder, *arrays)
    if kept is None:
        if existed:  # damaged
            shutil.rmtree(folder, ignore_errors=True)
        _build(folder, source, size, channels, resize, workers, progress)
        kept = _open(folder, *arrays)
    if kept is None:
        raise DataError(f"The decoded images in {short_path(folder)} cannot be read; delete them.")
    meta, images, labels = kept
    classes = source.classes
    # Earlier versions kept the names alone.
    skipped = [(s, "unreadable") if isinstance(s, str) else s for s in meta.skipped]
    if skipped:  # a class is one of images that could be decoded
        there, labels = np.unique(labels, return_inverse=True)
        classes = tuple(classes[k] for k in there)
    return ImageStore(
        images=images[: meta.count],
        labels=labels,
        classes=classes,
        spec=spec,
        size=size,
        resize=resize,
        fingerprint=fingerprint,
        folder=folder,
        skipped=tuple(name for name, _ in skipped),
        found=found(len(labels), classes, [*source.left_out, *skipped]),
        file=open(folder / "images.npy", "rb"),
        start=images.offset,
    )


class _Meta(Record):
    """`meta.json` of decoded images."""

    count: Count
    skipped: tuple[str | tuple[str, str], ...]  # of earlier versions the names alone
    pixels: str = ""  # sha256; empty in those of earlier versions


def _open(
    folder: Path, shape: tuple[int, ...], classes: int
) -> tuple[_Meta, np.memmap, np.ndarray] | None:
    """Decoded images and their labels; None where they are missing, damaged or others.

    `shape`: of all images, with those that were skipped.
    """
    try:
        meta = _read_meta(folder)
        images = np.lib.format.open_memmap(folder / "images.npy", mode="r")
        with open(folder / "labels.npy", "rb") as file:
            labels = np.lib.format.read_array(file, allow_pickle=False)[: meta.count]
    except Exception:  # NumPy raises half a dozen kinds for a damaged file
        return None
    whole = meta.count + len(meta.skipped) == shape[0] and meta.count > 0
    whole &= images.shape == shape and images.dtype == np.uint8
    whole &= labels.shape == (meta.count,) and labels.dtype == np.int64
    whole = whole and 0 <= labels.min() <= labels.max() < classes
    return (meta, images, labels) if whole else None


def _read_meta(folder: Path) -> _Meta:
    """Raises OSError, pydantic's ValidationError."""
    return _Meta.model_validate_json((folder / "meta.json").read_bytes())


def _folder_name(fingerprint: str) -> str:
    return fingerprint[:20]


def _content(folder: Path, classes: tuple[str, ...]) -> str:
    """See `ImageStore.content`. The name of a single class is that of the folder: it may change."""
    pixels, count = _pixels(folder)
    labels = np.load(folder / "labels.npy")[:count]
    named = list(classes) if len(classes) > 1 else []
    recipe = json.dumps([pixels, count, hashlib.sha256(labels).hexdigest(), named])
    return hashlib.sha256(recipe.encode()).hexdigest()


def _pixels(folder: Path) -> tuple[str, int]:
    """sha256 of the pixels of a store, and the number of its images."""
    meta = _read_meta(folder)
    if not meta.pixels:  # made by an earlier version
        images = np.load(folder / "images.npy", mmap_mode="r")[: meta.count]
        pixels = hashlib.sha256()
        for start in range(0, meta.count, CHUNK):
            pixels.update(images[start : start + CHUNK].tobytes())
        meta = meta.model_copy(update={"pixels": pixels.hexdigest()})
        with suppress(OSError):  # a cache that is only read: next time again
            write_json(folder / "meta.json", meta.model_dump())
    return meta.pixels, meta.count


def _build(
    folder: Path,
    source: Source,
    size: int,
    channels: int,
    resize: str,
    workers: int | None,
    progress: Progress | None,
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataError(f"{folder.parent} cannot be written to: {error.strerror}.") from error
    try:
        shape = (source.count, channels, size, size)
        free = shutil.disk_usage(building).free
        needed = int(np.prod(shape)) + 2**20
        if free < needed:
            raise DataError(
                f"The decoded images need {needed / 2**20:.0f} MiB and {folder.parent} has "
                f"{free / 2**20:.0f} MiB free. Free some space, or set DIFFUSION_LAB_CACHE_DIR to "
                f"another disk."
            )
        labels = np.zeros(source.count, np.int64)
        ready = 0
        skipped: list[tuple[str, str]] = []
        # Written, not mapped: a full disk then raises an error instead of killing the process.
        with open(building / "images.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            end = file.tell() + int(np.prod(shape))
            pixels = hashlib.sha256()
            for images, numbers, broken in _decoded(source, size, resize, workers):
                decoded = (images if channels == 3 else to_grey(images)).tobytes()
                file.write(decoded)
                pixels.update(decoded)
                labels[ready : ready + len(numbers)] = numbers
                ready += len(numbers)
                skipped += broken
                if progress is not None:
                    progress(ready + len(skipped), source.count)
            if not ready:
                names = ", ".join(cut(name) for name, _ in skipped[:3])
                raise DataError(
                    f"None of the {source.count:,} files can be read as an image: {names}"
                    f"{', …' if len(skipped) > 3 else '.'}"
                )
            file.flush()
            os.ftruncate(file.fileno(), end)  # shorter where files were skipped
        np.save(building / "labels.npy", labels)
        meta = {"count": ready, "skipped": skipped, "pixels": pixels.hexdigest()}
        (building / "meta.json").write_text(json.dumps(meta))
        try:
            rename_synced(building, folder)
        except OSError:
            if not (folder / "meta.json").exists():  # else another process built the same first
                raise
    except OSError as error:
        if is_disk_full(error):
            raise DataError(
                f"The disk is full: the decoded images do not fit into {folder.parent}. Free "
                f"some space there, or set DIFFUSION_LAB_CACHE_DIR to another disk."
            ) from error
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 3, H, W) to (N, 1, H, W): the luma of ITU-R 601, as Pillow's mode "L"."""
    red, green, blue = (images[:, k : k + 1].astype(np.uint32) for k in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


Chunk = tuple[np.ndarray, list[int], list[tuple[str, str]]]


def _decoded(source: Source, size: int, resize: str, workers: int | None) -> Iterator[Chunk]:
    """Chunks (images (n, 3, size, size), labels, names and reasons of broken files) in order."""
    starts = range(0, source.count, CHUNK)
    decode = functools.partial(_decode, source, size, resize)
    if workers is None:
        from diffusion_core.cores import part_of_cores  # imports PyTorch, which they do not need

        workers = part_of_cores()
    workers = min(workers, len(starts))
    if workers <= 1 or not source.parallel:
        yield from map(decode, starts)
        return
    # spawn: forking a process with threads (a server, PyTorch) can hang.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_follow_parent,
    )
    try:
        yield from pool.map(decode, starts)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """End this process with the one that started it, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(source: Source, size: int, resize: str, start: int) -> Chunk:
    images, labels, broken = [], [], []
    for index in range(start, min(start + CHUNK, source.count)):
        try:
            image, label = _read(source, index, size, resize)
        except ImageError as error:
            why = "large" if isinstance(error, ImageTooLarge) else "unreadable"
            broken.append((source.name(index), why))
            continue
        images.append(image.transpose(2, 0, 1))
        labels.append(label)
    if not images:
        return np.empty((0, 3, size, size), np.uint8), labels, broken
    return np.stack(images), labels, broken


def _read(source: Source, index: int, size: int, resize: str) -> tuple[np.ndarray, int]:
    """One image as uint8 (size, size, 3) and its label."""
    image, label = source.read(index)
    return to_size(image, size, resize), label
