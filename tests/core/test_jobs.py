"""Jobs: how a run is started, resumed and asked, and what is left behind where it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffusion_core import jobs
from diffusion_core.config import ConfigError, RunConfig
from diffusion_core.data.errors import DataError
from diffusion_core.jobs import JobError
from diffusion_core.presets import preset
from diffusion_core.runs import Run

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
    [command] = commands
    assert command[:4] == [sys.executable, "-m", "diffusion_core", "train"]
    assert command[-2:] == ["--device", "cpu"]
    for words in (["--set", "data=digits:64"], ["--set", 'schedule={"timesteps": 50}']):
        at = command.index(words[1])
        assert command[at - 1 : at + 1] == words


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
    assert len(commands) == 2


def test_a_process_that_cannot_be_started_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(JobError, match="run cannot be started: Cannot allocate memory"):
        jobs.start(folder, "run", CONFIG)
    assert not list(folder.iterdir())


def test_a_preset_that_does_not_exist_leaves_no_folder(folder: Path, commands) -> None:
    with pytest.raises(ConfigError, match="no preset called 'huge'"):
        jobs.start(folder, "run", CONFIG.replace(preset="huge"))
    assert not list(folder.iterdir())


def test_the_data_are_looked_at_before_a_start(folder: Path) -> None:
    jobs.check_data(CONFIG)
    with pytest.raises(DataError, match="There is no folder"):
        jobs.check_data(CONFIG.replace(data=f"folder:{folder / 'none'}"))
    # A tenth is held out.
    jobs.check_data(CONFIG.replace(batch_size=58))
    with pytest.raises(ConfigError, match="leaves 58 pictures for training, fewer than a batch"):
        jobs.check_data(CONFIG.replace(batch_size=59))


@pytest.mark.parametrize("state", ["paused", "stopped", "failed"])
def test_a_run_that_ended_early_is_resumed_from_its_own_settings(
    state: str, folder: Path, commands
) -> None:
    run = write_status(folder / "run", state=state, created=5.0, checkpoint_step=40)
    (run.path / "config.json").write_text(CONFIG.to_json())
    jobs.resume(run)
    [command] = commands
    assert command[-1] == "--resume"
    assert run.state == "starting"
    assert (run.created, run.status["checkpoint_step"]) == (5.0, 40)
    with pytest.raises(JobError, match="run is starting; there is nothing to resume"):
        jobs.resume(run)  # pressed twice


def test_a_run_that_never_settled_its_settings_is_started_with_its_old_arguments(
    folder: Path, commands
) -> None:
    run = write_status(folder / "run", state="failed", arguments=["--preset", "small"])
    jobs.resume(run)
    assert commands[0][-2:] == ["--preset", "small"]


def test_a_run_without_usable_settings_is_not_resumed(folder: Path, commands) -> None:
    run = write_status(folder / "run", state="failed")
    with pytest.raises(JobError, match="has left no settings to resume it with"):
        jobs.resume(run)
    (run.path / "config.json").write_text("{")
    with pytest.raises(JobError, match=r"cannot be resumed: config\.json is damaged"):
        jobs.resume(run)
    assert not commands


def test_what_is_asked_waits_in_the_folder_until_it_is_taken_up(folder: Path) -> None:
    run = write_status(folder / "run", state="running", heartbeat=time.time())
    assert jobs.pending_request(run) is None
    jobs.request(run, "pause")
    assert jobs.pending_request(run) == "pause"
    (run.path / "request.json").write_text('{"action": "dance"}')
    assert jobs.pending_request(run) is None


def test_only_a_run_at_work_can_be_asked_and_only_for_what_it_can_do(folder: Path) -> None:
    run = write_status(folder / "run", state="finished")
    with pytest.raises(JobError, match="run is finished; there is nothing to stop"):
        jobs.request(run, "stop")
    with pytest.raises(JobError, match="'dance' is nothing that a run can do"):
        jobs.request(run, "dance")


def test_a_folder_that_cannot_be_written_to_gets_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_status(folder / "run", state="running", heartbeat=time.time())

    def refuse(path: Path, value: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(jobs, "write_json", refuse)
    with pytest.raises(JobError, match="run cannot be asked to stop: Read-only file system"):
        jobs.request(run, "stop")


def test_a_configuration_survives_the_way_over_the_command_line() -> None:
    from diffusion_core.config import parse_settings, with_settings
    from diffusion_core.presets import as_arguments

    config = RunConfig(preset="small", data="folder:/a b", random_flip=False, learning_rate=3e-4)
    words = as_arguments(config)
    again = with_settings(preset(words[1]), parse_settings(words[3::2]))
    assert again == config
