"""kill -9 of the server and of the trainer: what goes on, what is found again, what is lost."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from dashboard.services import demo
from diffusion_core.runs import checkpoint, jobs, queue
from diffusion_core.runs.run import Run, list_runs
from tests.faults.processes import (
    FOREVER,
    Forks,
    tiny,
    wait_for_progress,
    wait_for_state,
    wait_until,
)
from tests.pages.app import open_page


def home_says() -> str:
    """The words of Home in a dashboard that has just been opened by this process."""
    return "\n".join(element.value for element in open_page("home.py").markdown)


def serve_and_start(runs_dir: Path) -> None:
    """What the dashboard's process does when somebody starts a run; then it serves on."""
    jobs.start(runs_dir, "run", tiny(steps=FOREVER, checkpoint_every=20), "cpu")
    signal.pause()


def test_a_training_outlives_its_killed_server_and_the_next_server_shows_it(
    runs_dir: Path, forks: Forks
) -> None:
    server = forks.call(serve_and_start, runs_dir)
    run = Run(runs_dir / "run")
    wait_until(lambda: run.state == "running", "the run is running")
    os.killpg(server.pid, signal.SIGKILL)
    assert server.exit_code() == -signal.SIGKILL
    wait_for_progress(run)
    # This process has not started the run: it is the next server.
    assert [found.name for found in list_runs(runs_dir)] == ["run"]
    assert "`run` is training, step" in home_says()
    jobs.request(run, "stop")
    wait_for_state(run, "stopped")
    assert run.latest_checkpoint().step == run.status.step


def test_a_killed_trainer_is_lost_and_goes_on_from_its_last_checkpoint(
    runs_dir: Path, forks: Forks
) -> None:
    run = Run(runs_dir / "run")
    config = tiny(steps=40, checkpoint_every=5, keep_checkpoints=0)
    trainer = forks.train(run, config, die="after step-00000016.png")
    assert trainer.exit_code() == -signal.SIGKILL
    assert run.state == "lost"
    assert "`run` is lost" in home_says()
    assert run.latest_checkpoint().step == 15
    before = {path: path.read_bytes() for _, path in [*run.weights(), *run.samples()]}

    assert forks.command("resume", run.path).exit_code() == 0
    wait_for_state(run, "finished")
    assert run.status.resumed_from == 15
    assert run.curve("loss")["step"].tolist() == list(range(1, 41))
    assert run.latest_checkpoint().step == 40
    assert {path: path.read_bytes() for path in before} == before


def test_a_trainer_killed_while_it_starts_is_lost_at_once_and_can_be_started_again(
    runs_dir: Path, forks: Forks, true_python: None
) -> None:
    run = jobs.start(runs_dir, "run", tiny(steps=4), "cpu")
    assert run.state == "starting"
    os.kill(run.status.pid, signal.SIGKILL)
    wait_until(lambda: run.state == "lost", "the run is lost", seconds=10)
    assert not run.snapshot().begun
    jobs.resume(run)
    wait_for_state(run, "finished")
    assert Run(run.path).config.steps == 4


@pytest.fixture(scope="module")
def whole_run(module_forks: Forks) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing happened to."""
    run = Run(module_forks.folder / "whole")
    assert module_forks.train(run, tiny()).exit_code() == 0
    return checkpoint.load_weights(run.latest_checkpoint())


@pytest.mark.parametrize(
    ("moment", "usable"),
    [
        ("half status.json", []),
        ("half config.json", []),
        ("half step-00000006.pt", [2, 4]),
        ("before step-00000006.safetensors", [2, 4]),
        ("after step-00000006.safetensors", [2, 4, 6]),
    ],
)
def test_a_kill_while_a_file_is_written_leaves_no_half_file_and_loses_no_step(
    moment: str, usable: list[int], runs_dir: Path, forks: Forks, whole_run: dict
) -> None:
    run = Run(runs_dir / "run")
    assert forks.train(run, tiny(), die=moment).exit_code() == -signal.SIGKILL

    good, broken = run.checkpoints()
    assert [found.step for found in good] == usable
    assert broken == []
    for _, path in run.samples():
        Image.open(path).load()
    last = usable[-1] if usable else 0
    assert run.curve("loss")["step"].tolist()[:last] == list(range(1, last + 1))
    assert run.state == "lost"
    # One that was killed before it had written its settings is started again with them.
    assert forks.train(run, None if run.config else tiny()).exit_code() == 0
    assert run.state == "finished"
    assert run.status.resumed_from == last
    assert run.curve("loss")["step"].tolist() == list(range(1, 9))
    assert run.curve("validation_loss")["step"].tolist() == [2, 4, 6, 8]
    resumed = checkpoint.load_weights(run.latest_checkpoint())
    assert all(torch.equal(resumed[name], whole_run[name]) for name in whole_run)
    assert not list(run.path.rglob(".*.tmp"))


def start_a_demo_run_and_die(write: int) -> None:
    """What a demo's server does for a visitor, killed by -9 when it has written so often."""
    fsync, writes = os.fsync, itertools.count()

    def dying_fsync(file: int) -> None:
        if next(writes) == write:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = dying_fsync  # type: ignore[assignment]
    queue._spawn = lambda run: None  # no trainer: its run is what the server has left of it
    demo.start("digits", 10)


def test_a_demo_run_is_removed_whenever_its_server_was_killed_while_it_started(
    runs_dir: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", "1")
    monkeypatch.setattr(demo, "CAPS", demo.CAPS.model_copy(update={"minutes": 0}))
    for write in itertools.count():
        started = forks.call(start_a_demo_run_and_die, write)
        ended = started.exit_code()
        for _ in range(2):  # it takes one that waits out of the queue, and then removes it
            demo.remove_old(runs_dir)
        assert [path.name for path in runs_dir.iterdir() if path.name[0] != "."] == []
        if ended == 0:
            break
        assert ended == -signal.SIGKILL, started.said()
    assert write > 6  # settings, status and mark: each is a file and its name in a folder
    assert not list(runs_dir.glob(f"{demo.BUILDING}/*"))
