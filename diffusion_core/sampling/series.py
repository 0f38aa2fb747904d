"""Many images of one request as files, in a folder that can be stopped and resumed at any time.

```
order.json     the request, the time of the checkpoint's file, how many images at once
status.json    as a run's: state, step (images), total, pid, heartbeat, error; request.json: stop
pictures/      000000.png ..., each complete or absent, with the settings that made it
```

States are those of a run: queued, running, stopped, finished, failed, and lost where the process
is gone.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import filelock
import numpy as np
import psutil
import torch
from PIL import Image
from pydantic import Field

from diffusion_core.device import halving
from diffusion_core.files import (
    building_folder,
    check_regular,
    is_disk_full,
    listing,
    naming_full_disk,
    os_sentence,
    remove_leftovers,
    replacing,
    write_json,
)
from diffusion_core.media.images import png, to_pil, to_uint8
from diffusion_core.records import Record, RecordError, read_record_file
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel
from diffusion_core.runs.status import (
    ACTIVE,
    RunState,
    StatusRecord,
    read_status,
    state_now,
    write_status,
)
from diffusion_core.runs.status_writer import StatusWriter
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.sample import Cancelled, StepView
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

FOLDER = "drawings"  # of a run
GRID_PIXELS = 2**24  # 4,096 images of 64 x 64; the grid of more is scaled down
POLL_SECONDS = 0.5  # between checks for a request to stop

OnStep = Callable[[StepView], None]


class SeriesError(ValueError):
    """A series that cannot be created, used or resumed; the message says why."""


class SeriesRecord(Record):
    """`order.json`."""

    order: SamplingSpec
    checkpoint_time: float  # seconds since 1970, of the checkpoint's file
    guide_time: float = 0.0  # likewise of the guide's; 0 without one
    batch: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1  # images at once
    expires: Annotated[float, Field(ge=0)] | None = None  # seconds since 1970, then it is deleted

    def to_dict(self) -> dict[str, Any]:
        values = self.model_dump() | {"order": self.order.to_dict()}
        if not self.guide_time:
            del values["guide_time"]
        return values


@dataclass(frozen=True)
class Series:
    """A folder of images of one request. Every property reads the disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> SeriesRecord:
        """`order.json`. Raises SeriesError where it is missing or damaged."""
        try:
            record = read_record_file(SeriesRecord, self.path / "order.json")
        except RecordError as error:
            raise SeriesError(f"{self.name} cannot be used; delete it. {error}") from error
        if record is None:
            raise SeriesError(f"{self.name} has no order.json; delete it.")
        if problems := record.order.without_unused().problems():
            raise SeriesError(f"{self.name} cannot be used; delete it. {problems[0]}")
        return record

    @property
    def spec(self) -> SamplingSpec:
        """Raises SeriesError."""
        return self.record.order

    @property
    def created(self) -> float:
        """Seconds since 1970."""
        return self.status.created

    @property
    def status(self) -> StatusRecord:
        """See `Run.status`; `seconds` is the time spent sampling."""
        return read_status(self.path)

    @property
    def state(self) -> RunState:
        """The state as it is now; `lost` without a status."""
        return state_now(self.status)

    @property
    def expires(self) -> float | None:
        """Seconds since 1970, after which it is deleted; None where it stays or is unreadable."""
        try:
            return self.record.expires
        except SeriesError:
            return None

    def image(self, k: int) -> Path:
        """The file of image k, from 0; it may not exist yet."""
        return self.path / "pictures" / f"{k:06d}.png"

    def numbers(self) -> list[int]:
        """The numbers of the images that exist, from 0."""
        try:
            n = self.spec.n
        except SeriesError:
            n = MOST_IMAGES
        found = {path.name for path in listing(self.path / "pictures", "[0-9]*.png")}
        return [k for k in range(n) if self.image(k).name in found]


def list_series(run: Path) -> list[Series]:
    """Those of a run folder, the newest first."""
    found = [Series(path) for path in listing(run / FOLDER, "[!.]*") if os.path.isdir(path)]
    return sorted(found, key=lambda series: (series.created, series.name), reverse=True)


def batch_for(spec: SamplingSpec, image_size: int, device: torch.device) -> int:
    """How many images to sample at once: enough to keep the device busy, few enough that others get
    their turn within about ten seconds. `generate` halves it where memory is short."""
    room = 64**2 / image_size**2
    if device.type == "cpu":
        return max(1, min(round(16 * room), max(4, 800 // spec.steps)))
    return max(1, min(round(256 * room), max(16, 12_800 // spec.steps)))


def create(
    path: Path,
    spec: SamplingSpec,
    checkpoint: Checkpoint,
    batch: int,
    expires: float | None = None,
) -> Series:
    """A new folder at `path`, queued for this process to `generate`.

    `expires`: seconds since 1970, after which it may be deleted.

    Raises SeriesError, CheckpointError for a missing guide, OSError.
    """
    try:
        with naming_full_disk(path):
            path.parent.mkdir(exist_ok=True)
        with building_folder(path) as folder:
            record = SeriesRecord(
                order=spec,
                checkpoint_time=checkpoint.time,
                guide_time=spec.guide_time(checkpoint),
                batch=batch,
                expires=expires,
            )
            write_json(folder / "order.json", record.to_dict())
            write_status(folder, StatusRecord(created=time.time(), **_queued(spec)))
            (folder / "pictures").mkdir()
    except FileNotFoundError as error:
        raise SeriesError(f"The folder {path.parent.parent} no longer exists.") from error
    except OSError as error:
        if path.exists() and not is_disk_full(error):
            raise SeriesError(f"{path.name} already exists; choose another name.") from error
        raise
    return Series(path)


def line_up(series: Series, checkpoint: Checkpoint) -> None:
    """Queue the rest of a series for this process to `generate`.

    Raises SeriesError, CheckpointError for a missing guide, OSError.
    """
    state = series.state
    if state in ACTIVE:
        raise SeriesError(f"{series.name} is already being generated.")
    record = series.record
    if record.checkpoint_time != checkpoint.time:
        raise SeriesError(
            f"The checkpoint of step {record.order.step:,} was overwritten since {series.name} was "
            f"started, so its images would not match; start another series."
        )
    if record.guide_time != record.order.guide_time(checkpoint):
        raise SeriesError(
            f"The guide was overwritten since {series.name} was started, so its images would not "
            "match; start another series."
        )
    (series.path / "request.json").unlink(missing_ok=True)  # of an earlier attempt
    write_status(series.path, series.status.replace(**_queued(record.order)))


def cancel(series: Series) -> None:
    """Ask the process that generates it to stop; one that this process only queued is stopped."""
    status = series.status
    if status.state == RunState.QUEUED and status.pid == os.getpid():
        write_status(series.path, status.replace(state=RunState.STOPPED))
    elif state_now(status) in ACTIVE:
        write_json(series.path / "request.json", {"action": "stop", "time": time.time()})


def remove(series: Series) -> None:
    """Delete a series. Raises SeriesError."""
    if (state := series.state) in ACTIVE:
        raise SeriesError(f"{series.name} is {state}; cancel it first.")
    try:
        with _alone(series):
            shutil.rmtree(series.path)
    except OSError as error:
        raise SeriesError(f"{series.name} cannot be deleted: {os_sentence(error)}") from error


def generate(
    series: Series,
    load: Callable[[], LoadedModel],
    device: str,
    on_step: OnStep | None = None,
    load_guide: Callable[[], LoadedModel | None] = lambda: None,
) -> Generator[int, None, Series]:
    """Generate missing and truncated images; yields the number of images after each batch.

    `load` gives the network, again for each batch, so that its owner may release it in between;
    `load_guide` likewise the one that guides it, where the request has one. A
    batch always covers the same numbers and is generated whole: a network in half precision rounds
    differently in a batch of another size, and the images must not depend on interruptions.
    Raises Cancelled after a request to stop, and where `on_step` does; SeriesError where another
    process generates it or its folder is gone; DiskFull.
    """
    with _alone(series):
        spec, before = series.spec, series.status.seconds
        status = StatusWriter(series.path, device=device, total=spec.n)
        remove_leftovers(series.path, but="request.json")
        with status:
            clock = _Clock(before)
            try:
                yield from _batches(series, spec, load, status, clock, on_step, load_guide)
            except (Cancelled, GeneratorExit, KeyboardInterrupt):
                status.update(state="stopped", seconds=clock.seconds)
                raise
            except BaseException as error:
                told = os_sentence(error) if isinstance(error, OSError) else str(error)
                told = told or type(error).__name__
                status.update(state="failed", error=told, seconds=clock.seconds)
                raise
            status.update(state="finished", seconds=clock.seconds)
    return series


def _batches(
    series: Series,
    spec: SamplingSpec,
    load: Callable[[], LoadedModel],
    status: StatusWriter,
    clock: _Clock,
    on_step: OnStep | None,
    load_guide: Callable[[], LoadedModel | None],
) -> Iterator[int]:
    looked = time.monotonic()

    def look(view: StepView) -> None:
        nonlocal looked
        if status.signalled or time.monotonic() - looked > POLL_SECONDS:
            looked = time.monotonic()
            if status.poll() == "stop":
                raise Cancelled("Cancelled.")
        if on_step is not None:
            on_step(view)

    def attempt(k: int, batch: int) -> tuple[int, np.ndarray]:
        """The batch that image k is in: the number of its first image, and its images."""
        first = k // batch * batch
        count = min(batch, spec.n - first)
        return first, to_uint8(spec.make(load(), look, first, count, load_guide()))

    record = series.record
    batch = record.batch
    missing = [k for k in range(spec.n) if read_image(series.image(k)) is None]
    status.update(state="running", step=spec.n - len(missing))
    while missing:
        with clock:
            (first, images), fitted = halving(functools.partial(attempt, missing[0]), batch)
            if fitted != batch:
                batch = fitted
                write_json(series.path / "order.json", record.to_dict() | {"batch": batch})
            for k in missing:
                if k < first + len(images):
                    _write(series, k, png(images[k - first], text=entries(spec, k)))
        missing = [k for k in missing if k >= first + len(images)]
        done = spec.n - len(missing)
        status.update(step=done, seconds=clock.seconds)
        yield done


def _write(series: Series, k: int, data: bytes) -> None:
    try:
        with replacing(series.image(k)) as file:
            file.write(data)
    except FileNotFoundError as error:
        raise SeriesError(f"The folder of {series.name} no longer exists.") from error


class _Clock:
    """Seconds spent inside, including those of earlier processes."""

    def __init__(self, before: float) -> None:
        self.seconds = before

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self.began


@contextmanager
def _alone(series: Series) -> Iterator[None]:
    """Lock the series for this generator. The operating system releases the lock when the process
    ends. Raises SeriesError."""
    if not series.path.is_dir():  # the lock would create it again
        raise SeriesError(f"The folder of {series.name} no longer exists.")
    # Not per thread: a generator may be closed by another thread than the one that started it.
    lock = filelock.FileLock(series.path / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise SeriesError(f"Another process is generating {series.name}.") from error
    try:
        yield
    finally:
        lock.release()


def _queued(spec: SamplingSpec) -> dict[str, Any]:
    """The status of a series that this process is about to generate."""
    return {
        "state": "queued",
        "total": spec.n,
        "error": None,
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "heartbeat": time.time(),
    }


def read_image(path: Path) -> np.ndarray | None:
    """uint8 (H, W, 3) or (H, W, 1); None where the file is missing, truncated or no PNG."""
    try:
        check_regular(path)
        with Image.open(path, formats=["PNG"]) as image:
            pixels = np.asarray(image if image.mode in ("RGB", "L") else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return pixels[..., None] if pixels.ndim == 2 else pixels


# ---------------------------------------------------------------- all images in one file


def write_zip(series: Series, file: IO[bytes]) -> int:
    """Write the images that exist, and the settings as `settings.json`; returns their number.

    PNG is already compressed, so the files are stored as they are, one at a time.
    """
    numbers = series.numbers()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("settings.json", json.dumps(series.record.to_dict(), indent=2))
        for k in numbers:
            archive.write(series.image(k), f"{series.name}/{k:06d}.png")
    return len(numbers)


def grid_of(series: Series, pixels: int = GRID_PIXELS) -> np.ndarray:
    """All images in rows, uint8 (H, W, 3 or 1); those that do not exist are black.

    Each image is scaled down where the grid would have more than `pixels` pixels. Raises
    SeriesError where there is none.
    """
    spec, numbers = series.spec, series.numbers()
    first = next((p for k in numbers if (p := read_image(series.image(k))) is not None), None)
    if first is None:
        raise SeriesError(f"{series.name} has no images yet.")
    n = max(numbers) + 1
    across = spec.columns(n)
    down = -(-n // across)
    size, channels = first.shape[0], first.shape[2]
    side = min(size, max(1, int((pixels / (across * down)) ** 0.5)))
    whole = np.zeros((down * side, across * side, channels), np.uint8)
    for k in numbers:
        image = read_image(series.image(k))
        if image is None or image.shape != first.shape:
            continue
        if side < size:
            small = np.asarray(to_pil(image).resize((side, side), Image.Resampling.BOX))
            image = small.reshape(side, side, channels)
        y, x = k // across * side, k % across * side
        whole[y : y + side, x : x + side] = image
    return whole
