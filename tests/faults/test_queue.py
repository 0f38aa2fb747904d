"""Two runs on one device: the second waits for its turn, and gets it however the first ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from diffusion_core import jobs
from diffusion_core.runs import Run, queue_position
from tests.faults.processes import FOREVER, Forks, tiny, wait_for_state, wait_until

STOPPED = 130


@pytest.fixture
def first(runs_dir: Path, forks: Forks):
    """A run that has the device until it is ended: the run and its process."""
    run = Run(runs_dir / "first")
    trainer = forks.train(run, tiny(steps=FOREVER, checkpoint_every=0, sample_every=0))
    wait_for_state(run, "running")
    return run, trainer


def test_the_second_run_waits_its_turn_and_says_its_place(
    first, runs_dir: Path, forks: Forks
) -> None:
    run, trainer = first
    waiting = [Run(runs_dir / name) for name in ("second", "third")]
    commands = []
    for other in waiting:
        commands.append(forks.train(other, tiny(steps=2)))
        wait_for_state(other, "queued")
    assert [queue_position(other) for other in waiting] == [0, 1]

    # One that waits can be stopped; the others keep their order.
    jobs.request(waiting[0], "stop")
    assert commands[0].exit_code() == STOPPED
    assert waiting[0].state == "stopped"
    assert queue_position(waiting[1]) == 0
    assert waiting[1].state == "queued"
    assert run.state == "running"

    jobs.request(run, "stop")
    assert trainer.exit_code() == STOPPED
    assert commands[1].exit_code() == 0
    assert waiting[1].state == "finished"
    # What was stopped in the queue is resumed from its settings, which it never got to write.
    assert waiting[0].config is None
    assert waiting[0].status["arguments"]


def test_a_waiting_run_starts_when_the_one_before_it_is_killed(
    first, runs_dir: Path, forks: Forks
) -> None:
    run, trainer = first
    second, third = (Run(runs_dir / name) for name in ("second", "third"))
    next_one = forks.train(second, tiny(steps=2))
    wait_for_state(second, "queued")
    last = forks.train(third, tiny(steps=2))
    wait_for_state(third, "queued")
    # The one in the middle is killed while it waits: its place is nobody's.
    next_one.kill()
    assert second.state == "lost"
    assert queue_position(third) == 0
    trainer.kill()
    assert last.exit_code() == 0
    assert run.state == "lost"
    assert third.state == "finished"


def test_what_is_asked_of_a_waiting_run_is_done_when_its_turn_comes(
    first, runs_dir: Path, forks: Forks
) -> None:
    _, trainer = first
    second = Run(runs_dir / "second")
    command = forks.train(second, tiny(steps=4, sample_every=0, checkpoint_every=0))
    wait_for_state(second, "queued")
    jobs.request(second, "sample")
    trainer.send(signal.SIGTERM)
    assert command.exit_code() == 0
    assert [step for step, _ in second.samples()] == [1]


def test_two_trainers_of_one_run_do_not_write_over_each_other(first, forks: Forks) -> None:
    run, trainer = first
    before = run.status["pid"]
    again = forks.train(run)
    assert again.exit_code() == 1
    assert again.said().strip() == "Another process is at work on first; stop it first."
    wait_until(lambda: run.status["step"] > 0, "the first one trains on")
    assert run.state == "running"
    assert run.status["pid"] == before == trainer.pid
