"""Designed schedules: files beside the runs, and runs that keep the points themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_core.cli.main import make_parser
from diffusion_core.cli.train import given_settings
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import USUAL_POINTS
from diffusion_core.runs.config import ConfigError, RunConfig, with_settings
from diffusion_core.runs.designs import DESIGNS
from diffusion_core.runs.presets import build_schedule, preset
from diffusion_core.saved import SaveError

POINTS = ((0.0, 9.0), (0.3, 2.5), (1.0, -8.0))


def from_command_line(runs_dir: Path, *words: str) -> RunConfig:
    """As `train` reads them."""
    parsed = make_parser().parse_args(["train", "--run", str(runs_dir / "x"), *words])
    return with_settings(preset("tiny"), given_settings(parsed))


def test_a_run_keeps_the_points_of_a_saved_schedule_that_is_deleted(runs_dir: Path) -> None:
    DESIGNS.save(runs_dir, "Steep", points=POINTS)
    config = from_command_line(runs_dir, "--schedule", "Steep")
    DESIGNS.delete(runs_dir, "Steep")
    again = RunConfig.from_dict(json.loads(config.to_json()))
    schedule = build_schedule(again)
    wanted = NoiseSchedule("designed", schedule.timesteps, points=POINTS)
    assert np.array_equal(schedule.exact_signal, wanted.exact_signal)
    with pytest.raises(ConfigError, match="no schedule 'Steep'; none is saved"):
        from_command_line(runs_dir, "--schedule", "Steep")


def test_a_designed_schedule_without_points_or_with_wrong_ones_gets_a_sentence(
    runs_dir: Path,
) -> None:
    with pytest.raises(ConfigError, match="needs its points"):
        from_command_line(runs_dir, "--set", "schedule.kind=designed")
    with pytest.raises(ConfigError, match="falls from point to point"):
        points = "schedule.points=[[0, 1], [1, 2]]"
        from_command_line(runs_dir, "--set", "schedule.kind=designed", "--set", points)


def test_the_shift_of_a_run_is_on_its_schedule() -> None:
    """Hoogeboom et al. 2023, equation 6."""
    config = preset("small")
    plain = build_schedule(config)
    shifted = build_schedule(config.replace(schedule=config.schedule | {"shift_size": 128}))
    ratio = (shifted.exact_signal / shifted.exact_spread) / (
        plain.exact_signal / plain.exact_spread
    )
    assert np.allclose(ratio, 64 / 128, rtol=1e-9)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (((0.0, 9.0), (1.0, 9.0)), "falls from point to point"),
        (((0.0, float("nan")), (1.0, -9.0)), "points"),
        (USUAL_POINTS * 9, "points"),
    ],
)
def test_points_are_checked_where_they_are_saved_and_read(
    points: tuple[tuple[float, float], ...], sentence: str, runs_dir: Path
) -> None:
    with pytest.raises(SaveError, match=sentence):
        DESIGNS.save(runs_dir, "odd", points=points)
    DESIGNS.save(runs_dir, "good", points=POINTS)
    (runs_dir / ".schedules" / "odd.json").write_text(json.dumps({"name": "x", "points": points}))
    found, problems = DESIGNS.read(runs_dir)
    assert list(found) == ["good"] and found["good"].points == POINTS
    assert len(problems) == 1 and "odd.json" in problems[0]
