"""Runs of several processes, on one machine and on two: they train as one, and end clearly."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from diffusion_core.cli.main import main
from diffusion_core.runs import jobs
from diffusion_core.runs.checkpoint import load_state, load_weights
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.launch import FIRST_MACHINE, launch_commands
from diffusion_core.runs.run import Run
from tests import tiny_runs
from tests.faults.hosts import Host, need_hosts, train_together, two_hosts
from tests.faults.processes import (
    FOREVER,
    PATIENCE_SECONDS,
    Command,
    Forks,
    wait_for_progress,
    wait_for_state,
    wait_for_step,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
CONFIG = tiny_runs.tiny(steps=STEPS)
ENDLESS = CONFIG.replace(steps=FOREVER, validate_every=0, sample_every=0)
BROKEN = "Another process of this run ended or lost its connection. Resume the run to continue"


@pytest.fixture
def run(runs_dir: Path) -> Run:
    return Run(runs_dir / "run")


@pytest.fixture(scope="module")
def alone(module_forks: Forks) -> np.ndarray:
    """The losses of one process, step 1 to 20."""
    run = Run(module_forks.folder / "alone")
    assert module_forks.train(run, CONFIG).exit_code() == 0
    return run.curve("loss")["value"]


def words(run: Run, config: RunConfig | None = None) -> list[str]:
    """Of the command line: a new run with settings, else one that is resumed."""
    if config is not None:
        tiny_runs.create(run.path, config)
    return ["train", "--folder", str(run.path), *([] if config else ["--resume"])]


def assert_losses(run: Run, expected: np.ndarray) -> None:
    curve = run.curve("loss")
    assert curve["step"].tolist() == list(range(1, len(expected) + 1))
    np.testing.assert_allclose(curve["value"], expected, rtol=0, atol=1e-5)


def assert_resumes_alone(run: Run, forks: Forks, alone: np.ndarray) -> None:
    """One process goes on from the last checkpoint, and ends like a run that was never broken."""
    saved = run.latest_checkpoint().step
    assert forks.command(*words(run), "--steps", saved + 4).exit_code() == 0
    assert run.state == "finished"
    assert run.status.resumed_from == saved
    assert run.latest_checkpoint().step == saved + 4
    curve = run.curve("loss")
    assert curve["step"].tolist() == list(range(1, saved + 5))
    shared = min(len(curve["value"]), len(alone))
    np.testing.assert_allclose(curve["value"][:shared], alone[:shared], rtol=0, atol=1e-5)


def processes_of(run: Run) -> list[psutil.Process]:
    """Those that have the run's folder among their words."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(run.path) in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


# ------------------------------------------------------------------------------ one machine


@pytest.mark.long
def test_two_processes_give_the_losses_of_one(run: Run, forks: Forks, alone: np.ndarray) -> None:
    first, second = train_together(forks, words(run, CONFIG), words(run, CONFIG))
    assert (first.exit_code(), second.exit_code()) == (0, 0)
    assert_losses(run, alone)
    assert run.details.processes == 2
    assert "finished." in first.said()
    assert "20/20" in first.said()  # the progress bar
    assert second.said() == ""


@pytest.mark.long
def test_two_processes_share_the_statistics_of_the_lecture_s_batch_norm(
    run: Run, runs_dir: Path, forks: Forks
) -> None:
    config = tiny_runs.LECTURE.replace(
        data="cars:48", batch_size=4, validation_count=4, steps=8, sample_every=0
    )
    one = Run(runs_dir / "one")
    assert forks.train(one, config).exit_code() == 0
    both = train_together(forks, words(run, config), words(run, config))
    assert [command.exit_code() for command in both] == [0, 0]
    assert_losses(run, one.curve("loss")["value"])
    found, expected = (load_weights(each.latest_checkpoint()) for each in (run, one))
    name = "downs.0.bnorm1.running_var"
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)


@pytest.mark.long
def test_two_processes_learn_the_weighting_of_one(run: Run, runs_dir: Path, forks: Forks) -> None:
    config = CONFIG.replace(learned_weighting=True, min_snr_gamma=0.0)
    one = Run(runs_dir / "one")
    assert forks.train(one, config).exit_code() == 0
    both = train_together(forks, words(run, config), words(run, config))
    assert [command.exit_code() for command in both] == [0, 0]
    assert_losses(run, one.curve("loss")["value"])
    learned, expected = (load_state(each.path, STEPS)["weighting"] for each in (run, one))
    np.testing.assert_allclose(learned["weight"], expected["weight"], rtol=0, atol=1e-5)


@pytest.mark.long
def test_two_processes_start_from_the_weights_of_another_run(
    run: Run, runs_dir: Path, forks: Forks
) -> None:
    tiny_runs.write_run(runs_dir, "first", 4, config=CONFIG)
    start = ["--init-from", "first", "--steps", "4"]
    one = Run(runs_dir / "one")
    assert main(["train", "--run", str(one.path), "--quiet", *start]) == 0
    both = train_together(forks, *[["train", "--folder", str(run.path), *start]] * 2)
    assert [command.exit_code() for command in both] == [0, 0]
    assert_losses(run, one.curve("loss")["value"])
    assert run.config.init_from == one.config.init_from == "first@4"
    assert (run.path / "origin.safetensors").is_file()
    said = [command.said().count("Starts from the weights of first, step 4.") for command in both]
    assert said == [1, 0]


@pytest.mark.long
def test_a_run_started_in_the_background_has_the_processes_that_were_asked_for(
    runs_dir: Path, alone: np.ndarray, true_python: None
) -> None:
    run = jobs.start(runs_dir, "run", CONFIG, "cpu", processes=2)
    wait_until(lambda: run.state == "finished", "it has finished")
    assert_losses(run, alone)
    wait_until(lambda: not processes_of(run), "all processes have ended")
    assert "finished." in (run.path / "train.log").read_text()


@pytest.mark.long
def test_a_background_run_is_asked_and_killed_as_one(
    runs_dir: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = runs_dir.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    run = jobs.start(runs_dir, "run", ENDLESS, "cpu", processes=2)
    jobs.request(run, "pause")  # while only the launcher is there
    wait_for_state(run, "paused")
    wait_until(lambda: not processes_of(run), "all processes have ended")
    assert "FAILED" not in (run.path / "train.log").read_text()  # as torchrun would put it
    jobs.resume(run, "cpu", processes=2)
    wait_for_state(run, "running")
    wait_for_progress(run)
    writer = psutil.Process(run.status.pid)
    assert "--folder" in writer.cmdline()  # and not the launcher
    assert writer.pid in [child.pid for child in writer.parent().children()]
    writer.kill()
    wait_until(lambda: not processes_of(run), "no process is left behind")
    assert run.state == "lost"
    assert not list(temporary.iterdir())


@pytest.mark.long
def test_the_number_of_processes_may_change_from_resume_to_resume(
    run: Run, forks: Forks, alone: np.ndarray
) -> None:
    assert forks.train(run, CONFIG.replace(steps=6)).exit_code() == 0
    both = train_together(forks, [*words(run), "--steps", "12"], words(run))
    assert [command.exit_code() for command in both] == [0, 0]
    assert forks.command(*words(run), "--steps", STEPS).exit_code() == 0
    assert_losses(run, alone)


def started(run: Run, forks: Forks) -> list[Command]:
    """Two processes at work, with a checkpoint behind them."""
    commands = train_together(forks, words(run, ENDLESS), words(run, ENDLESS))
    wait_for_step(run, 1)
    wait_until(run.latest_checkpoint, "there is a checkpoint")
    return commands


def test_a_run_whose_second_process_is_killed_fails_with_a_sentence(
    run: Run, forks: Forks, alone: np.ndarray
) -> None:
    first, second = started(run, forks)
    second.kill()
    assert first.exit_code() == 1
    assert run.state == "failed"
    step = run.status.checkpoint_step
    assert run.status.error == f"{BROKEN} from step {step:,}."
    assert run.status.error in first.said()
    assert "Traceback" not in first.said()
    assert_resumes_alone(run, forks, alone)


def test_a_run_whose_first_process_is_killed_is_lost_and_the_second_ends(
    run: Run, forks: Forks
) -> None:
    first, second = started(run, forks)
    first.kill()
    assert second.exit_code() == 1
    assert BROKEN.split(" Resume")[0] in second.said()
    assert run.state == "lost"


@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_any_of_the_processes_stops_them_all(
    run: Run, forks: Forks, number: int
) -> None:
    commands = started(run, forks)
    commands[number].send(signal.SIGTERM)
    # For the launcher, which knows only success and failure, they have done what they were to do.
    assert [command.exit_code() for command in commands] == [0, 0]
    assert run.state == "stopped"
    assert run.latest_checkpoint().step == run.status.step
    assert commands[1].said() == ""


def test_processes_that_would_train_different_runs_say_so(
    run: Run, forks: Forks, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tiny_runs.create(other, CONFIG.replace(learning_rate=0.5))
    like_other = ["train", "--folder", str(run.path), "--like", str(other)]
    commands = train_together(forks, words(run, CONFIG), like_other)
    assert [command.exit_code() for command in commands] == [1, 1]
    assert run.state == "failed"
    assert "do not see the same settings. Start it with the same" in run.status.error
    assert "Traceback" not in commands[0].said()


def test_a_process_that_cannot_begin_tells_the_first_why(
    run: Run, forks: Forks, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    tiny_runs.create(missing, CONFIG.replace(data=f"folder:{tmp_path / 'nowhere'}"))
    like_missing = ["train", "--folder", str(run.path), "--like", str(missing)]
    first, second = train_together(forks, words(run, CONFIG), like_missing)
    assert [command.exit_code() for command in (first, second)] == [1, 1]
    assert run.state == "failed"
    assert "nowhere" in run.status.error
    assert "Resume the run to start again; it has no checkpoint yet." in run.status.error


def test_others_wait_with_the_first_for_the_device_and_are_stopped_with_it(
    runs_dir: Path, run: Run, forks: Forks
) -> None:
    other = Run(runs_dir / "other")
    forks.train(other, ENDLESS)
    wait_for_state(other, "running")
    commands = train_together(forks, words(run, CONFIG), words(run, CONFIG))
    wait_for_state(run, "queued")
    jobs.request(run, "stop")
    assert [command.exit_code() for command in commands] == [0, 0]
    assert run.state == "stopped"
    assert commands[1].said() == ""
    assert other.state == "running"


@pytest.mark.long
def test_a_process_that_is_killed_while_they_wait_ends_the_run(
    runs_dir: Path, run: Run, forks: Forks
) -> None:
    other = Run(runs_dir / "other")
    forks.train(other, ENDLESS)
    wait_for_state(other, "running")
    first, second = train_together(forks, words(run, CONFIG), words(run, CONFIG))
    wait_for_state(run, "queued")
    second.kill()
    assert first.exit_code() == 1
    assert run.state == "failed"
    assert run.status.error.startswith(BROKEN.split(" Resume")[0])


# ------------------------------------------------------------------------------ two machines


@pytest.fixture
def hosts():
    need_hosts()
    with two_hosts() as made:
        yield made


def type_in(host: Host, command: str) -> subprocess.Popen:
    """A command as it was printed, typed on a host in the app's folder."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        host.inside(*shlex.split(command)),
        cwd=ROOT,
        env={**os.environ, "PATH": beside},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def type_in_both(hosts: list[Host], run: Run, config: RunConfig) -> list[subprocess.Popen]:
    tiny_runs.create(run.path, config)
    commands = launch_commands(run.path, config, 2, 1, resume=False)
    return [
        type_in(host, command.replace(FIRST_MACHINE, hosts[0].address))
        for host, command in zip(hosts, commands, strict=True)
    ]


@pytest.mark.long
def test_two_hosts_train_one_run_by_the_commands_that_are_printed(
    hosts, run: Run, forks: Forks, alone: np.ndarray
) -> None:
    launchers = type_in_both(hosts, run, CONFIG)
    assert [launcher.wait(PATIENCE_SECONDS) for launcher in launchers] == [0, 0]
    assert run.state == "finished"
    assert_losses(run, alone)
    assert run.details.processes == 2


@pytest.mark.long
def test_a_host_killed_with_all_its_processes_fails_the_run_which_resumes_on_the_other(
    hosts, run: Run, forks: Forks, alone: np.ndarray
) -> None:
    launchers = type_in_both(hosts, run, ENDLESS)
    wait_until(run.latest_checkpoint, "there is a checkpoint")
    hosts[1].kill()
    assert launchers[0].wait(PATIENCE_SECONDS) == 1
    assert run.state == "failed"
    assert run.status.error.startswith(BROKEN)
    wait_until(lambda: not processes_of(run), "no process is left behind")
    assert_resumes_alone(run, forks, alone)


@pytest.mark.long
def test_a_host_whose_network_is_cut_fails_the_run_on_both_sides(
    hosts, run: Run, forks: Forks, alone: np.ndarray
) -> None:
    both = [words(run, ENDLESS)] * 2
    commands = train_together(forks, *both, hosts=hosts, patience=3)
    wait_until(run.latest_checkpoint, "there is a checkpoint")
    hosts[1].cut_off()
    assert [command.exit_code() for command in commands] == [1, 1]
    assert run.state == "failed"
    assert run.status.error.startswith(BROKEN)
    assert_resumes_alone(run, forks, alone)
