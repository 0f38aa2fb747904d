"""Reading run folders: what is true now, whatever is or is not in the folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from diffusion_core.files import write_json
from diffusion_core.runs.changes import add_change
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import Details
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.queue import queued_before, read_queue
from diffusion_core.runs.run import Run, list_runs, load_run, snapshots
from diffusion_core.runs.status import (
    ACTIVE,
    RunState,
    StatusRecord,
    process_alive,
    state_now,
    write_status,
)


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Of a process that has just ended and was waited for."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def of_this_process(**fields) -> StatusRecord:
    """A status as the trainer writes it, with this very process as the trainer."""
    record = {
        "state": "running",
        "step": 3,
        "total": 10,
        "created": 1000.0,
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "device": "cpu",
        "heartbeat": time.time(),
        **fields,
    }
    return StatusRecord(**record)


def make_run(path: Path, **fields) -> Path:
    path.mkdir(parents=True)
    write_status(path, of_this_process(**fields))
    return path


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("state", sorted(set(RunState) - {"lost"}))
def test_a_live_process_is_believed(state: str) -> None:
    assert state_now(of_this_process(state=state)) == state


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_an_active_run_without_its_process_is_lost(state: str, dead_pid: int) -> None:
    assert state_now(of_this_process(state=state, pid=dead_pid)) == "lost"


@pytest.mark.parametrize("state", sorted(set(RunState) - ACTIVE - {"lost"}))
def test_a_run_that_ended_stays_what_it_was(state: str, dead_pid: int) -> None:
    assert state_now(of_this_process(state=state, pid=dead_pid, heartbeat=0.0)) == state


def test_a_pid_that_belongs_to_another_process_now_is_lost() -> None:
    status = of_this_process(process_started=1000.0, heartbeat=time.time() - 3600)
    assert state_now(status) == "lost"


def test_a_zombie_is_not_at_work() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child = psutil.Process(process.pid)
    deadline = time.monotonic() + 20
    while child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.status() == psutil.STATUS_ZOMBIE
    assert not process_alive(process.pid, None)
    process.wait()


def test_a_live_process_with_an_old_heartbeat_is_still_at_work() -> None:
    """A busy or suspended machine is late, not dead."""
    assert state_now(of_this_process(heartbeat=time.time() - 600)) == "running"


@pytest.mark.parametrize(("age", "state"), [(5, "running"), (600, "lost")])
def test_of_another_host_only_the_heartbeat_tells(age: float, state: str, dead_pid: int) -> None:
    status = of_this_process(host="elsewhere", pid=dead_pid, heartbeat=time.time() - age)
    assert state_now(status) == state


@pytest.mark.parametrize(("age", "state"), [(5, "starting"), (600, "lost")])
def test_a_process_that_has_not_spoken_yet_is_waited_for_a_while(age: float, state: str) -> None:
    status = of_this_process(state="starting", pid=None, heartbeat=time.time() - age)
    assert state_now(status) == state


def test_an_empty_status_is_that_of_a_lost_run() -> None:
    assert state_now(StatusRecord()) == "lost"


# ---------------------------------------------------------------- folders


def test_runs_are_listed_newest_first_and_other_folders_not_at_all(tmp_path: Path) -> None:
    make_run(tmp_path / "old", created=1.0)
    make_run(tmp_path / "new", created=3.0)
    make_run(tmp_path / "between", created=2.0)
    make_run(tmp_path / "same-a", created=2.0)
    make_run(tmp_path / ".hidden")
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "file.txt").write_text("x")
    found = [run.name for run in list_runs(tmp_path)]
    assert found == ["new", "same-a", "between", "old"]
    assert list_runs(tmp_path / "nowhere") == []


def test_what_is_no_run_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no config.json"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"There is no run {tmp_path / 'nowhere'}."):
        load_run(tmp_path / "nowhere")


def test_a_folder_with_nothing_but_a_status_can_be_read(tmp_path: Path) -> None:
    """So soon after its start that the trainer has not said more."""
    run = load_run(make_run(tmp_path / "run", state="starting"))
    assert run.state == "starting" and run.created == 1000.0
    assert run.config is None and run.details == Details()
    assert (run.samples(), run.weights()) == ([], [])
    assert run.last_values() == {} and len(run.curve("loss")["step"]) == 0
    assert run.latest_checkpoint() is None and run.checkpoints() == ([], [])


def test_a_folder_with_nothing_but_settings_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(RunConfig(steps=7).to_json())
    run = load_run(tmp_path)
    assert run.config == RunConfig(steps=7)
    assert run.status == StatusRecord() and run.state == "lost" and run.created == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "null", "\xff"])
def test_a_damaged_status_is_no_status(tmp_path: Path, content: str) -> None:
    run = load_run(make_run(tmp_path / "run"))
    (run.path / "status.json").write_text(content, encoding="latin-1")
    assert run.status == StatusRecord() and run.state == "lost"
    assert [found.name for found in list_runs(tmp_path)] == ["run"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": 0}', '{"steps": "many"}'])
def test_damaged_settings_get_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError):
        _ = load_run(tmp_path).config


def test_a_whole_folder_shows_everything_in_order(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", state="finished")
    resolved: dict[str, Any] = {"classes": ("a",), "parameters": 12}
    write_json(path / "config.json", {**json.loads(RunConfig().to_json()), "resolved": resolved})
    (path / "samples").mkdir()
    for step in (100, 25, 3):
        (path / "samples" / f"step-{step:08d}.png").write_bytes(b"")
    (path / "samples" / ".step-00000200.png.1.tmp").write_bytes(b"")
    (path / "samples" / "mine.png").write_bytes(b"")
    writer = MetricsWriter(path / "metrics.sqlite")
    writer.add((step, "loss", 1 / step, 0.0) for step in range(1, 4))
    writer.close()
    run = load_run(str(path))
    assert run.name == "run" and run.details == Details(**resolved)
    assert [step for step, _ in run.samples()] == [3, 25, 100]
    assert np.allclose(run.curve("loss")["value"], [1, 1 / 2, 1 / 3])
    step, loss = run.last_values()["loss"]
    assert step == 3 and loss == pytest.approx(1 / 3)


# ---------------------------------------------------------------- the queue


def position(run: Run) -> int:
    return len(queued_before(run.snapshot(), snapshots(run.path.parent)))


def test_the_queue_is_first_come_first_served_on_each_device_of_each_host(
    tmp_path: Path, dead_pid: int
) -> None:
    for name, at in (("c", 30.0), ("a", 10.0), ("b", 20.0), ("b2", 20.0)):
        make_run(tmp_path / name, state="queued", queued_at=at)
    make_run(tmp_path / "on-a-gpu", state="queued", queued_at=1.0, device="cuda")
    make_run(tmp_path / "elsewhere", state="queued", queued_at=1.0, host="elsewhere")
    make_run(tmp_path / "gone", state="queued", queued_at=1.0, pid=dead_pid)
    make_run(tmp_path / "at-work", state="running", queued_at=1.0)
    places = {run.name: position(run.run) for run in snapshots(tmp_path)}
    assert [places[name] for name in ("a", "b", "b2", "c")] == [0, 1, 2, 3]
    assert places["on-a-gpu"] == places["elsewhere"] == 0


def test_the_place_in_the_queue_moves_up_when_a_run_before_it_starts(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", state="queued", queued_at=1.0)
    second = load_run(make_run(tmp_path / "second", state="queued", queued_at=2.0))
    assert position(second) == 1
    write_status(first, of_this_process(state="running", queued_at=1.0))
    assert position(second) == 0


def test_a_run_that_waits_without_a_process_is_queued_however_long(tmp_path: Path) -> None:
    status = of_this_process(state="queued", pid=None, heartbeat=1.0)
    assert state_now(status) == "queued"
    assert state_now(status.replace(host="elsewhere")) == "queued"


@pytest.mark.parametrize(
    "order", ["[]", '{"order": 3}', '{"order": ["a", null, [], ["a"]]}', "no json"]
)
def test_an_order_that_cannot_be_read_leaves_first_come_first_served(
    order: str, tmp_path: Path
) -> None:
    for name, at in (("late", 2.0), ("early", 1.0)):
        make_run(tmp_path / name, state="queued", queued_at=at)
    (tmp_path / ".queue.json").write_text(order)
    assert [run.name for run in read_queue(tmp_path)] == ["early", "late"]


def test_the_settings_are_those_after_all_changes(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run"))
    (run.path / "config.json").write_text(RunConfig().to_json())
    add_change(run.path, 5, {"learning_rate": 2e-4})
    add_change(run.path, 9, {"learning_rate": 3e-4, "steps": 77})
    assert run.config == RunConfig(learning_rate=3e-4, steps=77)
    assert run.config_at(8) == RunConfig(learning_rate=2e-4)
    assert run.config_at(0) == RunConfig()
    (run.path / "changes.json").write_text("{")
    with pytest.raises(ConfigError, match=r"changes\.json is not readable JSON"):
        _ = run.config
