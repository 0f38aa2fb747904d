"""A series of images: the same however it is drawn, and true about how far it is."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_core.files import DiskFull
from diffusion_core.media.images import to_uint8
from diffusion_core.runs.checkpoint import Checkpoint, LoadedModel, load_model
from diffusion_core.runs.run import Run
from diffusion_core.sampling import series as series_folder
from diffusion_core.sampling.metadata import Kind, Made, read
from diffusion_core.sampling.sample import Cancelled
from diffusion_core.sampling.series import Series, SeriesError
from diffusion_core.sampling.spec import EACH_IN_TURN, SamplingSpec
from tests import image_files
from tests.tiny_runs import CLASSES, write_checkpoint, write_run

N, BATCH = 7, 3
SPEC = SamplingSpec(run="cars", step=20, n=N, steps=2, seed=5, classes=CLASSES, label=EACH_IN_TURN)


@pytest.fixture
def checkpoint(runs_dir: Path) -> Checkpoint:
    return Run(write_run(runs_dir, "cars", 20)).checkpoint(20)


@pytest.fixture
def loaded(checkpoint: Checkpoint) -> LoadedModel:
    return load_model(checkpoint)


@pytest.fixture
def series(checkpoint: Checkpoint) -> Series:
    return make(checkpoint, "many")


def make(checkpoint: Checkpoint, name: str, spec: SamplingSpec = SPEC) -> Series:
    run = checkpoint.path.parent.parent
    return series_folder.create(run / series_folder.FOLDER / name, spec, checkpoint, BATCH)


def turns(series: Series, loaded: LoadedModel, **more) -> Generator[int, None, Series]:
    return series_folder.generate(series, lambda: loaded, "cpu", **more)


def pixels(series: Series) -> np.ndarray:
    return np.stack([series_folder.read_image(series.image(k)) for k in range(N)])


def in_batches(loaded: LoadedModel, size: int) -> np.ndarray:
    """All images of SPEC, generated in batches of `size`.

    A CPU may round bfloat16 differently for another batch size, so the pixels of a series are
    compared with those of the same batches; see `assert_same_images` for other batches.
    """
    make = SamplingSpec.make
    batches = [make(SPEC, loaded, None, k, min(size, N - k)) for k in range(0, N, size)]
    return np.concatenate([to_uint8(batch) for batch in batches])


def assert_same_images(found: np.ndarray, wanted: np.ndarray) -> None:
    """The same images to the rounding of bfloat16: 8 bits, where a pixel has as many."""
    error = np.abs(found.astype(int) - wanted.astype(int))
    assert error.mean() < 1 and error.max() <= 8


def test_a_series_in_batches_is_the_same_as_all_at_once(
    series: Series, loaded: LoadedModel
) -> None:
    assert (series.state, series.numbers()) == ("queued", [])
    assert list(turns(series, loaded)) == [3, 6, 7]
    assert series.state == "finished"
    assert series.status.step == series.status.total == N
    assert series.status.seconds > 0
    assert np.array_equal(pixels(series), in_batches(loaded, BATCH))
    assert_same_images(pixels(series), to_uint8(SPEC.make(loaded)))


def test_each_image_carries_its_own_settings(series: Series, loaded: LoadedModel) -> None:
    list(turns(series, loaded))
    assert read(series.image(4).read_bytes()) == Made(SPEC, 4, Kind.IMAGE)


def test_a_series_that_was_left_is_gone_on_with_and_is_the_same(
    series: Series, loaded: LoadedModel, checkpoint: Checkpoint
) -> None:
    work = turns(series, loaded)
    assert next(work) == 3
    assert series.state == "running"
    work.close()
    assert series.state == "stopped"
    whole = series.image(0).read_bytes()
    series.image(0).write_bytes(whole[: len(whole) // 2])  # cut short
    series.image(1).unlink()
    series.image(2).write_bytes(b"")
    (series.path / "pictures" / ".000005.png.99999999-1.tmp").write_bytes(b"half")
    series_folder.line_up(series, checkpoint)
    assert series.state == "queued"
    assert list(turns(series, loaded)) == [3, 6, 7]
    assert series.image(0).read_bytes() == whole
    assert np.array_equal(pixels(series), in_batches(loaded, BATCH))
    assert sorted(p.name for p in (series.path / "pictures").iterdir()) == [
        f"{k:06d}.png" for k in range(N)
    ]


def test_what_is_whole_is_not_drawn_again_and_a_batch_is_drawn_whole(
    series: Series, loaded: LoadedModel, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(turns(series, loaded))
    series.image(4).unlink()
    asked = []
    plain = SamplingSpec.make

    def spy(self, loaded, on_step, first, n, guide):
        asked.append((first, n))
        return plain(self, loaded, on_step, first, n, guide)

    monkeypatch.setattr(SamplingSpec, "make", spy)
    stamp = series.image(3).stat().st_mtime_ns
    series_folder.line_up(series, checkpoint)
    assert list(turns(series, loaded)) == [N]
    assert asked == [(3, 3)]
    assert series.image(3).stat().st_mtime_ns == stamp


def test_without_enough_memory_the_batch_is_halved_and_stays_so(
    series: Series, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SamplingSpec.make

    def short(self, loaded, on_step, first, n, guide):
        if n > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, loaded, on_step, first, n, guide)

    monkeypatch.setattr(SamplingSpec, "make", short)
    assert list(turns(series, loaded)) == [1, 2, 3, 4, 5, 6, 7]
    assert series.record.batch == 1
    monkeypatch.undo()
    assert np.array_equal(pixels(series), in_batches(loaded, 1))
    assert_same_images(pixels(series), to_uint8(SPEC.make(loaded)))


def test_memory_that_is_too_short_for_one_image_is_a_failure_with_its_reason(
    series: Series, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(SamplingSpec, "make", short)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        list(turns(series, loaded))
    assert series.state == "failed"
    assert "can't allocate memory" in series.status.error


def test_a_request_to_stop_is_heard_in_the_midst_of_a_batch_and_only_once(
    series: Series, loaded: LoadedModel, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_folder, "POLL_SECONDS", 0.0)
    work = turns(series, loaded)
    next(work)
    series_folder.cancel(series)
    with pytest.raises(Cancelled):
        next(work)
    assert (series.state, len(series.numbers())) == ("stopped", 3)
    (series.path / "request.json").write_text('{"action": "stop", "time": 9e9}')
    series_folder.line_up(series, checkpoint)
    assert list(turns(series, loaded)) == [6, 7]


def test_what_is_no_image_of_the_series_is_left_aside(series: Series, loaded: LoadedModel) -> None:
    list(turns(series, loaded))
    huge = series.path / "pictures" / "999999999.png"
    huge.write_bytes(image_files.huge_png(20_000, 10_000))
    assert series.numbers() == list(range(N))
    assert series_folder.read_image(huge) is None
    (series.path / "order.json").write_text("{")
    assert series.numbers() == list(range(N))


def test_a_full_disk_is_said_where_a_series_is_begun(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "many").mkdir()
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(DiskFull, match="The disk is full"):
        series_folder.create(tmp_path / "many", SPEC, checkpoint, 3)


def test_what_nobody_has_begun_is_cancelled_at_once(series: Series, checkpoint: Checkpoint) -> None:
    series_folder.cancel(series)
    assert series.state == "stopped"
    series_folder.cancel(series)  # once more: nothing to do
    assert not (series.path / "request.json").exists()


def test_only_one_draws_a_series(
    series: Series, loaded: LoadedModel, checkpoint: Checkpoint
) -> None:
    work = turns(series, loaded)
    next(work)
    with pytest.raises(SeriesError, match="Another process is generating many"):
        next(turns(series, loaded))
    with pytest.raises(SeriesError, match="is already being generated"):
        series_folder.line_up(series, checkpoint)
    with pytest.raises(SeriesError, match="many is running; cancel it first"):
        series_folder.remove(series)
    assert list(work) == [6, 7]


def test_a_process_that_is_gone_leaves_a_series_lost(series: Series, loaded: LoadedModel) -> None:
    status = json.loads((series.path / "status.json").read_text())
    gone = status | {"state": "running", "heartbeat": 0.0, "process_started": 1.0}
    (series.path / "status.json").write_text(json.dumps(gone))
    assert series.state == "lost"
    (series.path / "status.json").unlink()
    assert series.state == "lost"


def test_a_folder_that_goes_away_gets_a_sentence_and_is_not_made_anew(
    series: Series, loaded: LoadedModel
) -> None:
    work = turns(series, loaded)
    next(work)
    shutil.rmtree(series.path)
    with pytest.raises(SeriesError, match="The folder of many no longer exists"):
        next(work)
    with pytest.raises(SeriesError, match="The folder of many no longer exists"):
        next(turns(series, loaded))
    assert not series.path.exists()


def test_a_checkpoint_that_was_written_anew_does_not_go_on_with_an_old_series(
    series: Series, checkpoint: Checkpoint
) -> None:
    series_folder.cancel(series)
    run = checkpoint.path.parent.parent
    write_checkpoint(run, 20)
    with pytest.raises(SeriesError, match="step 20 was overwritten since many was started"):
        series_folder.line_up(series, Run(run).checkpoint(20))


def test_a_name_is_taken_once_and_the_newest_series_comes_first(
    series: Series, checkpoint: Checkpoint
) -> None:
    with pytest.raises(SeriesError, match="many already exists; choose another name"):
        make(checkpoint, "many")
    other = make(checkpoint, "other")
    run = checkpoint.path.parent.parent
    assert [each.name for each in series_folder.list_series(run)] == ["other", "many"]
    series_folder.cancel(other)
    series_folder.remove(other)
    assert series_folder.list_series(run) == [series]
    shutil.rmtree(run)
    with pytest.raises(SeriesError, match="no longer exists"):
        make(checkpoint, "third")


def test_settings_that_are_damaged_are_named(series: Series) -> None:
    order = {"run": "cars", "step": 20}
    for values, sentence in (
        ("{", "many cannot be used; delete it. order.json is not readable JSON."),
        ({"order": order | {"n": -1}}, "order.json: order.n is -1; it must"),
        ({"order": order | {"label": "van"}, "checkpoint_time": 1.0}, "There is no class 'van'"),
        ({"order": order, "checkpoint_time": 1.0, "batch": 0}, "order.json: batch is 0; it must"),
    ):
        text = values if isinstance(values, str) else json.dumps(values)
        (series.path / "order.json").write_text(text)
        with pytest.raises(SeriesError, match=re.escape(sentence)):
            _ = series.spec


def test_the_zip_has_every_image_as_it_is_and_the_settings(
    series: Series, loaded: LoadedModel
) -> None:
    list(turns(series, loaded))
    buffer = io.BytesIO()
    assert series_folder.write_zip(series, buffer) == N
    archive = zipfile.ZipFile(buffer)
    assert archive.testzip() is None
    assert archive.namelist() == ["settings.json", *(f"many/{k:06d}.png" for k in range(N))]
    assert archive.read("many/000004.png") == series.image(4).read_bytes()
    record = json.loads(archive.read("settings.json"))
    assert SamplingSpec.from_dict(record["order"]) == SPEC
    assert len(buffer.getvalue()) < 2 * sum(series.image(k).stat().st_size for k in range(N))


def test_the_grid_has_a_column_for_each_class_and_what_is_missing_is_black(
    series: Series, loaded: LoadedModel
) -> None:
    with pytest.raises(SeriesError, match="many has no images yet"):
        series_folder.grid_of(series)
    list(turns(series, loaded))
    series.image(4).write_bytes(b"")
    whole = series_folder.grid_of(series)
    assert whole.shape == (3 * 16, 3 * 16, 3)
    found = in_batches(loaded, BATCH)
    assert np.array_equal(whole[16:32, 32:48], found[5])
    assert not whole[16:32, 16:32].any()
    assert not whole[32:, 16:].any()  # no seventh, and no eighth


def test_a_grid_of_too_many_pixels_is_scaled_down(series: Series, loaded: LoadedModel) -> None:
    list(turns(series, loaded))
    whole = series_folder.grid_of(series, pixels=3 * 3 * 8 * 8)
    assert whole.shape == (3 * 8, 3 * 8, 3)
    # Each pixel is the mean of four.
    mean = in_batches(loaded, BATCH)[0].reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(whole[:8, :8] - mean).max() <= 1


def test_batches_are_smaller_where_images_are_large_or_steps_are_many() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    spec = SamplingSpec(run="cars", step=20, steps=20)
    assert [series_folder.batch_for(spec, size, cpu) for size in (32, 64, 256)] == [40, 16, 1]
    assert series_folder.batch_for(SamplingSpec(run="cars", step=20, steps=300), 64, cpu) == 4
    assert series_folder.batch_for(spec, 64, cuda) == 256
