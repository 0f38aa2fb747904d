"""The ways to stop a run from outside: signals and request.json, at any time of its life."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.runs import checkpoint, jobs
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.request import read_request
from diffusion_core.runs.run import Run
from tests.faults.processes import (
    FOREVER,
    PATIENCE_SECONDS,
    Command,
    Forks,
    tiny,
    wait_for_progress,
    wait_for_state,
    wait_until,
)
from tests.tiny_runs import create

STOPPED = 130


@pytest.fixture
def run(runs_dir: Path) -> Run:
    return Run(runs_dir / "run")


@pytest.fixture
def trainer(run: Run, forks: Forks) -> Command:
    """A process that trains `run` until it is ended, and writes a checkpoint only then."""
    started = forks.train(run, tiny(steps=FOREVER, checkpoint_every=0, sample_every=0))
    wait_for_state(run, "running")
    wait_until(lambda: run.status.step, "it makes steps")
    return started


def test_sigterm_stops_with_a_checkpoint(run: Run, trainer: Command) -> None:
    assert run.latest_checkpoint() is None
    trainer.send(signal.SIGTERM)
    assert trainer.exit_code() == STOPPED
    assert_stopped_cleanly(run)
    assert "train --run" in trainer.said()  # how to go on


def test_a_request_stops_with_a_checkpoint(run: Run, trainer: Command) -> None:
    jobs.request(run, "stop")
    assert trainer.exit_code() == STOPPED
    assert_stopped_cleanly(run)
    assert read_request(run.path / "request.json").action is None


def test_an_interrupt_stops_a_training_in_a_terminal(run: Run, true_python: None) -> None:
    """As a user starts it; in the other tests here the process is forked."""
    create(run.path, tiny(steps=FOREVER, checkpoint_every=0))
    command = [sys.executable, "-m", "diffusion_core", "train", "--run", str(run.path)]
    with subprocess.Popen(command) as terminal:
        wait_for_state(run, "running")
        wait_until(lambda: run.status.step, "it makes steps")
        terminal.send_signal(signal.SIGINT)
        assert terminal.wait(PATIENCE_SECONDS) == STOPPED
    assert_stopped_cleanly(run)


def assert_stopped_cleanly(run: Run) -> None:
    assert run.state == "stopped"
    step = run.status.step
    assert run.latest_checkpoint().step == step == run.status.checkpoint_step
    assert checkpoint.load_state(run.path, step)["step"] == step
    assert run.curve("loss")["step"].tolist() == list(range(1, step + 1))
    assert not list(run.path.rglob(".*"))
    assert not list(run.path.glob("metrics.sqlite-*"))


def test_a_second_interrupt_ends_it_when_the_file_at_hand_is_whole(run: Run, forks: Forks) -> None:
    config = tiny(steps=FOREVER, checkpoint_every=5, sample_every=0, validate_every=0)
    trainer = forks.call(interrupted_while_it_saves, run.path, config)
    assert trainer.exit_code() == STOPPED
    assert "Traceback" not in trainer.said()
    assert run.state == "stopped"
    assert run.latest_checkpoint().step == 7
    assert not list(run.path.rglob(".*.tmp"))


def interrupted_while_it_saves(path: Path, config) -> int:
    """Ctrl+C at step 7, and again while the checkpoint is written that the first one asked for."""
    from diffusion_core.training import loop
    from tests.faults.processes import command_line

    take_step, save_state = loop.one_step, checkpoint.save_state

    def step_and_interrupt(context, step: int):
        if step == 7:
            signal.raise_signal(signal.SIGINT)
        return take_step(context, step)

    def save_and_interrupt(run: Path, step: int, state: dict[str, Any]) -> Path:
        if step == 7:
            signal.raise_signal(signal.SIGINT)
        return save_state(run, step, state)

    loop.one_step, checkpoint.save_state = step_and_interrupt, save_and_interrupt
    create(path, config)
    return command_line(["train", "--run", str(path), "--quiet"])


GARBAGE = [b"", b"{", b"[]", b'"stop"', b'{"action": ["stop"]}', b'{"action": "fly"}', b"\xff\x00"]


def test_requests_that_cannot_be_read_are_ignored(run: Run, trainer: Command) -> None:
    for garbage in GARBAGE:
        (run.path / "request.json").write_bytes(garbage)
        assert read_request(run.path / "request.json").action is None
        wait_until(lambda: not (run.path / "request.json").exists(), "it is put away")
    wait_for_progress(run)
    assert run.state == "running"


@pytest.mark.long
def test_an_old_request_is_not_meant_for_a_resumed_run(run: Run, forks: Forks) -> None:
    trainer = forks.train(run, tiny(steps=8), die="after step-00000004.safetensors")
    assert trainer.exit_code() == -signal.SIGKILL
    (run.path / "request.json").write_text('{"action": "stop", "time": 1700000000.0}')
    assert forks.train(run).exit_code() == 0
    assert run.state == "finished"


def test_a_stop_that_is_asked_for_while_the_process_starts_is_heard(
    runs_dir: Path, forks: Forks
) -> None:
    run = jobs.start(runs_dir, "run", tiny(steps=FOREVER), "cpu")
    assert run.state == "starting"
    jobs.request(run, "stop")
    wait_for_state(run, "stopped")
    assert read_request(run.path / "request.json").action is None


def test_a_stop_is_not_forgotten_over_a_later_request(run: Run, forks: Forks) -> None:
    first = Run(run.path.with_name("first"))
    forks.train(first, tiny(steps=FOREVER, checkpoint_every=0, sample_every=0))
    wait_for_state(first, "running")
    waiting = forks.train(run, tiny())
    wait_for_state(run, "queued")
    waiting.send(signal.SIGSTOP)
    jobs.request(run, "stop")
    with pytest.raises(JobError, match="run will stop; it takes no more requests"):
        jobs.request(run, "sample")
    waiting.send(signal.SIGCONT)
    assert waiting.exit_code() == STOPPED
    wait_for_progress(first)
