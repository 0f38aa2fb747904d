"""Jobs: how a run is started, resumed and asked, and what is left behind where it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffusion_core.data.errors import DataError
from diffusion_core.runs import jobs, queue
from diffusion_core.runs import request as run_request
from diffusion_core.runs import status as run_status
from diffusion_core.runs.changes import read_changes
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.presets import preset
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, RunSnapshot
from tests.tiny_runs import set_running, tiny, write_checkpoint, write_run

CONFIG = preset("small").replace(data="digits:64", batch_size=8, schedule={"timesteps": 50})


@pytest.fixture
def folder(runs_dir: Path) -> Path:
    """An empty folder for runs."""
    return runs_dir


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the processes that would have been started."""
    started: list[list[str]] = []

    def popen(command: list[str], **options: object) -> SimpleNamespace:
        assert options["start_new_session"]  # it must outlive whoever starts it
        started.append(command)
        return SimpleNamespace(pid=os.getpid())

    monkeypatch.setattr(subprocess, "Popen", popen)
    return started


def write_status(path: Path, **fields: object) -> Run:
    path.mkdir(exist_ok=True)
    (path / "status.json").write_text(json.dumps(fields))
    return Run(path)


def test_a_started_run_is_there_at_once_and_its_process_gets_all_settings(
    folder: Path, commands
) -> None:
    run = jobs.start(folder / "new", "first", CONFIG, "cpu")
    assert run.state == "starting"
    assert run.status.pid == os.getpid()
    assert commands == [
        [
            *(sys.executable, "-m", "diffusion_core", "train"),
            *("--run", str(run.path), "--quiet", "--device", "cpu"),
        ]
    ]
    assert run.config == CONFIG and not run.snapshot().begun
    assert RunConfig.from_dict(json.loads((run.path / "config.json").read_text())) == CONFIG


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".hidden", "a b", "ä", "x" * 81])
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str, folder: Path, commands) -> None:
    with pytest.raises(JobError, match="cannot be a run's name"):
        jobs.start(folder, name, CONFIG)
    assert not commands
    assert not list(folder.iterdir())


def test_a_name_is_given_once(folder: Path, commands) -> None:
    assert jobs.free_name(folder, "run") == "run"
    jobs.start(folder, "run", CONFIG)
    with pytest.raises(JobError, match="already a run called run"):
        jobs.start(folder, "run", CONFIG)
    jobs.start(folder, "run-2", CONFIG)
    assert jobs.free_name(folder, "run") == "run-3"


def test_a_process_that_cannot_be_started_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(JobError, match="run cannot be started: Cannot allocate memory"):
        jobs.start(folder, "run", CONFIG)
    assert not (folder / "run").exists()


def test_the_data_are_looked_at_before_a_start(folder: Path) -> None:
    jobs.check_data(CONFIG)
    with pytest.raises(DataError, match="There is no folder"):
        jobs.check_data(CONFIG.replace(data=f"folder:{folder / 'none'}"))
    # A tenth is held out.
    jobs.check_data(CONFIG.replace(batch_size=58))
    with pytest.raises(DataError, match="leaves 58 images for training, fewer than a batch"):
        jobs.check_data(CONFIG.replace(batch_size=59))


@pytest.mark.parametrize("state", ["paused", "stopped", "failed"])
def test_a_run_that_ended_early_is_resumed_from_its_own_settings(
    state: str, folder: Path, commands
) -> None:
    run = write_status(folder / "run", state=state, created=5.0, checkpoint_step=40)
    write_config_file(run.path, CONFIG, {})
    jobs.resume(run)
    [command] = commands
    assert command[-3:] == ["--device", "cpu", "--resume"]
    assert run.state == "starting"
    assert (run.created, run.status.checkpoint_step) == (5.0, 40)
    with pytest.raises(JobError, match="run is starting; there is nothing to resume"):
        jobs.resume(run)  # pressed twice


def test_a_run_of_an_earlier_version_that_never_began_gets_its_config_from_its_arguments(
    folder: Path, commands
) -> None:
    arguments = ["--preset", "lecture", "--set", "steps=9", "--set", "data=digits"]
    run = write_status(folder / "run", state="failed", arguments=arguments)
    assert run.config == preset("lecture").replace(steps=9, data="digits")
    jobs.resume(run)
    assert "--resume" not in commands[0]
    found = RunConfig.from_dict(json.loads((run.path / "config.json").read_text()))
    assert found == preset("lecture").replace(steps=9, data="digits")


def test_a_run_without_usable_settings_is_not_resumed(folder: Path, commands) -> None:
    run = write_status(folder / "run", state="failed")
    with pytest.raises(JobError, match="has left no settings to resume with"):
        jobs.resume(run)
    (run.path / "config.json").write_text("{")
    with pytest.raises(JobError, match=r"run cannot resume: config\.json is not readable JSON"):
        jobs.resume(run)
    assert not commands


def test_what_is_asked_waits_in_the_folder_until_it_is_taken_up(folder: Path) -> None:
    run = write_status(folder / "run", state="running", heartbeat=time.time())
    assert run.snapshot().pending is None
    jobs.request(run, "pause")
    assert run.snapshot().pending == "pause"
    (run.path / "request.json").write_text('{"action": "dance"}')
    assert run.snapshot().pending is None


def test_only_a_run_at_work_can_be_asked_and_only_for_what_it_can_do(folder: Path) -> None:
    run = write_status(folder / "run", state="finished")
    with pytest.raises(JobError, match="run is finished; there is nothing to stop"):
        jobs.request(run, "stop")
    with pytest.raises(JobError, match="'dance' is not a request; use pause"):
        jobs.request(run, "dance")


def test_a_folder_that_cannot_be_written_to_gets_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_status(folder / "run", state="running", heartbeat=time.time())

    def refuse(path: Path, value: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(run_request, "write_json", refuse)
    with pytest.raises(JobError, match="run cannot be asked to stop: Read-only file system"):
        jobs.request(run, "stop")


# ---------------------------------------------------------------- the queue


@pytest.fixture
def busy(folder: Path) -> Run:
    """A run that has the device: this process trains it."""
    set_running(write_run(folder, "busy", heartbeat=time.time()))
    return Run(folder / "busy")


def end(run: Run) -> None:
    run_status.write_status(run.path, run.status.replace(state="finished"))


def names(folder: Path) -> list[str]:
    return [run.name for run in read_queue(folder)]


def test_a_run_that_finds_the_device_busy_waits_without_a_process(
    folder: Path, busy: Run, commands
) -> None:
    run = jobs.start(folder, "next", CONFIG, "cpu")
    assert run.state == "queued"
    assert run.status.pid is None
    assert not commands
    # However long it waits: there is no process that could be gone.
    run_status.write_status(run.path, run.status.replace(heartbeat=1.0))
    assert run.state == "queued"
    jobs.start_next(folder)
    assert not commands
    end(busy)
    jobs.start_next(folder)
    assert run.state == "starting"
    assert len(commands) == 1


def test_what_a_process_writes_while_it_is_started_stays(
    folder: Path, commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_at_once(pid: int) -> None:
        write_status(folder / "a", state="failed", error="No such device.")

    monkeypatch.setattr(queue, "go_behind", fails_at_once)
    jobs.start(folder, "a", CONFIG, "cpu")
    assert (Run(folder / "a").state, Run(folder / "a").status.error) == (
        "failed",
        "No such device.",
    )


def test_of_several_servers_that_look_at_the_same_moment_one_starts_what_waits(
    folder: Path, busy: Run, commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.start(folder, "next", CONFIG, "cpu")
    end(busy)
    spawn = queue._spawn

    def slowly(run: RunSnapshot) -> None:
        time.sleep(0.2)  # longer than usual, so that the others would see it wait
        spawn(run)

    monkeypatch.setattr(queue, "_spawn", slowly)
    with ThreadPoolExecutor(4) as servers:
        list(servers.map(jobs.start_next, [folder] * 4))
    assert len(commands) == 1


def test_one_run_is_started_at_a_time_and_in_the_order_of_the_queue(
    folder: Path, busy: Run, commands
) -> None:
    for name in ("c", "a", "b"):
        jobs.start(folder, name, CONFIG, "cpu")
    assert names(folder) == ["c", "a", "b"]
    end(busy)
    jobs.start_next(folder)
    jobs.start_next(folder)
    assert names(folder) == ["a", "b"]
    assert len(commands) == 1
    end(Run(folder / "c"))
    # Whoever comes now does not overtake those who wait.
    jobs.start(folder, "d", CONFIG, "cpu")
    assert names(folder) == ["b", "d"]


def test_the_queue_can_be_put_in_another_order(folder: Path, busy: Run, commands) -> None:
    for name in ("a", "b", "c"):
        jobs.start(folder, name, CONFIG, "cpu")
    jobs.move(Run(folder / "c"), -1)
    assert names(folder) == ["a", "c", "b"]
    jobs.move(Run(folder / "c"), -5)
    assert names(folder) == ["c", "a", "b"]
    jobs.move(Run(folder / "c"), 1)
    assert names(folder) == ["a", "c", "b"]
    jobs.start(folder, "d", CONFIG, "cpu")
    assert names(folder) == ["a", "c", "b", "d"]
    with pytest.raises(JobError, match="busy is running; it is not in the queue"):
        jobs.move(busy, 1)


def test_a_place_that_a_run_was_moved_to_is_lost_with_its_wait(
    folder: Path, busy: Run, commands
) -> None:
    for name in ("a", "b"):
        jobs.start(folder, name, CONFIG, "cpu")
    jobs.move(Run(folder / "b"), -1)
    jobs.request(Run(folder / "b"), "stop")
    assert names(folder) == ["a"]
    jobs.resume(Run(folder / "b"), "cpu")
    assert names(folder) == ["a", "b"]


def test_runs_of_other_hosts_and_devices_have_queues_of_their_own(
    folder: Path, busy: Run, commands
) -> None:
    for number, (name, place) in enumerate(
        {
            "mine": {"host": os.uname().nodename, "device": "cpu"},
            "on-a-gpu": {"host": os.uname().nodename, "device": "cuda"},
            "second-on-it": {"host": os.uname().nodename, "device": "cuda:0"},
            "elsewhere": {"host": "elsewhere", "device": "cpu"},
        }.items()
    ):
        run = write_status(folder / name, state="queued", queued_at=float(number), **place)
        write_config_file(run.path, CONFIG)
    jobs.start_next(folder)
    [command] = commands
    assert command[command.index("--device") + 1] == "cuda"
    assert names(folder) == ["mine", "second-on-it", "elsewhere"]
    # In its own queue it is the first, whatever stands before it in others.
    jobs.move(Run(folder / "elsewhere"), -1)
    assert names(folder) == ["mine", "second-on-it", "elsewhere"]


def test_a_run_that_waits_in_a_terminal_keeps_its_turn(folder: Path, commands) -> None:
    here = {"state": "queued", "host": os.uname().nodename, "device": "cpu"}
    write_status(folder / "terminal", queued_at=1.0, pid=os.getpid(), heartbeat=time.time(), **here)
    write_status(folder / "folder", queued_at=2.0, arguments=["--preset", "small"], **here)
    jobs.start_next(folder)
    assert not commands


def test_a_queued_run_that_cannot_be_started_has_failed_and_the_next_one_gets_its_turn(
    folder: Path, busy: Run, commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        jobs.start(folder, name, CONFIG, "cpu")
    end(busy)
    popen = subprocess.Popen

    def refuse_the_first(command: list[str], **options: Any) -> Any:
        if str(folder / "a") in command:
            raise OSError(12, "Cannot allocate memory")
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse_the_first)
    jobs.start_next(folder)
    assert Run(folder / "a").state == "failed"
    assert "Cannot allocate memory" in Run(folder / "a").status.error
    assert Run(folder / "b").state == "starting"


def test_a_waiting_run_leaves_the_queue_at_once_and_can_be_started_later(
    folder: Path, busy: Run, commands
) -> None:
    run = jobs.start(folder, "next", CONFIG, "cpu")
    with pytest.raises(JobError, match="next is queued; it can sample only when it is at work"):
        jobs.request(run, "sample")
    jobs.request(run, "pause")
    assert run.state == "paused"
    jobs.resume(run, "cpu")
    jobs.request(run, "stop")
    assert run.state == "stopped"
    assert names(folder) == []
    end(busy)
    jobs.resume(run, "cpu")
    assert str(run.path) in commands[0]


def test_a_started_process_does_not_take_itself_for_one_of_several(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("KEPT", "yes")
    environments = []

    def popen(command: list[str], **options) -> SimpleNamespace:
        environments.append(options["env"])
        return SimpleNamespace(pid=os.getpid())

    monkeypatch.setattr(subprocess, "Popen", popen)
    jobs.start(folder, "run", CONFIG, "cpu")
    [environment] = environments
    assert environment["KEPT"] == "yes"
    assert not {"RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & set(environment)


# ---------------------------------------------------------------- changes


def asked(run: Run) -> dict:
    return json.loads((run.path / "request.json").read_text())


def test_a_run_at_work_is_asked_for_changes_and_several_become_one(busy: Run) -> None:
    jobs.change(busy, {"learning_rate": 1e-4})
    jobs.change(busy, {"sample_every": 7})
    assert asked(busy)["action"] == "change"
    assert asked(busy)["settings"] == {"learning_rate": 1e-4, "sample_every": 7}
    with pytest.raises(JobError, match="busy has not answered the last change yet"):
        jobs.request(busy, "sample")
    # A stop does not wait, and does not forget it.
    jobs.request(busy, "stop")
    assert (asked(busy)["action"], asked(busy)["settings"]["sample_every"]) == ("stop", 7)
    with pytest.raises(JobError, match="busy will stop; change it after that"):
        jobs.change(busy, {"learning_rate": 1e-4})


def test_a_stop_that_comes_between_the_look_and_the_writing_of_a_request_is_not_lost(
    busy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Thread(target=jobs.request, args=(busy, "stop"))

    def look(path: Path) -> run_request.RequestRecord:
        monkeypatch.setattr(jobs, "read_request", run_request.read_request)
        found = run_request.read_request(path)
        stop.start()
        stop.join(0.5)  # it waits for its turn
        return found

    monkeypatch.setattr(jobs, "read_request", look)
    jobs.request(busy, "sample")
    stop.join()
    assert asked(busy)["action"] == "stop"


def test_a_change_does_not_take_the_place_of_what_else_was_asked(busy: Run) -> None:
    jobs.request(busy, "sample")
    with pytest.raises(JobError, match="not answered the request for a sample yet"):
        jobs.change(busy, {"learning_rate": 1e-4})
    assert asked(busy)["action"] == "sample"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "Say what to change"),
        ({"seed": 3}, "seed cannot change in a run; start a new one with it"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be more than 0"),
        ({"steps": 40}, "busy has made 40 steps; steps is 40 and must be more"),
    ],
)
def test_what_cannot_change_gets_a_sentence(busy: Run, settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        jobs.change(busy, settings)
    assert busy.snapshot().pending is None


def test_a_change_of_a_run_that_rests_holds_from_the_step_it_goes_on_with(folder: Path) -> None:
    run = Run(write_run(folder, "run", 30, state="stopped"))
    jobs.change(run, {"learning_rate": 1e-4, "steps": 99})
    [change] = read_changes(run.path)
    assert (change.step, change.settings) == (31, {"learning_rate": 1e-4, "steps": 99})
    assert run.config is not None and run.config.learning_rate == 1e-4
    assert run.config_at(0).learning_rate == run.config_at(30).learning_rate == 1e-3
    assert run.config_at(31).learning_rate == 1e-4
    assert run.status.total == 99


def test_a_run_that_has_not_begun_is_changed_as_a_whole(folder: Path, busy: Run, commands) -> None:
    run = jobs.start(folder, "next", CONFIG, "cpu")
    jobs.change(run, {"learning_rate": 2e-4})
    assert run.config == run.config_at(0) == CONFIG.replace(learning_rate=2e-4)
    assert not read_changes(run.path)
    end(busy)
    jobs.start_next(folder)
    assert len(commands) == 1 and run.config == CONFIG.replace(learning_rate=2e-4)


def write_state(run: Run, step: int) -> None:
    (run.path / "state").mkdir(exist_ok=True)
    (run.path / "state" / f"step-{step:08d}.pt").touch()


def test_a_finished_run_goes_on_with_more_steps(folder: Path, commands) -> None:
    run = Run(write_run(folder, "run", 40))
    with pytest.raises(JobError, match=r"nothing to resume\. Give it more steps to continue"):
        jobs.resume(run, "cpu")
    with pytest.raises(JobError, match=r"no state to continue from\. Start another run like it"):
        jobs.resume(run, "cpu", {"steps": 60})
    write_state(run, 40)
    with pytest.raises(ConfigError, match="steps is 40 and must be more"):
        jobs.resume(run, "cpu", {"steps": 40})
    assert not read_changes(run.path)
    jobs.resume(run, "cpu", {"steps": 60})
    assert run.config.steps == 60
    assert commands[0][-3:] == ["--device", "cpu", "--resume"]


def test_a_run_that_failed_goes_on_with_a_lower_rate(folder: Path, commands) -> None:
    run = Run(write_run(folder, "run", 20, state="failed", not_finite=True, config=tiny()))
    write_checkpoint(run.path, 4, tiny())
    write_state(run, 4)
    jobs.resume(run, "cpu", {"learning_rate": 1e-4})
    assert run.config.learning_rate == 1e-4
    assert run.status.not_finite is False
    assert len(commands) == 1
