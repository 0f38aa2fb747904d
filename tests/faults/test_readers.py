"""Readers beside a trainer that writes as often as it can: they never see half of anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from diffusion_core.files import folder_size
from diffusion_core.runs import checkpoint
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status import RunState
from tests.faults.processes import Forks, tiny, wait_until


@pytest.mark.long
def test_whoever_reads_while_it_trains_sees_whole_files_only(runs_dir: Path, forks: Forks) -> None:
    run = Run(runs_dir / "run")
    often = {"checkpoint_every": 1, "sample_every": 1, "sample_steps": 1, "validate_every": 1}
    trainer = forks.train(run, tiny(steps=40, keep_checkpoints=2, **often))
    wait_until(lambda: run.status.state, "there is a status")
    rounds, steps, points = 0, [0], [0]
    while trainer.process.poll() is None:
        rounds += 1
        status = run.status
        assert status.pid == trainer.pid
        assert status.total == 40
        assert run.state in set(RunState) - {"failed", "lost"}
        assert run.checkpoints()[1] == []  # one that was just removed as too old is not broken
        latest = run.latest_checkpoint()
        steps.append(latest.step if latest else 0)
        points.append(run.curve("loss")["step"].size)
        for _, path in run.samples():
            Image.open(path).load()
        assert [found.name for found in list_runs(runs_dir)] == ["run"]
        assert folder_size(run.path) > 0
        assert run.config is None or run.config.steps == 40
    assert trainer.exit_code() == 0
    assert rounds > 20
    assert len(set(steps)) > 5
    # What was seen only grew.
    assert steps == sorted(steps)
    assert points == sorted(points)
    assert run.latest_checkpoint().step == 40


def test_a_checkpoint_that_is_removed_under_its_reader_says_so(
    runs_dir: Path, forks: Forks
) -> None:
    run = Run(runs_dir / "run")
    assert forks.train(run, tiny(steps=2)).exit_code() == 0
    found = run.latest_checkpoint()
    os.unlink(found.path)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"step-00000002\.safetensors can no longer be read"
    ):
        checkpoint.load_weights(found)
    assert run.latest_checkpoint() is None
    assert run.checkpoints() == ([], [])
