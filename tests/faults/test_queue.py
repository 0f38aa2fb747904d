"""Two runs on one device: the second waits for its turn, and gets it however the first ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from diffusion_core.runs import jobs
from diffusion_core.runs.queue import queued_before
from diffusion_core.runs.run import Run, snapshots
from tests.browser.server import start_server
from tests.faults.processes import FOREVER, Forks, tiny, wait_for_state, wait_until

STOPPED = 130


def wait_for_text(log: Path, text: str) -> None:
    wait_until(lambda: text in log.read_text(), f"{log.name} says {text!r}")


def position(run: Run) -> int:
    """How many runs go before it to the same device."""
    return len(queued_before(run.snapshot(), snapshots(run.path.parent)))


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
    assert [position(other) for other in waiting] == [0, 1]

    # One that waits can be stopped; the others keep their order.
    jobs.request(waiting[0], "stop")
    assert commands[0].exit_code() == STOPPED
    assert waiting[0].state == "stopped"
    assert position(waiting[1]) == 0
    assert waiting[1].state == "queued"
    assert run.state == "running"

    jobs.request(run, "stop")
    assert trainer.exit_code() == STOPPED
    assert commands[1].exit_code() == 0
    assert waiting[1].state == "finished"
    # What was stopped in the queue has its settings, and has not begun.
    assert waiting[0].config is not None
    assert not waiting[0].snapshot().begun


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
    assert position(third) == 0
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
    before = run.status.pid
    again = forks.train(run)
    assert again.exit_code() == 1
    assert again.said().strip() == "Another process is at work on first; stop it first."
    wait_until(lambda: run.status.step > 0, "the first one trains on")
    assert run.state == "running"
    assert run.status.pid == before == trainer.pid


# ---------------------------------------------------------------- runs that wait as folders


def test_a_trainer_that_ends_starts_the_next_in_the_queue(first, runs_dir: Path) -> None:
    run, trainer = first
    waiting = [jobs.start(runs_dir, name, tiny(steps=2), "cpu") for name in ("second", "third")]
    assert [other.state for other in waiting] == ["queued", "queued"]
    assert all(other.status.pid is None for other in waiting)
    jobs.move(waiting[1], -1)
    jobs.request(run, "stop")
    assert trainer.exit_code() == STOPPED
    # Each starts the one behind it when it ends.
    for other in (waiting[1], waiting[0]):
        wait_for_state(other, "finished")
    assert waiting[1].status.started < waiting[0].status.started
    assert first[0].state == "stopped"


def test_the_queue_outlives_every_process_and_the_next_command_starts_it(
    first, runs_dir: Path, forks: Forks
) -> None:
    run, trainer = first
    waiting = [jobs.start(runs_dir, name, tiny(steps=2), "cpu") for name in ("second", "third")]
    trainer.kill()
    assert run.state == "lost"
    # Nobody is left: they wait, and none of them is lost.
    assert [other.state for other in waiting] == ["queued", "queued"]
    looks = [forks.command("queue", "--runs-dir", runs_dir) for _ in range(3)]
    assert [look.exit_code() for look in looks] == [0, 0, 0]
    assert waiting[0].state != "queued"
    for other in waiting:
        wait_for_state(other, "finished")
        # However many looked at once, it was started once and trained from its first step.
        log = other.path / "train.log"
        wait_for_text(log, "finished.")
        assert log.read_text().count("finished.") == 1
        assert "Another process" not in log.read_text()
        assert other.curve("loss")["step"].tolist() == [1, 2]


def test_a_run_in_a_terminal_and_one_that_waits_as_a_folder_keep_their_order(
    first, runs_dir: Path, forks: Forks
) -> None:
    _, trainer = first
    second = jobs.start(runs_dir, "second", tiny(steps=2), "cpu")
    third = Run(runs_dir / "third")
    in_a_terminal = forks.train(third, tiny(steps=2))
    wait_for_state(third, "queued")
    assert position(third) == 1
    fourth = jobs.start(runs_dir, "fourth", tiny(steps=2), "cpu")
    jobs.request(Run(runs_dir / "first"), "stop")
    assert trainer.exit_code() == STOPPED
    assert in_a_terminal.exit_code() == 0
    wait_until(lambda: fourth.state == "finished", "the last has finished")
    last_steps = [run.curve("loss")["wall_time"][-1] for run in (second, third, fourth)]
    assert last_steps == sorted(last_steps)


def test_a_stop_of_what_waits_is_done_at_once_and_it_starts_when_it_is_resumed(
    first, runs_dir: Path
) -> None:
    run, trainer = first
    second = jobs.start(runs_dir, "second", tiny(steps=2), "cpu")
    jobs.request(second, "stop")
    assert second.state == "stopped"
    jobs.request(run, "stop")
    assert trainer.exit_code() == STOPPED
    assert second.state == "stopped"
    jobs.resume(second, "cpu")
    wait_until(lambda: second.state == "finished", "it has finished")


@pytest.mark.long
def test_the_next_server_starts_what_waits_before_anybody_visits_it(
    first, runs_dir: Path, cache_dir: Path
) -> None:
    run, trainer = first
    second = jobs.start(runs_dir, "second", tiny(steps=2), "cpu")
    with start_server(runs_dir.parent, CACHE_DIR=str(cache_dir)) as server:
        trainer.kill()
        server.process.kill()
        server.process.wait()
        assert (run.state, second.state) == ("lost", "queued")
    with start_server(runs_dir.parent, CACHE_DIR=str(cache_dir)):
        wait_until(lambda: second.state == "finished", "the server has started it")
