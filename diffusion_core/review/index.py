"""All runs of a folder with their settings and results, read again only where files changed.

`.index.sqlite` beside the runs remembers them between processes. It is never the truth: it is made
again where it is missing, damaged or of another version, and done without where it cannot be read
or written. Several processes may use it at once; a row counts only while the files of its run are
those that it was read from.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from diffusion_core.disks import on_network_disk
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.metrics import METRICS
from diffusion_core.evaluation.results import FOLDER as QUALITY
from diffusion_core.evaluation.results import Result, read_results
from diffusion_core.files import check_regular
from diffusion_core.records import Record, RecordError, read_record
from diffusion_core.runs import history, remarks
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.cost import cost_of
from diffusion_core.runs.metrics import MetricsError
from diffusion_core.runs.presets import args_for_images, network_settings, schedule_settings
from diffusion_core.runs.run import Run, RunSnapshot, run_folders
from diffusion_core.runs.status import ACTIVE, StatusRecord, state_now

_log = logging.getLogger(__name__)

FILE = ".index.sqlite"
APPLICATION = 0x4C616249  # of the file, in its header
# What a row holds; another number makes all rows again.
LAYOUT = zlib.crc32(repr((3, *RunConfig.model_fields, *METRICS)).encode()) & 0x7FFFFFFF
PATIENCE = 0.25  # seconds to wait for another process; without the file it costs more
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
MOST = 10**19  # of a number

# Whose change is noticed: all that a row is read from.
SOURCES = (
    "config.json",
    "status.json",
    "changes.json",
    history.FILE,
    remarks.FILE,
    "metrics.sqlite",
    "metrics.sqlite-wal",
    QUALITY,  # its files are only ever replaced, which changes the folder
)

Number = Annotated[int | float, Field(ge=-MOST, le=MOST)]
Value = bool | Number | str


class Measured(Record):
    """The quality of a run: its newest result of the last step that has one."""

    step: int
    way: str  # see `Result.way`
    images: int  # that were generated
    content: str  # of the data, which is the same wherever it lies
    estimates: dict[str, Estimate]  # by the names of METRICS, without infinite intervals

    def is_like(self, other: Measured) -> bool:
        """Whether both were measured in the same way, so that their values can be compared."""
        return (self.way, self.images, self.content) == (other.way, other.images, other.content)


class Row(Record):
    """A run: its settings as `--set` names them, and its results, see `query.RESULTS`.

    What a run does not have is missing from `values`.
    """

    values: dict[str, Value]
    measured: Measured | None = None
    # What was changed on the way to the settings in `values`, oldest first: step, name, value.
    changes: tuple[tuple[int, str, Number], ...] = ()
    problem: str = ""  # why its records or curves cannot be used, as a sentence
    active: StatusRecord | None = None  # of a run at work or queued when it was read


class _Known(NamedTuple):
    signature: str
    row: Row


class Index:
    """The index of the runs in a folder. One serves all threads of a process."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.file = runs_dir / FILE
        self._lock = threading.Lock()
        self._known: dict[str, _Known] | None = None  # by the names of the folders
        self._unsaved: set[str] = set()
        self._reason = ""

    def rows(self) -> list[Row]:
        """All runs as they are now, newest first. Never raises."""
        with self._lock:
            if self._known is None:
                self._known = self._load()
            known = self._known
            runs = {run.name: run for run in run_folders(self.runs_dir)}
            changed = known.keys() - runs.keys()
            for name in changed:
                del known[name]
            for name, run in runs.items():
                signature = _signature(run.path)  # before the files are read
                before = known.get(name)
                # A problem may go away without a change: another program had the file open.
                if before is None or before.signature != signature or before.row.problem:
                    known[name] = _Known(signature, read_row(run))
                    changed.add(name)
            self._unsaved |= changed
            self._save()
            rows = [_now(name, each.row) for name, each in known.items()]
        return sorted(rows, key=_age, reverse=True)

    def _load(self) -> dict[str, _Known]:
        if on_network_disk(self.runs_dir):  # locks may be missing there, or never answer
            return {}
        try:
            check_regular(self.file)
            with closing(_connect(self.file, "ro")) as connection:
                if _layout(connection) != (APPLICATION, LAYOUT):
                    return {}
                found = connection.execute("SELECT name, signature, row FROM runs").fetchall()
        except FileNotFoundError:
            return {}
        except (OSError, sqlite3.Error) as error:
            self._say(error)
            return {}
        known = {}
        for name, signature, text in found:
            try:
                known[os.fsdecode(name)] = _Known(signature, read_record(Row, text, FILE))
            except (RecordError, TypeError) as error:  # another program's row; it is read again
                self._say(error)
        return known

    def _save(self) -> None:
        """Write what has changed; where that fails it waits for the next time."""
        if not self._unsaved or on_network_disk(self.runs_dir):
            return
        assert self._known is not None
        changes = {name: self._known.get(name) for name in self._unsaved}
        try:
            if os.path.lexists(self.file):
                check_regular(self.file)
            try:
                _write(self.file, changes)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGE:
                    raise
                # First the journal, which must not be applied to another file.
                Path(f"{self.file}-journal").unlink(missing_ok=True)
                self.file.unlink(missing_ok=True)
                _write(self.file, self._known)
        except (OSError, sqlite3.Error) as error:
            self._say(error)
        else:
            self._unsaved.clear()

    def _say(self, error: Exception) -> None:
        """Log why the file is not used, once for each reason."""
        if (reason := str(error)) != self._reason:
            self._reason = reason
            _log.info("index not used", extra={"file": str(self.file), "reason": reason})


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)


def _layout(connection: sqlite3.Connection) -> tuple[int, int]:
    [(application,)] = connection.execute("PRAGMA application_id")
    [(layout,)] = connection.execute("PRAGMA user_version")
    return application, layout


def _write(file: Path, changes: Mapping[str, _Known | None]) -> None:
    """Replace the rows of these runs in one transaction; None removes one. Raises sqlite3.Error.

    What a loss of power leaves is no worse than stale: each row has its signature.
    """
    with closing(_connect(file, "rwc")) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")  # closing without a commit undoes it
        application, layout = _layout(connection)
        [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_schema")
        if tables and application != APPLICATION:
            raise sqlite3.NotSupportedError("it belongs to another program")
        if layout != LAYOUT:
            connection.execute("DROP TABLE IF EXISTS runs")
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={LAYOUT}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS runs "
            "(name BLOB PRIMARY KEY, signature TEXT NOT NULL, row TEXT NOT NULL) WITHOUT ROWID"
        )
        keys = {name: os.fsencode(name) for name in changes}  # a name need not be Unicode
        connection.executemany(
            "DELETE FROM runs WHERE name = ?", [(keys[name],) for name in changes]
        )
        connection.executemany(
            "INSERT INTO runs VALUES (?, ?, ?)",
            [
                (keys[name], known.signature, known.row.model_dump_json(exclude_defaults=True))
                for name, known in changes.items()
                if known is not None
            ],
        )
        connection.execute("COMMIT")


def _signature(run: Path) -> str:
    """What differs when a file of the run has changed."""
    found = []
    for name in SOURCES:
        try:
            stat = os.stat(run / name)
        except OSError as error:
            found.append(errno.errorcode.get(error.errno or 0, "?"))
        else:
            # A change of permissions, after which a file can be read, shows in the ctime alone.
            found.append(
                f"{stat.st_ino:x}.{stat.st_size:x}.{stat.st_mtime_ns:x}.{stat.st_ctime_ns:x}"
            )
    return " ".join(found)


def read_row(run: Run) -> Row:
    """The row of a run, from its files. Never raises."""
    seen = run.snapshot()
    status = seen.status
    values: dict[str, Any] = _results(seen)
    problem = seen.problem
    if seen.config is not None:
        values |= settings_of(seen.config)
        values["images"] = status.step * seen.config.batch_size
    try:
        cost = cost_of(seen)
        curve = run.curve("validation_loss", max_points=10**9)
    except MetricsError as error:
        problem = problem or str(error)
    else:
        values["hours"] = cost.seconds and cost.seconds / 3600
        values["energy_kwh"] = cost.joules and cost.joules / 3.6e6
        if len(losses := curve["value"]):
            best = losses.argmin()
            values["validation_loss"] = float(losses[-1])
            values["best_validation_loss"] = float(losses[best])
            values["best_step"] = int(curve["step"][best])
    results, _ = read_results(run.path)
    newest = max(results, key=lambda result: (result.spec.step, result.written), default=None)
    for name, estimate in newest.metrics.items() if newest else ():
        values[f"{QUALITY}.{name}"] = estimate.value
    told = history.read_history(run.path)
    begun = (history.Event.CREATED, history.Event.STARTED)
    if told.entries and told.entries[0].event in begun and not told.shortened:
        values["creator"] = told.entries[0].by
    said = remarks.read_remarks(run.path)
    values |= {"tags": ", ".join(said.tags()), "stars": said.stars(), "decision": said.decision()}
    return Row.model_construct(
        values={name: value for name, value in values.items() if _can_be_used(value)},
        measured=newest and measured(newest),
        changes=tuple(
            (change.step, name, value)
            for change in seen.changes
            for name, value in change.settings.items()
            if _can_be_used(value)
        ),
        problem=problem,
        active=status.replace(found=None) if status.state in ACTIVE else None,
    )


def measured(result: Result) -> Measured:
    return Measured.model_construct(
        step=result.spec.step,
        way=result.way(),
        images=result.spec.n,
        content=result.content or result.fingerprint,
        estimates={
            name: estimate
            for name, estimate in result.metrics.items()
            if all(map(_can_be_used, (estimate.value, estimate.low, estimate.high)))
        },
    )


def _can_be_used(value: Any) -> bool:
    """Whether there is a value, and a finite one: whoever can write a file can write infinity."""
    return value is not None and value != "" and (isinstance(value, str) or abs(value) <= MOST)


def _results(seen: RunSnapshot) -> dict[str, Any]:
    status, details = seen.status, seen.details
    return {
        "state": str(seen.state),
        "step": status.step,
        "steps": status.total,  # where the settings cannot be read
        "latest_loss": status.loss,
        "images_per_second": status.images_per_second,
        "created": status.created or None,
        "updated": status.heartbeat or None,
        "device": (details and details.device) or status.device,
        "parameters": (details and details.parameters) or None,
    }


def settings_of(config: RunConfig) -> dict[str, Value]:
    """The settings as one flat record, with dots where `--set` has them, and all defaults."""
    values = config.model_dump()
    values["schedule"] = schedule_settings(config)
    values["network_args"] = network_settings(config.network, args_for_images(config))
    flat: dict[str, Value] = {}
    for name, value in values.items():
        entries = value.items() if isinstance(value, dict) else ()
        flat |= {f"{name}.{key}": _plain(entry) for key, entry in entries}
        if not isinstance(value, dict):
            flat[name] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _now(name: str, row: Row) -> Row:
    """The row with the folder's name and the state that is true now."""
    state = {"state": str(state_now(row.active))} if row.active is not None else {}
    return row.model_copy(update={"values": row.values | state | {"name": name}})


def _age(row: Row) -> tuple[float, str]:
    created = row.values.get("created", 0.0)
    return (created if isinstance(created, (int, float)) else 0.0), str(row.values["name"])
