"""A full disk: training goes on where it can, says what is the matter, and loses nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from diffusion_core.data.store import DataError, build_store
from diffusion_core.runs import checkpoint, jobs
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.run import Run
from tests.faults.disks import Disk
from tests.faults.processes import (
    FOREVER,
    Forks,
    tiny,
    wait_for_progress,
    wait_for_state,
    wait_until,
)

STOPPED = 130


def assert_usable(run: Run, step: int) -> None:
    """The checkpoint is whole: it can be drawn with and resumed."""
    found = run.checkpoint(step)
    checkpoint.load_model(found)
    assert checkpoint.load_state(run.path, step)["step"] == step
    assert run.checkpoints()[1] == []
    # One that is being written is put away when it finds no room.
    wait_until(lambda: not list(run.path.glob("*/.*.tmp")), "no half file is left")


def test_a_disk_that_fills_up_costs_no_checkpoint_and_training_goes_on(
    disk: Disk, forks: Forks
) -> None:
    run = Run(disk.path / "run")
    config = tiny(steps=FOREVER, checkpoint_every=10, keep_checkpoints=1, sample_every=20)
    trainer = forks.train(run, config)
    wait_until(lambda: run.status.checkpoint_step, "there is a checkpoint")
    disk.fill(trainer.pid)

    warning = wait_until(lambda: run.status.warning, "the warning is shown")
    assert warning.startswith("The disk is full: step-")
    assert "Free some space there, then go on; what was written before is intact." in warning
    wait_for_progress(run)
    wait_for_progress(run)
    assert run.state == "running"
    saved = run.status.checkpoint_step
    assert_usable(run, saved)
    assert run.latest_checkpoint().step == saved
    assert warning.partition(" (")[0] in trainer.said()

    disk.free(trainer.pid)
    wait_until(lambda: run.status.checkpoint_step > saved, "there is another checkpoint")
    wait_until(lambda: not run.status.warning, "the warning is withdrawn")
    trainer.send(signal.SIGTERM)
    assert trainer.exit_code() == STOPPED
    step = run.status.step
    assert_usable(run, step)
    # The numbers of the steps on the full disk waited in memory.
    assert run.curve("loss", 10**6)["step"].tolist() == list(range(1, step + 1))


def test_a_run_whose_last_checkpoint_finds_no_room_fails_with_a_sentence_and_can_be_resumed(
    disk: Disk, forks: Forks
) -> None:
    run = Run(disk.path / "run")
    config = tiny(steps=FOREVER, checkpoint_every=10, sample_every=0, keep_checkpoints=1)
    trainer = forks.train(run, config)
    wait_until(lambda: run.status.checkpoint_step, "there is a checkpoint")
    disk.fill(trainer.pid)
    wait_until(lambda: run.status.warning, "the warning is shown")
    trainer.send(signal.SIGTERM)
    assert trainer.exit_code() == 1
    assert "Traceback" not in trainer.said()
    last_line = trainer.said().strip().splitlines()[-1]
    assert last_line.startswith("The disk is full: step-")
    assert run.state == "failed"
    assert run.status.error == last_line
    saved = run.status.checkpoint_step
    assert_usable(run, saved)

    if disk.mounted:  # a limit has ended with its process
        disk.free(trainer.pid)
    resumed = forks.train(run)
    wait_until(lambda: run.status.resumed_from == saved, "it goes on")
    wait_until(lambda: run.status.checkpoint_step > saved, "there is a new checkpoint")
    resumed.send(signal.SIGTERM)
    assert resumed.exit_code() == STOPPED
    step = run.status.step
    assert run.curve("loss", 10**6)["step"].tolist() == list(range(1, step + 1))


def test_a_full_disk_takes_neither_the_status_nor_the_numbers(disk: Disk, forks: Forks) -> None:
    run = Run(disk.path / "run")
    config = tiny(steps=FOREVER, checkpoint_every=0, sample_every=0, validate_every=0)
    trainer = forks.train(run, config)
    wait_for_state(run, "running")
    wait_for_progress(run)
    disk.fill(trainer.pid)
    wait_until(lambda: "metrics.sqlite cannot be written" in trainer.said(), "it says so")
    wait_for_progress(run)  # as the status tells it
    wait_for_progress(run)
    assert run.state == "running"
    assert trainer.said().count("metrics.sqlite") == 1  # and not once a second
    disk.free(trainer.pid)
    jobs.request(run, "stop")
    assert trainer.exit_code() == STOPPED
    step = run.status.step
    assert run.curve("loss", 10**6)["step"].tolist() == list(range(1, step + 1))


def test_a_run_cannot_be_started_on_a_full_disk_and_leaves_nothing_behind(
    disk: Disk, forks: Forks
) -> None:
    said = forks.call(start_on_full_disk, disk)
    assert said.exit_code() == 0, said.said()


def start_on_full_disk(disk: Disk) -> None:
    import os
    import resource

    disk.fill(os.getpid())
    if not disk.mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(JobError, match="run cannot be created: The disk is full"):
        jobs.start(disk.path, "run", tiny(), "cpu")
    assert not (disk.path / "run").exists()


def test_images_that_do_not_fit_get_a_sentence_and_leave_no_half_store(
    disk: Disk, forks: Forks, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(disk.path / "cache"))
    run = Run(runs_dir / "run")
    # 12 MB where there are 4.
    assert forks.call(limited_training, run.path, disk).exit_code() == 1
    assert run.state == "failed"
    assert "MiB free. Free some space, or set DIFFUSION_LAB_CACHE_DIR" in run.status.error or (
        "The disk is full: the decoded images do not fit" in run.status.error
    )
    assert list((disk.path / "cache").iterdir()) == []


def limited_training(path: Path, disk: Disk) -> int:
    import os

    from tests.faults.processes import command_line
    from tests.tiny_runs import create

    if not disk.mounted:
        disk.fill(os.getpid())
    config = tiny(data="digits", image_size=48)
    create(path, config)
    return command_line(["train", "--run", str(path), "--quiet"])


def test_a_disk_that_fills_up_under_the_store_gets_a_sentence_and_leaves_no_half_store(
    disk: Disk, forks: Forks
) -> None:
    said = forks.call(build_on_filling_disk, disk)
    assert said.exit_code() == 0, said.said()
    assert list((disk.path / "cache").iterdir()) == []


def build_on_filling_disk(disk: Disk) -> None:
    import os

    def fill(ready: int, count: int) -> None:
        if ready == 250:  # the first chunk of several
            disk.fill(os.getpid())

    with pytest.raises(DataError, match="The disk is full: the decoded images do not fit"):
        build_store("digits:1000", 32, cache_dir=disk.path / "cache", workers=0, progress=fill)
