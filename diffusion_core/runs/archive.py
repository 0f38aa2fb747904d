"""A run as one file, to be taken to another machine: what `export --format archive` writes.

It is a zip file with files of the run folder under their names, and last `manifest.json`, which
lists each with its size and SHA-256. `PARTS` is all that it can hold. No process, host name or log
is in it, and a run is in it as one that no process works on. The same files give the same bytes.
`archive_import.py` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from PIL import Image
from pydantic import BeforeValidator, Field

from diffusion_core.files import check_regular, listing, os_sentence, replacing
from diffusion_core.records import MAX_BYTES, Count, Record, read_record_file
from diffusion_core.runs import history, origin, post_hoc, remarks, votes
from diffusion_core.runs.changes import read_changes, with_changes
from diffusion_core.runs.checkpoint import (
    CheckpointError,
    load_state,
    read_checkpoint,
    state_path,
    step_of,
)
from diffusion_core.runs.config_file import read_config_file
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.metrics import check_metrics, copy_metrics
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import RunState, StatusRecord, read_status
from diffusion_core.zips import CHUNK, ArchiveError, check_list

VERSION = 1
MANIFEST = "manifest.json"
MOST_FILES = 20_000
LISTED = 160  # bytes of a file in the list: name, numbers and the further ones of large files
WEIGHTS = ("best", "latest", "all", "none")
LEARNED = "timesteps"  # the folder of `sampling.learned`
CHOSEN = ("config.json", "weights/", "state/")  # the beginnings of what must not be left out

# The states that stay; a run in another one is stopped where it is imported.
LASTING = frozenset({RunState.PAUSED, RunState.STOPPED, RunState.FINISHED, RunState.FAILED})


# ---------------------------------------------------------------- what is in it


@dataclass(frozen=True)
class Part:
    """A kind of file of an archive."""

    names: re.Pattern[str]
    check: Callable[[Path], object]  # raises ValueError or OSError for a file that cannot be used
    most: int | None = None  # bytes; None: as many as the archive itself holds, not compressed


def check_settings(path: Path) -> None:
    """The settings of a run, with its changes. Raises ConfigError, ArchiveError."""
    found = read_config_file(path.parent)
    if found is None:
        raise ArchiveError("config.json is missing.")
    with_changes(found[0], read_changes(path.parent))


def check_weights(path: Path) -> None:
    """Raises CheckpointError."""
    if (step := read_checkpoint(path).step) != step_of(path):
        raise CheckpointError(f"{path.name} holds the weights of step {step:,}.")


def check_state(path: Path) -> None:
    """What a resume needs. Raises CheckpointError, ArchiveError, OSError."""
    damaged = ArchiveError(f"{path.name} is damaged or cut short.")
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":  # as versions of PyTorch before 2020 wrote it
            raise damaged
        check_list(file, MOST_FILES, LISTED, "a run")
        try:
            with zipfile.ZipFile(file) as state:
                stored = all(each.compress_type == zipfile.ZIP_STORED for each in state.infolist())
        except zipfile.BadZipFile as error:
            raise damaged from error
    if not stored:  # it could be larger in memory than here
        raise damaged
    load_state(path.parent.parent, step_of(path) or 0)


def check_png(path: Path) -> None:
    """Raises ArchiveError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()
    except Exception as error:  # Pillow raises half a dozen kinds for a damaged file
        raise ArchiveError(f"{path.name} is not a PNG that can be read.") from error


def check_json(path: Path) -> None:
    """Raises RecordError. What reads the file checks the rest, each time."""
    read_record_file(Record, path)


def read_later(path: Path) -> None:
    """Not checked here: what reads the lines skips those that it cannot use, and says so."""


STEP = r"step-(?:\d{8}|[1-9]\d{8,12})"  # one name for each step
PARTS = tuple(
    Part(re.compile(names, re.ASCII), check, most)
    for names, check, most in (
        (r"config\.json", check_settings, MAX_BYTES),
        (r"changes\.json", check_json, MAX_BYTES),  # see `check_settings`
        (r"status\.json", check_json, MAX_BYTES),
        (re.escape(history.FILE), read_later, 2**26),
        (re.escape(remarks.FILE), read_later, 2**26),
        (re.escape(votes.FILE), read_later, 2**26),
        (r"metrics\.sqlite", check_metrics, 2**32),
        (rf"quality/{STEP}-[0-9a-f]{{12}}\.json", check_json, MAX_BYTES),
        (rf"quality/{STEP}-[0-9a-f]{{12}}\.png", check_png, None),
        (rf"{LEARNED}/{STEP}-[0-9a-f]{{12}}\.json", check_json, MAX_BYTES),
        (rf"samples/{STEP}\.png", check_png, None),
        (rf"weights/{STEP}\.safetensors", check_weights, None),
        (rf"{post_hoc.FOLDER}/{STEP}\.safetensors", post_hoc.check_snapshot, None),
        (rf"state/{STEP}\.pt", check_state, None),
        (re.escape(origin.FILE), read_checkpoint, None),
    )
)


def part_of(name: str) -> Part | None:
    """What the file of this name is; None: it does not belong to an archive."""
    return next((part for part in PARTS if part.names.fullmatch(name)), None)


class Member(Record):
    """A file in the manifest."""

    name: Annotated[str, Field(max_length=80)]
    size: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _is_read_here(version: Any) -> Any:
    if isinstance(version, int) and version > VERSION:
        raise ValueError("A newer version of Diffusion Lab has written it. Update this one.")
    return version


class Manifest(Record):
    """`manifest.json`."""

    kind: Literal["diffusion-lab run"] = "diffusion-lab run"
    version: Annotated[int, Field(ge=1), BeforeValidator(_is_read_here)] = VERSION
    name: Annotated[str, Field(max_length=80)]
    files: Annotated[tuple[Member, ...], Field(max_length=MOST_FILES)]


def settled(status: StatusRecord) -> StatusRecord:
    """The status of a run that no process works on, without where one did."""
    state = status.state if status.state in LASTING else RunState.STOPPED
    return status.replace(
        state=state,
        queued_at=0.0,
        sampling_step=None,
        pid=None,
        process_started=None,
        host="",
        cards=(),
        eta_seconds=None,
        arguments=(),
    )


# ---------------------------------------------------------------- writing it


@dataclass(frozen=True)
class Plan:
    """What will be in an archive."""

    run: Run
    files: tuple[tuple[str, Path], ...]  # name there, and where it is now
    steps: tuple[int, ...]  # whose weights
    size: int  # bytes of the archive, at most


def plan_archive(run: Run, weights: str | Sequence[int] = "best", with_state: bool = False) -> Plan:
    """What `pack` will write. `weights`: one of WEIGHTS, or steps. Never the images of the data.

    `best` is the best quality that was measured in training, else the lowest validation loss, else
    the latest. `with_state`: also what a resume needs, with the weights of that step. Raises
    ArchiveError, ConfigError, CheckpointError, MetricsError.
    """
    check_settings(run.path / "config.json")
    steps = _steps(run, weights)
    states = []
    if with_state:
        step = _resumable(run)
        steps = sorted({*steps, step})
        states = [state_path(run.path, step)]
    # A run that has no checkpoint yet begins with the weights of another.
    without = {"status.json", *([origin.FILE] if run.weights() else [])}
    found = [
        run.path / "status.json",
        *(path for path in listing(run.path, "*") if path.name not in without),
        *listing(run.path / "quality", "*"),
        *listing(run.path / LEARNED, "*"),
        *listing(run.path / "samples", "*.png"),
        *(run.checkpoint(step).path for step in steps),
        *states,
        *(listing(run.path / post_hoc.FOLDER, "*") if weights == "all" else []),
    ]
    names = [(path.relative_to(run.path).as_posix(), path) for path in found]
    files = tuple((name, path) for name, path in names if part_of(name) is not None)
    if len(files) >= MOST_FILES:
        raise ArchiveError(
            f"{run.name} has {len(files):,} files; an archive has at most {MOST_FILES:,}."
        )
    return Plan(run, files, tuple(steps), 2**16 + sum(_size(path) + 500 for _, path in files))


def _steps(run: Run, weights: str | Sequence[int]) -> list[int]:
    if not isinstance(weights, str):
        return sorted({run.checkpoint(step).step for step in weights})
    usable = [checkpoint.step for checkpoint in run.checkpoints()[0]]
    if weights == "best":
        best = run.best_quality_step()
        best = run.best_step("validation_loss") if best is None else best
        return [best] if best in usable else usable[-1:]
    return {"latest": usable[-1:], "all": usable, "none": []}[weights]


def _resumable(run: Run) -> int:
    """The newest step to continue from. Raises ArchiveError."""
    for step, path in reversed(run.weights()):
        try:
            check_weights(path)
            check_state(state_path(run.path, step))
            return step
        except (CheckpointError, ArchiveError, OSError):
            continue
    raise ArchiveError(f"{run.name} has no state to continue from; leave it out.")


def _size(path: Path) -> int:
    """Bytes of a file, with what a writer of SQLite's has not put into it yet."""
    size = 0
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            size += each.stat().st_size
    return size


def export_archive(
    run: Run,
    file: Path,
    weights: str | Sequence[int] = "best",
    with_state: bool = False,
    by: str | None = None,
) -> list[str]:
    """Write a run as one file: see `plan_archive` and `write_archive`."""
    return write_archive(plan_archive(run, weights, with_state), file, by)


def write_archive(plan: Plan, file: Path, by: str | None = None) -> list[str]:
    """Write an archive, also of a run that trains; it appears whole or not at all.

    Returns a sentence for each file that is left out since it cannot be used. `by`: who does it,
    for the run's history. Raises ArchiveError, DiskFull, OSError.
    """
    left_out: list[str] = []
    with replacing(file) as written:
        for chunk in pack(plan, left_out):
            written.write(chunk)
    record(plan.run.path, Event.EXPORTED, by, format="archive")
    return left_out


def pack(plan: Plan, left_out: list[str]) -> Iterator[bytes]:
    """The bytes of an archive, in parts of about a megabyte.

    `left_out` gets a sentence for each file that cannot be used. Raises ArchiveError for one that
    was chosen and has been removed meanwhile, OSError.
    """
    out = _Outgoing()
    members = []
    with zipfile.ZipFile(out, "w") as archive, ExitStack() as opened:
        for name, path in plan.files:
            try:
                file = opened.enter_context(_open(name, path))
            except (ValueError, OSError) as error:
                why = os_sentence(error) if isinstance(error, OSError) else str(error)
                if name.startswith(CHOSEN):
                    raise ArchiveError(f"{plan.run.name} has changed meanwhile: {why}") from error
                left_out.append(why)
                continue
            size, digest = 0, hashlib.sha256()
            entry = _entry(name, file.seek(0, io.SEEK_END))
            file.seek(0)
            with archive.open(entry, "w") as packed:
                while chunk := file.read(CHUNK):
                    packed.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    yield out.take()
            opened.close()
            members.append(Member(name=name, size=size, sha256=digest.hexdigest()))
        manifest = Manifest(name=plan.run.name, files=tuple(members)).model_dump_json().encode()
        archive.writestr(_entry(MANIFEST, len(manifest)), manifest)
    yield out.take()


@contextmanager
def _open(name: str, path: Path) -> Iterator[IO[bytes]]:
    """A file as it goes into an archive. Raises ValueError, OSError where it cannot be used."""
    if name == "status.json":
        yield io.BytesIO(json.dumps(settled(read_status(path.parent)).to_dict(), indent=2).encode())
        return
    with tempfile.TemporaryDirectory() as folder:
        if name == "metrics.sqlite":
            copy_metrics(path, path := Path(folder) / name)
        check_regular(path)
        part = part_of(name)
        assert part is not None
        part.check(path)
        with open(path, "rb") as file:
            yield file


def _entry(name: str, size: int) -> zipfile.ZipInfo:
    """Without time and owner. Images and weights are not compressed: they cannot be made smaller,
    and what is not cannot become larger than it says."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    part = part_of(name)
    entry.compress_type = (
        zipfile.ZIP_STORED if part is not None and part.most is None else zipfile.ZIP_DEFLATED
    )
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.file_size = size
    return entry


class _Outgoing(io.RawIOBase):
    """A file to write to, from which the bytes are taken as they come."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.waiting += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken
