"""Deleting runs and putting them back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from diffusion_core.runs import trash
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status_writer import only_trainer
from tests.tiny_runs import set_running, write_run


def test_a_deleted_run_is_out_of_the_list_and_comes_back_whole(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "a-b.c", 4))
    before = {path.name: path.stat().st_size for path in run.path.rglob("*")}
    gone = trash.delete(run)
    assert list_runs(runs_dir) == []
    [found] = trash.deleted(runs_dir)
    assert (found.name, found.path) == ("a-b.c", gone.path)
    assert abs(found.time - time.time()) < 60
    again = trash.restore(found)
    assert again == run
    (again.path / "history.jsonl").unlink()  # which says so
    assert {path.name: path.stat().st_size for path in again.path.rglob("*")} == before
    assert trash.deleted(runs_dir) == []


def test_a_run_whose_name_is_taken_comes_back_under_the_next_free_one(runs_dir: Path) -> None:
    trash.delete(Run(write_run(runs_dir, "run", total=1)))
    trash.delete(Run(write_run(runs_dir, "run", total=2)))
    write_run(runs_dir, "run", total=3)
    first, second = trash.deleted(runs_dir)
    assert trash.restore(first).name == "run-2"
    assert trash.restore(second).name == "run-3"
    seeds = {run.name: run.status.total for run in list_runs(runs_dir)}
    assert seeds == {"run": 3, "run-2": 2, "run-3": 1}
    with pytest.raises(JobError, match="run cannot be put back: No such file"):
        trash.restore(first)


@pytest.mark.parametrize("state", ["running", "queued"])
def test_what_is_at_work_or_queued_is_not_deleted(state: str, runs_dir: Path) -> None:
    path = write_run(runs_dir, "run")
    set_running(path)
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps(status | {"state": state}))
    with pytest.raises(JobError, match=f"run is {state}; stop it before you delete it"):
        trash.delete(Run(path))
    assert path.exists()


def test_what_a_process_just_opens_is_not_deleted(runs_dir: Path) -> None:
    path = write_run(runs_dir, "run")
    with only_trainer(path), pytest.raises(JobError, match="Another process is at work on run"):
        trash.delete(Run(path))
    assert path.exists()
    assert not (runs_dir / ".trash").exists()


def test_what_was_deleted_more_than_a_week_ago_goes_with_the_next_one(runs_dir: Path) -> None:
    for days in (6, 8):
        gone = trash.delete(Run(write_run(runs_dir, f"of-{days}-days")))
        stamp = round((time.time() - days * 86_400) * 1000)
        gone.path.rename(gone.path.with_name(f"{stamp}-{gone.name}"))
    trash.delete(Run(write_run(runs_dir, "new")))
    assert [gone.name for gone in trash.deleted(runs_dir)] == ["new", "of-6-days"]
