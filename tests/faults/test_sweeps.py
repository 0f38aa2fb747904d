"""Sweeps of real trainers: they go on by themselves, and after kill -9 of whoever drove them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from diffusion_core.runs import sweep
from diffusion_core.runs.history import Event, read_history
from diffusion_core.runs.run import Run
from diffusion_core.runs.sweep_file import Plan, State, read_sweep
from tests.faults.processes import PATIENCE_SECONDS, Forks, die_at, tiny, wait_for_state, wait_until
from tests.forks.client import SLOW_STEPS
from tests.tiny_runs import write_run

NAMES = [f"lr-0{number}" for number in range(1, 5)]


def is_over(runs_dir: Path) -> bool:
    return read_sweep(runs_dir, "lr").state == State.OVER


@pytest.mark.long
def test_trainers_halve_a_sweep_without_a_server(runs_dir: Path, forks: Forks) -> None:
    plan = Plan(vary=["learning_rate=1e-5..1e-2:log:4"], halve_at=[4, 6])
    sweep.start(runs_dir, "lr", tiny(steps=8, validate_every=3), plan, "cpu")
    wait_until(lambda: is_over(runs_dir), "the sweep is over")
    runs = [Run(runs_dir / name) for name in NAMES]
    losses = {run.name: sweep_loss(run, 4) for run in runs}
    first, second = sorted(losses, key=losses.__getitem__)[:2]
    steps = {run.name: run.status.step for run in runs}
    finished = [run.name for run in runs if run.state == "finished"]
    [best] = finished
    assert best in (first, second)
    assert sorted(steps.values()) == [4, 4, 6, 8]
    assert {name for name, step in steps.items() if step > 4} == {first, second}
    for run in runs:
        # Nobody trained a step twice, and the rung was validated though it is no third step.
        assert run.curve("loss")["step"].tolist() == list(range(1, steps[run.name] + 1))
        assert 4 in run.curve("validation_loss")["step"]
        latest = run.latest_checkpoint()
        assert latest is not None and latest.step == steps[run.name]


def sweep_loss(run: Run, step: int) -> float:
    curve = run.curve("validation_loss")
    return float(curve["value"][curve["step"] == step][0])


@pytest.mark.long
def test_a_sweep_goes_on_after_its_driver_and_a_trainer_are_killed(
    runs_dir: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SLOW_STEPS.items():  # so that a trainer is found at work
        monkeypatch.setenv(name, value)
    write_run(runs_dir, "base", config=tiny(steps=60, sample_every=0, checkpoint_every=20))
    words = ["sweep", "lr", "--like", "base", "--halve-at", "50", "--device", "cpu"]
    words += ["--vary", "learning_rate=1e-5..1e-2:log:4"]
    # The command is killed when its plan is on the disk and nothing has been started.
    assert forks.call(die_at, "after lr.json", words).exit_code() == -signal.SIGKILL
    runs = [Run(runs_dir / name) for name in NAMES]
    assert [run.state for run in runs] == ["stopped"] * 4

    def look() -> None:
        looks = [forks.command("queue", "--runs-dir", runs_dir) for _ in range(3)]
        assert [each.exit_code() for each in looks] == [0, 0, 0]

    look()
    assert [run.status.queued_at > 0 for run in runs] == [True, False, False, False]
    wait_for_state(runs[0], "running")
    pid = runs[0].status.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: runs[0].state == "lost", "the first run is lost")
    look()  # the sweep has no process now
    wait_until(lambda: is_over(runs_dir), "the sweep is over", seconds=2 * PATIENCE_SECONDS)
    # What is lost counts as the weakest; of the others each was started once for each round.
    assert sorted(run.state for run in runs) == ["finished", "finished", "lost", "paused"]
    for run in runs:
        events = [each.event for each in read_history(run.path).entries]
        assert events.count(Event.STARTED) == 1
        assert events.count(Event.RESUMED) == (run.state == "finished")


@pytest.mark.long
def test_quality_is_measured_at_the_rung_whatever_it_may_cost(runs_dir: Path, forks: Forks) -> None:
    config = tiny(
        steps=8,
        sample_every=0,
        evaluate_every=100,
        evaluate_images=16,
        evaluate_steps=2,
        evaluate_share=0.0,
    )
    plan = Plan(vary=["learning_rate=1e-5,1e-2"], halve_at=[4])
    made = sweep.start(runs_dir, "lr", config, plan, "cpu")
    assert made.judge == "quality"
    wait_until(lambda: is_over(runs_dir), "the sweep is over")
    runs = [Run(runs_dir / name) for name in NAMES[:2]]
    for run in runs:
        assert 4 in run.curve("evaluation.sliced_wasserstein")["step"]
    [paused] = [run for run in runs if run.state == "paused"]
    assert " distance (" in paused.status.message
    [finished] = [run for run in runs if run.state == "finished"]
    assert finished.status.step == 8
