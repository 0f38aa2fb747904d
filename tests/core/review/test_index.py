"""The index is as true as the folders, whatever is in its file, and reads only what has changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from diffusion_core.files import write_json
from diffusion_core.review import index
from diffusion_core.review.index import FILE, Index, Row, read_row
from diffusion_core.runs import metrics, remarks
from diffusion_core.runs.changes import add_change
from diffusion_core.runs.cost import ENERGY
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.metrics import MetricsError, MetricsWriter
from diffusion_core.runs.remarks import Kind, Subject
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status import HEARTBEAT_OLD
from tests.odd_runs import bound_by_permissions
from tests.tiny_runs import TINY, set_running, write_run

DEMO = Path(__file__).parents[3] / "checkpoints" / "demo-cars"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose files were read, each as often as they were."""
    found: list[str] = []

    def counted(run: Run) -> index.Row:
        found.append(run.name)
        return read_row(run)

    monkeypatch.setattr(index, "read_row", counted)
    return found


def names(found: Index) -> list[str]:
    return [str(row.values["name"]) for row in found.rows()]


def saved(runs_dir: Path) -> list[str]:
    with closing(sqlite3.connect(runs_dir / FILE)) as connection:
        return sorted(os.fsdecode(n) for (n,) in connection.execute("SELECT name FROM runs"))


def some_runs(runs_dir: Path, count: int = 3) -> list[Path]:
    return [write_run(runs_dir, f"run-{k}", created=1e9 + k) for k in range(count)]


def add_metric(run: Path, step: int, value: float) -> None:
    writer = MetricsWriter(run / "metrics.sqlite", keep_up_to_step=step)
    writer.add([(step, "validation_loss", value, 1.0)])
    writer.close()


def touch_quality(run: Path) -> None:
    shutil.copytree(DEMO / "quality", run / "quality")


# ---------------------------------------------------------------- what is in a row


def test_a_row_holds_settings_and_results(runs_dir: Path) -> None:
    run = write_run(runs_dir, "run", config=TINY.replace(batch_size=8), loss=0.5)
    for step, value in ((10, 0.3), (20, 0.1), (30, 0.2)):
        add_metric(run, step, value)
    writer = MetricsWriter(run / "metrics.sqlite", keep_up_to_step=30)
    writer.add((step, "loss", 1.0, 90.0 * step) for step in range(1, 42))
    writer.add([(40, ENERGY, 3.6e6, 0.0)])
    writer.close()
    add_change(run, 5, {"learning_rate": 0.5})
    record(run, Event.STARTED, "ann@example.org")
    record(run, Event.RESUMED, "bob@example.org")
    for kind, text in ((Kind.TAG, "good"), (Kind.TAG, "a talk"), (Kind.DECISION, "keep")):
        remarks.add(run, kind, text)
    remarks.add(run, Kind.STAR, by="ann@example.org")
    remarks.add(run, Kind.TAG, "wheels", Subject(step=20))  # not of the run
    [row] = Index(runs_dir).rows()
    expected = {
        "name": "run",
        "state": "finished",
        "step": 40,
        "images": 320,
        "hours": 1.0,
        "energy_kwh": 1.0,
        "batch_size": 8,
        "learning_rate": 0.5,
        "schedule.kind": "cosine",
        "schedule.timesteps": 20,
        "schedule.beta_start": 1e-4,  # the default
        "network_args.widths": "8",
        "latest_loss": 0.5,
        "validation_loss": 0.2,
        "best_validation_loss": 0.1,
        "best_step": 20,
        "creator": "ann@example.org",
        "tags": "a talk, good",
        "stars": 1,
        "decision": "keep",
    }
    assert {name: row.values.get(name) for name in expected} == expected
    assert "init_from" not in row.values  # an empty text is no value
    assert row.problem == ""


def test_quality_is_that_of_the_newest_result_of_the_last_step() -> None:
    files = [json.loads(path.read_text()) for path in (DEMO / "quality").glob("*.json")]
    newest = max(files, key=lambda file: (file["order"]["step"], file["written"]))
    row = Row.model_validate_json(read_row(Run(DEMO)).model_dump_json())  # as from the file
    assert row.measured is not None
    asked = (newest["order"]["step"], newest["order"]["n"])
    assert (row.measured.step, row.measured.images) == asked
    for name, estimate in newest["metrics"].items():
        assert row.values[f"quality.{name}"] == estimate["value"]
        assert row.measured.estimates[name].low == estimate["low"]


def test_runs_are_listed_as_elsewhere(runs_dir: Path) -> None:
    some_runs(runs_dir)
    os.rename(write_run(runs_dir, "odd"), os.fsencode(runs_dir) + b"/caf\xe9")
    (runs_dir / "no-run").mkdir()
    for _ in range(2):  # from the folders, then from the file
        assert names(Index(runs_dir)) == [run.name for run in list_runs(runs_dir)]


def test_a_file_that_cannot_be_used_is_named_until_it_can(runs_dir: Path) -> None:
    [run] = some_runs(runs_dir, 1)
    whole = (run / "config.json").read_text()
    (run / "config.json").write_text("[")
    found = Index(runs_dir)
    [row] = found.rows()
    assert row.problem == "config.json is not readable JSON."
    assert row.values["state"] == "finished" and "batch_size" not in row.values
    (run / "config.json").write_text(whole)
    assert found.rows()[0].problem == ""


def test_a_value_that_is_not_finite_is_left_out(runs_dir: Path) -> None:
    [run] = some_runs(runs_dir, 1)
    add_metric(run, 10, 0.5)
    with closing(sqlite3.connect(run / "metrics.sqlite")) as connection, connection:
        connection.execute("UPDATE scalars SET value = 9e999")
    for _ in range(2):
        [row] = Index(runs_dir).rows()
        assert "validation_loss" not in row.values and row.values["best_step"] == 10


def test_a_file_of_curves_that_another_program_holds_is_read_when_it_is_free(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = some_runs(runs_dir, 1)
    add_metric(run, 10, 0.5)

    def busy(*_: object) -> None:
        raise MetricsError("metrics.sqlite cannot be read: another program is using it.")

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "_query", busy)
        [row] = Index(runs_dir).rows()
    assert row.problem == "metrics.sqlite cannot be read: another program is using it."
    [row] = Index(runs_dir).rows()  # no file has changed
    assert row.problem == "" and row.values["validation_loss"] == 0.5


# ---------------------------------------------------------------- what is read again


def test_what_has_not_changed_is_not_read_again(runs_dir: Path, read: list[str]) -> None:
    some_runs(runs_dir)
    found = Index(runs_dir)
    first = found.rows()
    assert sorted(read) == ["run-0", "run-1", "run-2"]
    assert found.rows() == first
    assert Index(runs_dir).rows() == first  # another process
    assert len(read) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda run: write_json(run / "status.json", {"state": "failed", "step": 40}),
        lambda run: write_json(run / "config.json", {"batch_size": 5}),
        lambda run: (run / "config.json").chmod(0o640),
        lambda run: add_change(run, 5, {"steps": 90}),
        lambda run: record(run, Event.EXPORTED, "ann"),
        lambda run: add_metric(run, 10, 0.5),
        touch_quality,
        lambda run: remarks.add(run, Kind.STAR),
    ],
    ids="status config permissions changes history metrics quality remarks".split(),
)
def test_what_has_changed_is_read_again(
    change: Callable[[Path], object], runs_dir: Path, read: list[str]
) -> None:
    run, *_ = some_runs(runs_dir)
    found = Index(runs_dir)
    found.rows()
    del read[:]
    change(run)
    after = found.rows()
    assert read == ["run-0"]
    assert after == Index(runs_dir).rows()
    assert read == ["run-0"]  # what was read again is in the file
    assert after == sorted(
        (index._now(run.name, read_row(run)) for run in list_runs(runs_dir)),
        key=index._age,
        reverse=True,
    )


def test_runs_that_come_and_go_do_so_in_the_file(runs_dir: Path) -> None:
    first, *_ = some_runs(runs_dir)
    found = Index(runs_dir)
    found.rows()
    shutil.rmtree(first)
    write_run(runs_dir, "new")
    assert names(found) == ["new", "run-2", "run-1"]
    assert saved(runs_dir) == ["new", "run-1", "run-2"]
    shutil.rmtree(runs_dir / "new")
    assert names(Index(runs_dir)) == ["run-2", "run-1"]
    assert saved(runs_dir) == ["run-1", "run-2"]


def test_the_state_is_that_of_now_though_no_file_has_changed(
    runs_dir: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "run", state="running", pid=1, host="elsewhere", heartbeat=time.time())
    set_running(write_run(runs_dir, "here", created=1.0))
    found = Index(runs_dir)
    assert [row.values["state"] for row in found.rows()] == ["running", "running"]
    later = time.time() + HEARTBEAT_OLD
    monkeypatch.setattr(time, "time", lambda: later)
    for each in (found, Index(runs_dir)):
        assert [row.values["state"] for row in each.rows()] == ["lost", "running"]
    assert len(read) == 2


# ---------------------------------------------------------------- the file


def garbage(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwritten(file: Path) -> None:
    with open(file, "r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xff" * (file.stat().st_size - 4096))


def other_layout(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("DROP TABLE runs; CREATE TABLE runs (x); PRAGMA user_version=1")


def odd_rows(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute('UPDATE runs SET row = \'{"values": {"step": [1]}}\'')
        connection.execute("INSERT INTO runs VALUES (5, 5, 5)")


@pytest.mark.parametrize(
    "spoil", [Path.unlink, garbage, empty, half, overwritten, other_layout, odd_rows]
)
def test_a_file_that_cannot_be_used_is_made_again(
    spoil: Callable[[Path], object], runs_dir: Path, read: list[str]
) -> None:
    some_runs(runs_dir, 30)
    truth = Index(runs_dir).rows()
    del read[:]
    spoil(runs_dir / FILE)
    assert Index(runs_dir).rows() == truth
    assert len(read) == 30
    assert Index(runs_dir).rows() == truth
    assert len(read) == 30


def another_database(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE runs (theirs); INSERT INTO runs VALUES (1)")


@pytest.mark.parametrize("put", [another_database, Path.mkdir, os.mkfifo])
def test_what_belongs_to_somebody_else_is_left_alone(
    put: Callable[[Path], object], runs_dir: Path
) -> None:
    some_runs(runs_dir)
    put(runs_dir / FILE)
    before = os.stat(runs_dir / FILE)
    found = Index(runs_dir)
    for _ in range(2):
        assert names(found) == ["run-2", "run-1", "run-0"]
    after = os.stat(runs_dir / FILE)
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
    )


@contextmanager
def holding(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def test_a_file_that_another_process_holds_is_done_without(
    runs_dir: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "PATIENCE", 0.01)
    some_runs(runs_dir)
    Index(runs_dir).rows()
    write_run(runs_dir, "new")
    with holding(runs_dir / FILE):
        found = Index(runs_dir)
        assert names(found) == ["new", "run-2", "run-1", "run-0"]
        assert len(read) == 7
        found.rows()
        assert len(read) == 7
    assert saved(runs_dir) == ["run-0", "run-1", "run-2"]
    found.rows()
    assert saved(runs_dir) == ["new", "run-0", "run-1", "run-2"]
    assert len(read) == 7


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_folder_has_its_runs_too(there: bool, runs_dir: Path, read: list[str]) -> None:
    some_runs(runs_dir)
    if there:
        Index(runs_dir).rows()
        del read[:]
        (runs_dir / FILE).chmod(0o444)
    runs_dir.chmod(0o555)
    try:
        with bound_by_permissions():
            found = Index(runs_dir)
            assert names(found) == names(found) == ["run-2", "run-1", "run-0"]
    finally:
        runs_dir.chmod(0o755)
    assert (runs_dir / FILE).exists() == there
    assert len(read) == (0 if there else 3)


def test_on_a_network_disk_there_is_no_file_that_could_be_locked(
    runs_dir: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some_runs(runs_dir)
    Index(runs_dir).rows()
    os.remove(runs_dir / FILE)
    monkeypatch.setattr(index, "on_network_disk", lambda folder: folder == runs_dir)
    del read[:]
    found = Index(runs_dir)
    assert names(found) == names(found) == ["run-2", "run-1", "run-0"]
    assert len(read) == 3
    assert not (runs_dir / FILE).exists()


def test_a_folder_that_does_not_exist_has_no_runs_and_stays_away(tmp_path: Path) -> None:
    assert Index(tmp_path / "nowhere").rows() == []
    assert not (tmp_path / "nowhere").exists()


# ---------------------------------------------------------------- several processes

LOOKS = """
import sys
from pathlib import Path
from diffusion_core.review.index import Index

found = Index(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    rows = found.rows()
assert [row.values["step"] for row in rows] != []
"""
# The transaction spills over into the file before the process is killed at its end.
DIES = """
import os, signal, sqlite3, sys
from pathlib import Path
from diffusion_core.review import index

class Dying(sqlite3.Connection):
    def execute(self, sql, *values):
        if sql == "BEGIN IMMEDIATE":
            super().execute("PRAGMA cache_size=1")
        if sql == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *values)

connect = sqlite3.connect
sqlite3.connect = lambda *words, **more: connect(*words, **more, factory=Dying)
index.Index(Path(sys.argv[1])).rows()
"""


def start(code: str, *words: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)])


@pytest.mark.usefixtures("quick_python")
@pytest.mark.long
def test_two_processes_at_once_agree_with_the_folders(runs_dir: Path, read: list[str]) -> None:
    paths = some_runs(runs_dir, 20)
    looking = [start(LOOKS, runs_dir, 40) for _ in range(2)]
    step = 0
    while any(each.poll() is None for each in looking):
        step += 1
        write_json(paths[step % 20] / "status.json", {"state": "stopped", "step": step})
    assert [each.returncode for each in looking] == [0, 0]
    Index(runs_dir).rows()
    del read[:]
    steps = {str(row.values["name"]): row.values["step"] for row in Index(runs_dir).rows()}
    assert read == []  # the file is whole, and these are from it
    assert steps == {run.name: run.status.step for run in list_runs(runs_dir)}


@pytest.mark.usefixtures("quick_python")
@pytest.mark.parametrize("there", [False, True])
def test_a_process_killed_in_the_middle_of_a_rebuild_leaves_no_harm(
    there: bool, runs_dir: Path, read: list[str]
) -> None:
    some_runs(runs_dir, 20)
    if there:
        Index(runs_dir).rows()
        for run in list_runs(runs_dir):
            write_json(run.path / "status.json", {"state": "failed", "step": 41})
    assert start(DIES, runs_dir).wait() == -9
    assert (runs_dir / f"{FILE}-journal").stat().st_size > 0
    del read[:]
    truth = [index._now(run.name, read_row(run)) for run in list_runs(runs_dir)]
    assert Index(runs_dir).rows() == truth
    assert len(read) == 20
    assert Index(runs_dir).rows() == truth
    assert len(read) == 20
    assert not (runs_dir / f"{FILE}-journal").exists()
