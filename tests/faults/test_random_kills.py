"""kill -9 of a trainer at a hundred random moments: only what came after a checkpoint is lost."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_core.runs.checkpoint import load_weights
from diffusion_core.runs.run import Run
from tests.faults.processes import Command, Forks, tiny

KILLS = 100
EVERY = 5  # steps from checkpoint to checkpoint
CONFIG = tiny(steps=600, checkpoint_every=EVERY, keep_checkpoints=3, sample_every=50)


def killed_after(seconds: float, trainer: Command, run: Run) -> bool:
    """Whether it is killed now, in the middle of its work."""
    time.sleep(seconds)
    if trainer.process.poll() is None:
        trainer.kill()
    return trainer.exit_code() == -signal.SIGKILL and run.state != "finished"


def assert_nothing_but_the_last_steps_is_lost(run: Run, seen: int) -> int:
    """`seen`: a step that was made before the kill. Returns the step that it goes on from."""
    good, broken = run.checkpoints()
    assert broken == []
    for _, path in run.samples():
        Image.open(path).load()
    last = good[-1].step if good else 0
    assert last > seen - 2 * EVERY  # the step's own checkpoint may have been under way
    assert run.curve("loss", 10**6)["step"].tolist()[:last] == list(range(1, last + 1))
    return last


@pytest.mark.long
def test_a_hundred_kills_at_random_moments_cost_no_more_than_the_last_steps(
    runs_dir: Path, forks: Forks
) -> None:
    whole = Run(runs_dir / "whole")
    start = time.monotonic()
    assert forks.train(whole, CONFIG).exit_code() == 0
    duration = time.monotonic() - start
    expected = load_weights(whole.latest_checkpoint())
    curve = whole.curve("loss", 10**6)["value"].tolist()

    moments = random.Random(0)
    kills, number = 0, 0
    while kills < KILLS:
        number += 1
        run = Run(runs_dir / f"run-{number}")
        trainer = forks.train(run, CONFIG)
        last = 0
        # From the process's first moment to well into its steps.
        while killed_after(moments.uniform(0, duration / 5), trainer, run):
            kills += 1
            assert run.state == "lost"
            last = assert_nothing_but_the_last_steps_is_lost(run, run.status.step)
            trainer = forks.train(run)
        assert run.state == "finished"
        assert run.status.resumed_from >= last
        assert run.curve("loss", 10**6)["value"].tolist() == curve
        weights = load_weights(run.latest_checkpoint())
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert not list(run.path.rglob(".*.tmp"))
