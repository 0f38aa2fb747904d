"""A run's numbers over its steps: `metrics.sqlite`, one writer, many read-only readers.

One table, scalars(step, name, value, wall_time). Long series are thinned in SQL before they
reach anybody.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffusion_core.disks import on_network_disk
from diffusion_core.files import check_regular, complain

# Losses are logged per tenth of the schedule: loss_t0 (least noise) ... loss_t9.
TIMESTEP_BINS = 10
BIN_NAMES = tuple(f"loss_t{i}" for i in range(TIMESTEP_BINS))
TABLE = (
    "CREATE TABLE scalars (step INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, "
    "wall_time REAL NOT NULL, PRIMARY KEY (name, step)) WITHOUT ROWID"
)

# Time between two logged steps without a pause: strips, checkpoints, validation.
ORDINARY_GAP_SECONDS = 60.0
ORDINARY_GAP_STEPS = 20
# What is measured beside the training, by the names of `evaluation.metrics`. The ends of the 95 %
# interval are the curves with LOW and HIGH behind the name.
QUALITY = {
    "frechet": "evaluation.frechet_distance",
    "frechet_general": "evaluation.frechet_general",
    "sliced_general": "evaluation.sliced_general",
    "sliced_wasserstein": "evaluation.sliced_wasserstein",
    "copies": "evaluation.copies",
}
# What steps are compared by: the first that was measured of all of them. Lower is better. (The
# Fréchet distance in the features of a classifier is first, as it was the only one.)
COMPARED_BY = ("frechet", "frechet_general", "sliced_wasserstein")
LOW, HIGH = ".low", ".high"
EXPECTED = ".expected"  # of near copies: the most that is likely where nothing is memorised
# How much higher the validation loss of the averaged weights is than that of the raw ones, as a
# share of that. Only the lower end of the interval is kept beside it.
BEHIND = "average_behind"

Row = tuple[int, str, float, float]  # step, name, value, wall time in seconds since 1970
Kind = TypeVar("Kind")


# Errors of SQLite with which another file would fail too.
NO_DAMAGE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
)
# What a row of the table never is.
ODD_ROW = (
    "typeof(step) != 'integer' OR typeof(name) != 'text' OR "
    "typeof(value) NOT IN ('real', 'integer') OR typeof(wall_time) NOT IN ('real', 'integer')"
)
# Whether a file has such a row, one with values out of all bounds, or more curves than any run.
MOST_CURVES = 1000
FOREIGN_ROW = (
    f"SELECT EXISTS (SELECT 1 FROM scalars WHERE {ODD_ROW} OR step NOT BETWEEN 0 AND 1e12 OR "
    "abs(value) > 1e308 OR wall_time NOT BETWEEN 0 AND 1e11 OR length(name) > 80 "
    f"OR length(CAST(name AS BLOB)) > 320) "
    f"OR (SELECT count(DISTINCT name) FROM scalars) > {MOST_CURVES}"
)
# What SQLite's errors are when they say nothing about the file itself.
REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program is using it",
    sqlite3.SQLITE_LOCKED: "another program is using it",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "its permissions forbid it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}


class MetricsError(ValueError):
    """A metrics file that cannot be read; the message says why."""


class MetricsWriter:
    """The one writer. WAL while the run is alive, so that readers never wait; one plain file
    at the end, so that the folder can be copied or mounted read-only."""

    def __init__(
        self, path: Path, *, keep_up_to_step: int = 0, say: Callable[[str], None] = complain
    ) -> None:
        """Opens or makes the file and drops rows behind `keep_up_to_step`: a resumed run
        writes those steps again.

        A damaged file is set aside and another begun; `say` gets the sentence. Raises OSError
        where that is not possible.
        """
        self.path = path
        self.say = say
        self.waiting: list[Row] = []
        self.complained = False
        empty = not path.exists() or (path.is_file() and path.stat().st_size == 0)
        if keep_up_to_step and empty:
            say(f"{path.name} is missing or empty; the curves start again.")
        try:
            self.connection = _open_to_write(path)
        except (sqlite3.DatabaseError, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in NO_DAMAGE:
                raise
            self._begin_another()
        self.connection.execute("DELETE FROM scalars WHERE step > ?", (keep_up_to_step,))
        self.connection.commit()

    def _begin_another(self) -> None:
        aside = _set_aside(self.path)
        self.connection = _open_to_write(self.path)
        self.say(
            f"{self.path.name} is damaged or cannot be written. It is renamed to {aside}, and the "
            "curves start again."
        )

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows for the next commit; values that are not finite are left out."""
        self.waiting += [row for row in rows if np.isfinite(row[2])]

    def commit(self) -> None:
        """Write what waits, in one transaction. A full disk keeps it waiting for the next call."""
        if not self.waiting:
            return
        try:
            self._insert()
        except sqlite3.OperationalError as error:
            if not self.complained:
                why = _reason(error) or "it is damaged"
                complain(f"metrics.sqlite cannot be written: {why}. Its rows wait.")
            self.complained = True
            return
        except sqlite3.DatabaseError:  # another program has damaged the file during the training
            self.connection.close()
            self._begin_another()
            self._insert()
        self.waiting = []
        self.complained = False

    def _insert(self) -> None:
        with self.connection:
            sql = "INSERT OR REPLACE INTO scalars VALUES (?, ?, ?, ?)"
            self.connection.executemany(sql, self.waiting)

    def close(self) -> None:
        self.commit()
        try:
            self.connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError:
            # A reader is looking at this moment, or the disk is full: WAL stays, and is valid.
            complain("metrics.sqlite stays in WAL mode.")
        self.connection.close()


def _open_to_write(path: Path) -> sqlite3.Connection:
    """With WAL where the disk can do that; else readers and the writer may wait for each other.

    WAL takes memory that all who have the file open share. On a network disk those of other
    machines do not, read what is old or take the file for damaged, and SQLite does not notice.
    Raises sqlite3.DatabaseError or OSError, also for a file that is damaged.
    """
    with suppress(FileNotFoundError):
        check_regular(path)
    if on_network_disk(path.parent):
        return _opened(path, wal=False)
    try:
        return _opened(path, wal=True)
    except sqlite3.OperationalError as error:
        if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR_SHM"):
            raise
        return _opened(path, wal=False)


def _opened(path: Path, wal: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30)
    try:
        if not wal:  # a file that has WAL is opened alone once, which needs no shared memory
            for setting in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "locking_mode=NORMAL"):
                connection.execute(f"PRAGMA {setting}")
        connection.execute(TABLE.replace("TABLE", "TABLE IF NOT EXISTS", 1))
        [(said,)] = connection.execute("PRAGMA quick_check(1)")
        [(odd,)] = connection.execute(f"SELECT EXISTS (SELECT 1 FROM scalars WHERE {ODD_ROW})")
        if said != "ok" or odd:
            raise sqlite3.DatabaseError("rows that cannot be used")
        if wal:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            # Where there is no shared memory it is this that fails, not the setting.
            connection.execute("SELECT count(*) FROM sqlite_schema")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path) -> str:
    """Rename a file of metrics and SQLite's own beside it; returns its new name."""
    name = stem = f"metrics-damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while (place := path.with_name(f"{name}.sqlite")).exists():
        number += 1
        name = f"{stem}-{number}"
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{end}", f"{place}{end}")
    return place.name


def read_curve(path: Path, name: str, max_points: int = 2000) -> dict[str, np.ndarray]:
    """One curve as arrays `step` (int64), `value` and `wall_time` (float64), in order of steps.

    A longer curve is cut into max_points / 2 stretches of equal length, of each of which the
    smallest and the largest value stay. Empty arrays where there is nothing.
    """
    extent = "SELECT count(*), min(step), max(step) FROM scalars WHERE name = ?"
    [(count, low, high)] = _query(path, extent, name) or [(0, None, None)]
    if count <= max_points:
        rows = _query(
            path, "SELECT step, value, wall_time FROM scalars WHERE name = ? ORDER BY step", name
        )
    else:
        # SQLite takes the other columns of a min() or max() from the row that has it.
        stretch = f"(step - {low}) * {max_points // 2} / {high - low + 1}"
        half = "SELECT step, {}(value), wall_time FROM scalars WHERE name = ?1 GROUP BY " + stretch
        rows = _query(path, f"{half.format('min')} UNION {half.format('max')} ORDER BY step", name)
    table = np.array(_numbers(path, rows), dtype=np.float64).reshape(-1, 3)
    return {"step": table[:, 0].astype(np.int64), "value": table[:, 1], "wall_time": table[:, 2]}


def training_seconds(wall_time: np.ndarray) -> np.ndarray:
    """Seconds of training up to each of a curve's points, from 0 at the first; both (n,).

    A gap of over a minute and over 20 times the median is a pause, or the time between two
    starts: it counts as a median gap. So does a clock that was set back.
    """
    gaps = np.diff(wall_time)
    if not len(gaps):
        return np.zeros(len(wall_time))
    forward = gaps[gaps >= 0]
    usual = float(np.median(forward)) if len(forward) else 0.0
    longest = max(ORDINARY_GAP_SECONDS, ORDINARY_GAP_STEPS * usual)
    gaps = np.where((gaps < 0) | (gaps > longest), usual, gaps)
    return np.concatenate([[0.0], np.cumsum(gaps)])


def read_last(path: Path) -> dict[str, tuple[int, float]]:
    """The newest (step, value) of every curve, by name; empty where there is no file yet."""
    rows = _query(path, "SELECT name, max(step), value FROM scalars GROUP BY name")
    return {name: (step, value) for name, step, value in _numbers(path, rows, 1)}


def read_all(path: Path) -> list[Row]:
    """Every row of every curve, not thinned, in order of steps; for exports, not for pages."""
    rows = _query(path, "SELECT step, name, value, wall_time FROM scalars ORDER BY step, name")
    _numbers(path, [row[2:] for row in rows])
    return rows


def _numbers(path: Path, rows: list[tuple], first: int = 0) -> list[tuple]:
    """The rows, which are numbers from column `first` on. Raises MetricsError."""
    if all(isinstance(value, (int, float)) for row in rows for value in row[first:]):
        return rows
    raise MetricsError(f"{path.name} is damaged: it has values that are no numbers.")


def copy_metrics(path: Path, copy: Path) -> None:
    """Write all of a file of metrics as it is at one moment into a new file, also in training.

    The copy is empty where there is no file. Raises MetricsError, sqlite3.OperationalError where
    the copy cannot be written.
    """
    with closing(sqlite3.connect(copy)) as written:
        _read(path, lambda connection: connection.backup(written), None)
        written.execute("PRAGMA journal_mode=DELETE")


def check_metrics(path: Path) -> None:
    """Raises MetricsError for a file that holds anything but what `MetricsWriter` writes.

    It may be of any origin: nothing of it is computed before its tables are known.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            found = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
            if found and found != [("table", "scalars", TABLE)]:
                raise MetricsError(f"{path.name} has other tables than metrics do.")
            [(said,)] = connection.execute("PRAGMA quick_check(1)")
            odd = found and connection.execute(FOREIGN_ROW).fetchone()[0]
    except (sqlite3.Error, OverflowError) as error:
        raise MetricsError(f"{path.name} is damaged.") from error
    if said != "ok" or odd:
        raise MetricsError(f"{path.name} is damaged or has values that no run writes.")


def _query(path: Path, sql: str, *values: object) -> list[tuple]:
    """The rows; none where there is no file or no table yet. Raises MetricsError."""
    return _read(path, lambda connection: connection.execute(sql, values).fetchall(), [])


def _read(path: Path, use: Callable[[sqlite3.Connection], Kind], nothing: Kind) -> Kind:
    """What `use` makes of the file; `nothing` where there is no file or no table yet.

    Raises MetricsError.
    """
    try:
        check_regular(path)
        log = path.with_name(f"{path.name}-wal")
        # The log of a writer on the machine that has the disk: its memory is not shared with this.
        elsewhere = log.exists() and on_network_disk(path.parent)
        try:
            if not elsewhere:
                return _used(path, use)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_CANTOPEN:
                raise
        # A killed writer has left its log, and reading it takes files that a read-only folder
        # does not get: a copy does.
        with tempfile.TemporaryDirectory() as folder:
            for file in (path, log):
                if file.exists():
                    shutil.copy(file, folder)
            return _used(Path(folder) / path.name, use)
    except FileNotFoundError:
        return nothing
    except OSError as error:
        raise MetricsError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except sqlite3.Error as error:
        if "no such table" in str(error):  # made, but the writer is not that far yet
            return nothing
        if why := _reason(error):
            raise MetricsError(f"{path.name} cannot be read: {why}.") from error
        raise MetricsError(
            f"{path.name} is damaged. If the run is resumed, the file is renamed and the curves "
            "start again."
        ) from error


def _reason(error: sqlite3.Error) -> str:
    """What prevents the use of the file; empty where the file is at fault."""
    return REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")


def _used(path: Path, use: Callable[[sqlite3.Connection], Kind]) -> Kind:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
        return use(connection)
