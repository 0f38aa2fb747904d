"""One look at a run: each file read once, and whatever is in them, a run and a reason."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.files import write_json
from diffusion_core.runs.changes import add_change
from diffusion_core.runs.checkpoint import CheckpointError, load_state
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.metrics import MetricsError
from diffusion_core.runs.queue import at_work, queued_before, read_queue
from diffusion_core.runs.request import read_request, write_request
from diffusion_core.runs.run import Run, snapshots
from diffusion_core.runs.status import RunState, write_status
from tests.odd_runs import BIG, ODD, UNREADABLE, Spoil, write_odd_run
from tests.tiny_runs import TINY, set_running, write_run

SMALL_FILES = ("status.json", "config.json", "changes.json", "request.json", ".queue.json")
opened: list[str] | None = None  # while a test counts


def _count(event: str, args: tuple[Any, ...]) -> None:
    if opened is not None and event == "open" and str(args[0]).endswith(SMALL_FILES):
        opened.append(str(args[0]))


sys.addaudithook(_count)


@pytest.fixture
def reads() -> Iterator[list[str]]:
    """The small files that were opened since the test began, each as often as it was."""
    global opened
    found: list[str] = []
    yield found
    opened = None
    del found[:]


def count(found: list[str]) -> None:
    global opened
    opened = found


def test_a_snapshot_reads_each_file_of_a_run_once(runs_dir: Path, reads: list[str]) -> None:
    path = write_run(runs_dir, "run")
    set_running(path)
    add_change(path, 41, {"steps": 90})
    write_request(path, "pause", {"learning_rate": 1e-4})
    count(reads)
    seen = Run(path).snapshot()
    assert (seen.state, seen.pending, seen.status.step) == (RunState.RUNNING, "pause", 40)
    assert seen.config == TINY.replace(steps=90) and seen.start == TINY
    assert [(change.step, change.settings) for change in seen.changes] == [(41, {"steps": 90})]
    assert seen.request.settings == {"learning_rate": 1e-4}
    assert seen.problem == "" and seen.begun
    names = Counter(Path(name).name for name in reads)
    assert names == {name: 1 for name in SMALL_FILES if name != ".queue.json"}


def test_a_look_at_all_runs_and_the_queue_reads_each_file_once(
    runs_dir: Path, reads: list[str]
) -> None:
    set_running(write_run(runs_dir, "busy"))
    for k in range(3):
        here: dict[str, Any] = {"host": os.uname().nodename, "device": "cpu"}
        here["queued_at"] = float(k + 1)
        write_run(runs_dir, f"waits-{k}", state="queued", **here)
    write_json(runs_dir / ".queue.json", {"order": [["waits-2", 3.0]]})
    count(reads)
    runs = snapshots(runs_dir)
    queue = read_queue(runs_dir, runs)
    by_name = {run.name: run for run in runs}
    assert [run.name for run in queue] == ["waits-2", "waits-0", "waits-1"]
    assert [run.name for run in at_work(by_name["waits-0"], runs)] == ["busy"]
    files = Counter(name for name in reads if not name.endswith(".queue.json"))
    assert len(files) == 4 * 2 and set(files.values()) == {1}  # of each run both that are there
    before = queued_before(by_name["waits-1"], runs)
    assert [run.name for run in before] == ["waits-2", "waits-0"]


def test_a_run_that_was_created_has_its_settings_and_has_not_begun(tmp_path: Path) -> None:
    write_config_file(tmp_path, TINY)
    assert not Run(tmp_path).snapshot().begun
    write_config_file(tmp_path, TINY, {"classes": ["a"], "data_fingerprint": "x"})
    seen = Run(tmp_path).snapshot()
    assert seen.begun and seen.details is not None
    assert (seen.details.classes, seen.details.data_fingerprint) == (("a",), "x")


@pytest.mark.parametrize(("spoil", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_record_that_cannot_be_used_gives_a_reason_and_touches_no_other_run(
    spoil: Spoil, reason: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "whole", created=2e9)
    write_odd_run(runs_dir, "odd", spoil, created=1e9)
    whole, odd = snapshots(runs_dir)
    assert odd.name == "odd" and odd.problem.startswith(reason) and len(odd.problem) < 300
    assert (odd.config is None) == (not reason.startswith("status.json"))
    assert whole.problem == "" and whole.config == TINY
    assert [each.step for each in odd.run.checkpoints()[0]] == [40]


@pytest.mark.parametrize("spoil", ODD.values(), ids=ODD)
def test_a_run_of_which_another_file_is_odd_is_read_without_waiting_for_it(
    spoil: Spoil, runs_dir: Path
) -> None:
    run = Run(write_odd_run(runs_dir, "odd", spoil, state="stopped"))
    seen = run.snapshot()
    assert (seen.problem, seen.state) == ("", RunState.STOPPED)
    run.checkpoints()
    run.samples()
    assert read_request(run.path / "request.json").action is None
    with suppress(MetricsError):
        run.last_values()
    with suppress(CheckpointError):
        load_state(run.path, 40)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created", BIG),
        ("created", "1e20"),
        ("step", BIG),
        ("step", "-1"),
        ("total", "1.5"),
        ("pid", "99999999999999999999"),
        ("heartbeat", "NaN"),
        ("host", "5"),
        ("processes", "0"),
        ("state", '"on fire"'),
        ("error", "[]"),
        ("arguments", '{"a": 1}'),
    ],
)
def test_a_field_of_the_status_that_cannot_be_used_counts_as_missing(
    field: str, value: str, runs_dir: Path
) -> None:
    path = write_run(runs_dir, "odd", loss=0.5)
    record = json.loads((path / "status.json").read_text()) | {field: "HERE"}
    (path / "status.json").write_text(json.dumps(record).replace('"HERE"', value))
    [seen] = snapshots(runs_dir)
    assert getattr(seen.status, field) == type(seen.status)().model_dump()[field]
    assert seen.status.loss == 0.5 and seen.problem.startswith(f"status.json: {field} is ")
    write_status(path, seen.status)
    assert Run(path).status == seen.status


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_must_not_be_read_is_listed_with_the_reason(runs_dir: Path) -> None:
    path = write_run(runs_dir, "closed")
    path.chmod(0)
    try:
        [seen] = snapshots(runs_dir)
    finally:
        path.chmod(0o755)
    assert seen.problem.endswith("cannot be read: Permission denied.")


def test_a_file_that_the_system_does_not_read_is_named_with_its_reason(runs_dir: Path) -> None:
    path = write_run(runs_dir, "odd")
    (path / "status.json").unlink()
    (path / "status.json").mkdir()
    [seen] = snapshots(runs_dir)
    assert seen.problem == "status.json cannot be read: Is a directory."
    assert (seen.state, seen.config) == (RunState.LOST, TINY)
