"""The decoded store: every image of a data set once as uint8, memory-mapped.

Decoding happens here and once; training gathers rows. PyTorch is not imported, so that the
processes that draw or decode start quickly.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

import numpy as np
from PIL import Image

from diffusion_core.data.decode import ImageError, open_image, to_size
from diffusion_core.data.errors import DataError
from diffusion_core.data.sources import cars, digits
from diffusion_core.data.sources.folder import find_images
from diffusion_core.files import is_disk_full

__all__ = [
    "DataError",
    "ImageStore",
    "build_store",
    "count",
    "fingerprint_of",
    "load_image",
    "native_size",
]

CARS_COUNT = 20_000
# What the pixels of a drawn set are: to be changed whenever the same index draws other pixels, so
# that stores and runs of the old ones are not taken for the new.
DRAWN_PIXELS = {
    "cars": "39fd65dff1e523514a9df2618d196c644859a8ffc3bbb2aaba126336a501c477",
    "digits": "e463eefffa854c6f8c390e5661614d8dac04f7ce1d3d847cf583069835574a66",
}
CHUNK = 250  # images that a process decodes before it hands them over

Progress = Callable[[int, int], None]  # images ready, images in all


@dataclass(frozen=True)
class ImageStore:
    """A data set, decoded."""

    images: np.ndarray  # uint8 (N, C, H, W), memory-mapped; C = 3, or 1 for grey
    labels: np.ndarray  # int64 (N,)
    classes: tuple[str, ...]
    spec: str  # as it was asked for
    size: int  # H = W
    fingerprint: str  # sha256 of what the images are made from
    skipped: tuple[str, ...]  # names of files that are no usable images
    file: IO[bytes]  # of the images, opened to read
    start: int  # where in it the first image lies

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The images of these rows, uint8 (n, C, H, W), each read by itself.

        Of a set that is larger than the memory the map would bring in whole neighbourhoods, which
        nobody asked for, and throw out others for them.
        """
        if not hasattr(os, "preadv"):  # Windows
            return self.images[rows]
        out = np.empty((len(rows), *self.images.shape[1:]), np.uint8)
        size = self.images[0].nbytes
        for image, row in zip(out, rows, strict=True):
            os.preadv(self.file.fileno(), [image.reshape(-1).data], self.start + int(row) * size)
        return out


@dataclass(frozen=True)
class Source:
    """What a spec names, before anything is decoded."""

    kind: str  # cars, digits, folder or torchvision
    count: int
    size: int  # the natural side of an image, pixels
    classes: tuple[str, ...]
    identity: str  # what the fingerprint is made from
    files: tuple[tuple[Path, int], ...] = ()  # of a folder
    name: str = ""  # of a torchvision set


def open_source(spec: str) -> Source:
    """Understand `cars[:N]`, `digits[:N]`, `folder:PATH`, `torchvision:NAME`; raises DataError."""
    kind, _, rest = spec.partition(":")
    if kind in ("cars", "digits"):
        most = CARS_COUNT if kind == "cars" else digits.COUNT
        number = most
        if rest:
            if not rest.isdecimal() or not 1 <= int(rest) <= (10**7 if kind == "cars" else most):
                raise DataError(f"{spec!r}: behind {kind}: stands a number of images, 1 or more.")
            number = int(rest)
        module = cars if kind == "cars" else digits
        return Source(kind, number, module.SIZE, module.CLASSES, f"{kind} {DRAWN_PIXELS[kind]}")
    if kind == "folder" and rest:
        path = Path(rest).expanduser()
        files, classes = find_images(path)
        lines = [f"{file.relative_to(path)} {_size_and_time(file)}" for file, _ in files]
        return Source(kind, len(files), 64, classes, "\n".join(lines), tuple(files))
    if kind == "torchvision" and rest:
        images = _torchvision(rest)
        classes = tuple(str(c) for c in getattr(images, "classes", ()))
        if not classes:
            labels = sorted({int(images[k][1]) for k in range(min(len(images), 2000))})
            classes = tuple(str(k) for k in range(labels[-1] + 1))
        return Source(kind, len(images), 32, classes, f"{rest} {len(images)}", name=rest)
    raise DataError(
        f"{spec!r} is no data set. Use cars, cars:N, digits, folder:PATH or torchvision:NAME."
    )


def _size_and_time(file: Path) -> str:
    try:
        stat = file.stat()
    except OSError:  # a link to nowhere, or removed just now: skipped and named when it is read
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def count(spec: str) -> int:
    """How many images a data set has. Raises DataError."""
    return open_source(spec).count


def native_size(spec: str) -> int:
    """The side in pixels that suits a data set. Raises DataError."""
    return open_source(spec).size


def fingerprint_of(spec: str, size: int, channels: int = 3) -> str:
    """That of the store, which need not be there. Raises DataError."""
    return _fingerprint(open_source(spec), size, channels)


def _fingerprint(source: Source, size: int, channels: int) -> str:
    grey = "" if channels == 3 else ", grey"
    recipe = f"store 1, size {size}{grey}, count {source.count}\n{source.identity}"
    return hashlib.sha256(recipe.encode()).hexdigest()


def load_image(spec: str, index: int, size: int | None = None) -> tuple[np.ndarray, int, str]:
    """One image without a store: uint8 (H, W, 3), its label and its class's name.

    Raises DataError for a spec or index that does not exist, ImageError for a broken file.
    """
    source = open_source(spec)
    if not 0 <= index < source.count:
        raise DataError(f"{spec} has the images 0 to {source.count - 1:,}, not {index}.")
    image, label = _read(source, index, size or source.size)
    return image, label, source.classes[label]


def build_store(
    spec: str,
    size: int,
    channels: int = 3,
    *,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """The store of a data set at size x size pixels, built where the cache has it not yet.

    `channels`: 3 for colour, 1 for grey.

    `workers` processes decode (by default one per core; 0: this process does). `progress` is
    called now and then; raising in it stops the building. Half a store is never seen: it is
    built in a folder of its own and renamed. Raises DataError.
    """
    source = open_source(spec)
    fingerprint = _fingerprint(source, size, channels)
    folder = (cache_dir or default_cache_dir()) / fingerprint[:20]
    if not (folder / "meta.json").exists():
        _build(folder, source, size, channels, workers, progress)
    meta = json.loads((folder / "meta.json").read_text())
    images = np.load(folder / "images.npy", mmap_mode="r")
    return ImageStore(
        images=images[: meta["count"]],
        labels=np.load(folder / "labels.npy")[: meta["count"]],
        classes=source.classes,
        spec=spec,
        size=size,
        fingerprint=fingerprint,
        skipped=tuple(meta["skipped"]),
        file=open(folder / "images.npy", "rb"),
        start=images.offset,
    )


def default_cache_dir() -> Path:
    """DIFFUSION_LAB_CACHE_DIR, else ~/.cache/diffusion-lab, else a temporary folder."""
    named = os.environ.get("DIFFUSION_LAB_CACHE_DIR")
    if named:
        return Path(named)
    home = Path.home() / ".cache" / "diffusion-lab"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / "diffusion-lab"
    return home if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / "diffusion-lab"


def _build(
    folder: Path,
    source: Source,
    size: int,
    channels: int,
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
        ready, skipped = 0, []
        # Written, not mapped: a disk that fills up is then an error and does not kill the process.
        with open(building / "images.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            end = file.tell() + int(np.prod(shape))
            for images, numbers, broken in _decoded(source, size, workers):
                file.write((images if channels == 3 else to_grey(images)).tobytes())
                labels[ready : ready + len(numbers)] = numbers
                ready += len(numbers)
                skipped += broken
                if progress is not None:
                    progress(ready + len(skipped), source.count)
            if not ready:
                raise DataError(f"None of the {source.count} files is an image that can be read.")
            file.flush()
            os.ftruncate(file.fileno(), end)  # where files were skipped
            os.fsync(file.fileno())
        np.save(building / "labels.npy", labels)
        (building / "meta.json").write_text(json.dumps({"count": ready, "skipped": skipped}))
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "meta.json").exists():  # else another process was first: the same
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


Chunk = tuple[np.ndarray, list[int], list[str]]


def _decoded(source: Source, size: int, workers: int | None) -> Iterator[Chunk]:
    """Chunks (images (n, 3, size, size), labels, names of broken files) in order."""
    starts = range(0, source.count, CHUNK)
    decode = functools.partial(_decode, source, size)
    workers = min(os.cpu_count() or 1 if workers is None else workers, len(starts))
    if workers <= 1 or source.kind == "torchvision":
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
    """A decoding process ends with the one that started it, however that ended, and leaves an
    interrupt from the keyboard to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(source: Source, size: int, start: int) -> Chunk:
    images, labels, broken = [], [], []
    for index in range(start, min(start + CHUNK, source.count)):
        try:
            image, label = _read(source, index, size)
        except ImageError:
            broken.append(str(source.files[index][0].name))
            continue
        images.append(image.transpose(2, 0, 1))
        labels.append(label)
    if not images:
        return np.empty((0, 3, size, size), np.uint8), labels, broken
    return np.stack(images), labels, broken


def _read(source: Source, index: int, size: int) -> tuple[np.ndarray, int]:
    """One image as uint8 (size, size, 3) and its label."""
    if source.kind == "folder":
        file, label = source.files[index]
        return to_size(open_image(file), size), label
    if source.kind == "torchvision":
        pil_image, label = _torchvision(source.name)[index]
        return to_size(pil_image.convert("RGB"), size), int(label)
    draw = cars.draw_car if source.kind == "cars" else digits.draw_digit
    image, label = draw(index)
    if size != source.size:
        image = to_size(Image.fromarray(image), size)
    return image, label


@functools.lru_cache(maxsize=1)
def _torchvision(name: str) -> Sequence:
    from diffusion_core.data.sources.torchvision_sets import open_set

    return open_set(name, default_cache_dir() / "torchvision")
