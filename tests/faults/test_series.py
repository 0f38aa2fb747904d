"""A series of images that is killed, interrupted or out of disk: it goes on, and is the same."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling.series import Series, read_image
from tests.faults.disks import Disk, need_mounted
from tests.faults.processes import Command, Forks, die_at, wait_until
from tests.tiny_runs import write_run

STOPPED = 130


@pytest.fixture
def run(runs_dir: Path) -> Run:
    return Run(write_run(runs_dir, "cars", 20))


def words(run: Run, out: Path, *more: object) -> list[str]:
    return [str(w) for w in ("sample", "--run", run.path, "--out", f"{out}/", *more)]


def finish(forks: Forks, run: Run, series: Series) -> None:
    """Go on with it to its end, and compare it with its order drawn at once."""
    assert forks.command(*words(run, series.path, "--resume")).exit_code() == 0
    assert series.state == "finished"
    spec = series.spec
    whole = to_uint8(spec.make(load_model(run.checkpoint(spec.step))))
    found = np.stack([read_image(series.image(k)) for k in range(spec.n)])
    assert np.array_equal(found, whole)


@pytest.mark.parametrize("moment", ["half 000021.png", "after 000021.png"])
def test_a_killed_series_is_lost_and_goes_on_to_the_same_images(
    run: Run, tmp_path: Path, forks: Forks, moment: str
) -> None:
    series = Series(tmp_path / "many")
    killed = forks.call(die_at, moment, words(run, series.path, "--n", 40, "--steps", 2))
    assert killed.exit_code() == -signal.SIGKILL
    assert series.state == "lost"
    assert len(series.numbers()) == 21 + moment.startswith("after")
    finish(forks, run, series)


def under_way(forks: Forks, run: Run, series: Series) -> Command:
    """A drawing that takes a good while, with a first batch on the disk."""
    command = forks.command(*words(run, series.path, "--n", 200, "--sampler", "ddpm"))
    wait_until(lambda: len(series.numbers()) >= 16, "the first images are there")
    return command


def test_control_c_stops_a_series_with_130_and_says_how_to_go_on(
    run: Run, tmp_path: Path, forks: Forks
) -> None:
    series = Series(tmp_path / "many")
    command = under_way(forks, run, series)
    command.send(signal.SIGINT)
    assert command.exit_code() == STOPPED
    assert series.state == "stopped"
    assert "of 200 images. Continue with: python -m diffusion_core sample" in command.said()
    finish(forks, run, series)


def test_a_full_disk_ends_a_series_with_a_sentence_and_costs_no_image(
    run: Run, disk: Disk, forks: Forks
) -> None:
    series = Series(disk.path / "many")
    command = under_way(forks, run, series)
    need_mounted(disk, "images are smaller than the limit that stands in for a full disk.")
    disk.fill(command.pid)
    assert command.exit_code() == 1
    assert series.state == "failed"
    assert "The disk is full: 0000" in command.said()
    assert "could not be written" in series.status.error
    kept = len(series.numbers())
    assert kept >= 16
    disk.free(command.pid)
    finish(forks, run, series)
