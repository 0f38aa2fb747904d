"""Event files as TensorBoard itself reads them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion_core.runs.metrics import BIN_NAMES
from diffusion_core.training.event_files import EventWriter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def read(run: Path) -> EventAccumulator:
    """All points, not a sample of them."""
    everything = {"scalars": 0, "images": 0}
    return EventAccumulator(str(run / "tensorboard"), size_guidance=everything).Reload()


def points(run: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, round(point.value, 6)) for point in read(run).Scalars(tag)]


def rows(first: int, last: int, value: float) -> list[tuple[int, str, float, float]]:
    return [(step, "loss", value, 100.0 + step) for step in range(first, last + 1)]


def test_tensorboard_reads_what_is_written(run: Path) -> None:
    writer = EventWriter(run)
    writer.add([(1, "loss", 0.5, 12.5), (2, "loss", 0.25, 13.5), (2, "validation_loss", 0.125, 14)])
    writer.close()
    found = read(run)
    assert found.Tags()["scalars"] == ["loss", "validation_loss"]
    assert [(p.step, p.value, p.wall_time) for p in found.Scalars("loss")] == [
        (1, 0.5, 12.5),
        (2, 0.25, 13.5),
    ]


def test_rows_can_be_read_while_the_run_goes_on(run: Path) -> None:
    writer = EventWriter(run)
    writer.add(rows(1, 3, 0.5))
    assert len(points(run, "loss")) == 3
    writer.close()


def test_the_tenths_of_the_schedule_are_one_group(run: Path) -> None:
    writer = EventWriter(run)
    writer.add((1, name, 0.5, 0.0) for name in BIN_NAMES)
    writer.close()
    assert read(run).Tags()["scalars"] == [f"loss_by_timestep/t{k}" for k in range(10)]


def test_values_that_are_no_finite_numbers_are_left_out(run: Path) -> None:
    writer = EventWriter(run)
    writer.add((step, "loss", value, 0.0) for step, value in enumerate([1.0, np.nan, np.inf, 2.0]))
    writer.close()
    assert points(run, "loss") == [(0, 1.0), (3, 2.0)]


@pytest.mark.parametrize("closed", [True, False], ids=["stopped", "killed"])
def test_a_resumed_run_has_no_step_twice(run: Path, closed: bool) -> None:
    first = EventWriter(run)
    first.add(rows(1, 8, 0.5))
    if closed:
        first.close()
    second = EventWriter(run, 5)
    second.add(rows(6, 7, 0.25))
    second.close()
    assert points(run, "loss") == [(s, 0.5) for s in range(1, 6)] + [(6, 0.25), (7, 0.25)]
    third = EventWriter(run, 0)  # begun anew
    third.add(rows(1, 2, 0.125))
    third.close()
    assert points(run, "loss") == [(1, 0.125), (2, 0.125)]
    assert len(list((run / "tensorboard").iterdir())) == 3


def test_strips_are_images(run: Path) -> None:
    strip = run / "step-00000025.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(strip)
    writer = EventWriter(run)
    writer.add_strip(25, strip)
    writer.close()
    (image,) = read(run).Images("samples")
    assert (image.step, image.width, image.height) == (25, 64, 16)
    shown = Image.open(io.BytesIO(image.encoded_image_string))
    assert np.array_equal(np.asarray(shown), pixels)


class NearlyFull(io.FileIO):
    """A disk that takes `room` more bytes of this file."""

    room = 0

    def write(self, data) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = super().write(bytes(data[: self.room]))
        NearlyFull.room -= written
        return written


@pytest.mark.parametrize("room", [0, 7, 60, 333])
def test_a_full_disk_is_said_once_and_loses_nothing(
    room: int, run: Path, capsys, monkeypatch
) -> None:
    """Also where it takes a part of a record: TensorBoard reads nothing behind a broken one."""
    monkeypatch.setattr(NearlyFull, "room", room)
    monkeypatch.setattr("diffusion_core.training.event_files.io.FileIO", NearlyFull)
    writer = EventWriter(run)
    for step in range(1, 11):
        writer.add(rows(step, step, 0.5))
    assert capsys.readouterr().err.count("No space left") == 1
    monkeypatch.setattr(NearlyFull, "room", 10**6)
    writer.add(rows(11, 12, 0.5))
    writer.close()
    assert points(run, "loss") == [(step, 0.5) for step in range(1, 13)]


def test_a_folder_that_cannot_be_made_does_not_end_the_training(run: Path, capsys) -> None:
    (run / "tensorboard").write_text("a file in its place")
    writer = EventWriter(run)
    writer.add(rows(1, 2, 0.5))
    writer.close()
    assert capsys.readouterr().err.count("TensorBoard's files cannot be written") == 1
