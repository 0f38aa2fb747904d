"""What a run has cost: images, hours without pauses, and energy where all of it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_core.runs.cost import ENERGY, cost_of, training_seconds
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.run import Run
from tests.tiny_runs import TINY, write_run


def test_training_time_leaves_out_pauses_and_keeps_long_steps() -> None:
    # A step each 2 s, a strip that takes 30 s, a night's pause, a clock that is set back.
    wall = np.array([100.0, 102, 104, 134, 136, 40_000, 40_002, 39_000, 39_002])
    assert training_seconds(wall).tolist() == [0, 2, 4, 34, 36, 38, 40, 42, 44]
    # Where a step takes three minutes, three minutes are no pause.
    assert training_seconds(np.array([0.0, 180, 360, 540])).tolist() == [0, 180, 360, 540]
    assert training_seconds(np.array([5.0])).tolist() == [0]
    assert training_seconds(np.zeros(0)).tolist() == []


def test_the_cost_of_a_run(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "run", config=TINY.replace(batch_size=8)))
    assert cost_of(run.snapshot()) == (320, None, None)
    writer = MetricsWriter(run.path / "metrics.sqlite")
    writer.add((step, "loss", 1.0, 100.0 + step) for step in range(1, 41))
    writer.add((step, ENERGY, 2.0 * step, 100.0 + step) for step in range(1, 41))
    writer.close()
    assert cost_of(run.snapshot()) == (320, 39.0, 80.0)


def test_the_energy_of_some_of_the_steps_is_not_that_of_the_run(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "run"))
    writer = MetricsWriter(run.path / "metrics.sqlite")
    writer.add([(1, "loss", 1.0, 0.0), (40, "loss", 1.0, 9.0), (20, ENERGY, 7.0, 5.0)])
    writer.close()
    assert cost_of(run.snapshot()) == (1280, 9.0, None)


def test_a_run_without_settings_has_no_count_of_images(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "run"))
    (run.path / "config.json").write_text("{")
    assert cost_of(run.snapshot()).images is None
