"""The public demo: what its visitors may train, and what is removed when."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from dashboard.services import demo, roles
from dashboard.services.queue_watch import watch
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.run import Run, RunSnapshot, list_runs
from diffusion_core.runs.status import RunState, StatusRecord, write_status
from diffusion_core.runs.trash import deleted
from tests import tiny_runs
from tests.pages.app import buttons, press, words
from tests.pages.services.test_queue_watch import Rounds
from tests.pages.training.test_training import open_training


@pytest.fixture(autouse=True)
def a_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", "1")


def finish(run: Run, state: RunState = RunState.FINISHED) -> None:
    write_status(run.path, StatusRecord(created=time.time(), state=state, total=1))


def grow_old(run: Run, minutes: float) -> None:
    mark = {"name": run.name, "started": time.time() - 60 * minutes}
    (run.path / demo.MARK).write_text(json.dumps(mark))


def test_nobody_operates_a_demo_whatever_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("operator", "viewer"):
        monkeypatch.setenv("DIFFUSION_LAB_ROLE", role)
        assert not roles.may_operate()
        assert roles.may_train()
        assert not roles.may(roles.Deed.START)


def test_a_visitor_reads_the_caps_and_starts_a_run_of_the_apps_naming(
    started: list[RunSnapshot],
) -> None:
    app = open_training()
    assert "preset tiny, at most 400 steps and images of 32×32 pixels (digits or cars)" in words(
        app
    )
    app.selectbox(key="demo-data").select("cars")
    app.number_input(key="demo-steps").set_value(150)
    press(app, "Start")
    assert not app.exception
    [run] = started
    config = run.config
    assert config is not None
    assert run.name.startswith("visitor-cars-")
    assert (config.preset, config.steps, config.image_size) == ("tiny", 150, 32)
    assert config.data.startswith("cars")
    assert not {"Stop", "Pause", "Delete", "Duplicate run"} & set(buttons(app))
    press(app, "Start")
    assert len(started) == 1
    assert f"{run.name} is training; start a run when it has finished." in app.toast[0].value


@pytest.mark.parametrize(
    ("data", "steps", "sentence"),
    [
        ("digits", 401, "trains 1 to 400 steps"),
        ("digits", 0, "trains 1 to 400 steps"),
        ("folder:/etc", 10, "trains on digits or cars only"),
        ("cars:20000", 10, "trains on digits or cars only"),
    ],
)
def test_the_caps_are_asked_in_the_deed(
    data: str, steps: int, sentence: str, runs_dir: Path, started: list[RunSnapshot]
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        demo.start(data, steps)
    assert not started
    assert not list_runs(runs_dir)


def test_a_demo_that_was_switched_off_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, started: list[RunSnapshot]
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", "0")
    with pytest.raises(JobError, match="is no demo"):
        demo.start("digits", 10)
    assert not started


def test_so_many_runs_are_kept_and_no_more(
    started: list[RunSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CAPS", demo.CAPS.model_copy(update={"kept": 2}))
    for _ in range(2):
        run = demo.start("digits", 10)
        finish(run)
    grow_old(run, 50)
    with pytest.raises(JobError, match=r"at most 2 runs; the oldest is removed in 10 min\."):
        demo.start("digits", 10)


def test_two_visitors_at_once_start_one_run(started: list[RunSnapshot]) -> None:
    refused = []

    def visit() -> None:
        try:
            demo.start("digits", 10)
        except JobError as error:
            refused.append(error)

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(started), len(refused)) == (1, 3)


def test_a_run_is_removed_after_an_hour_by_whatever_server_is_there(
    runs_dir: Path, started: list[RunSnapshot]
) -> None:
    old = demo.start("digits", 10)
    finish(old)
    young = demo.start("digits", 10)
    finish(young)
    grow_old(old, 61)
    grow_old(young, 59)
    tiny_runs.write_run(runs_dir, "visitor-digits-000000")  # of somebody else, without the mark
    tiny_runs.write_run(runs_dir, "kept")  # a copy under another name
    (runs_dir / "kept" / demo.MARK).write_bytes((old.path / demo.MARK).read_bytes())
    broken = runs_dir / "visitor-digits-000000" / demo.MARK
    broken.write_text("{")

    watch(Rounds(1))  # a server that knows of the runs by the disk alone
    assert {run.name for run in list_runs(runs_dir)} == {young.name, "kept", broken.parent.name}
    assert not deleted(runs_dir)
    assert not list(runs_dir.glob(f".{old.name}*"))


def test_a_run_whose_time_is_over_is_stopped_before_it_is_removed(
    runs_dir: Path, started: list[RunSnapshot]
) -> None:
    run = demo.start("digits", 10)
    grow_old(run, 61)
    demo.remove_old(runs_dir)
    assert run.snapshot().pending == "stop"
    finish(run, RunState.STOPPED)
    demo.remove_old(runs_dir)
    assert not run.path.exists()


def test_what_a_killed_server_left_in_the_trash_is_removed(
    runs_dir: Path, started: list[RunSnapshot]
) -> None:
    run = demo.start("digits", 10)
    finish(run)
    tiny_runs.write_run(runs_dir, "mine")
    for name in (run.name, "mine"):
        (runs_dir / ".trash").mkdir(exist_ok=True)
        (runs_dir / name).rename(runs_dir / ".trash" / f"{round(time.time() * 1000)}-{name}")
    demo.remove_old(runs_dir)
    assert [gone.name for gone in deleted(runs_dir)] == ["mine"]
