"""What was found in a data set: said on the form, in the terminal, in the run and on its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core.data.found import found
from diffusion_core.runs.run import load_run
from diffusion_core.runs.status import StatusRecord, read_status, write_status
from diffusion_core.training.trainer import train
from tests import image_files, tiny_runs
from tests.pages.app import words
from tests.pages.training.test_training import open_training, write_run

SENTENCE = "20 images in 2 classes (cat, dog). 40 of 60 files cannot be read: cat/10.jpg, "


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """20 images, and 40 that are cut short."""
    for k in range(60):
        file = tmp_path / "images" / ("dog" if k % 2 else "cat") / f"{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_files.one_pixel() if k < 20 else b"\xff\xd8\xff")
    for k in (10, 12, 14):
        good = tmp_path / "images" / "cat" / f"{k}.jpg"
        good.rename(good.with_name(f"{90 + k}.jpg"))
        good.write_bytes(b"")
    for k in (20, 22, 24):
        (tmp_path / "images" / "cat" / f"{k}.jpg").unlink()
    return tmp_path / "images"


def test_it_is_said_in_the_terminal_and_in_the_run_before_training(
    images: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_runs.tiny(data=f"folder:{images}", steps=1, validation_count=2)
    said = []

    def on_step(step: int, steps: int, loss: float | None) -> None:
        said.append((capsys.readouterr().err, load_run(runs_dir / "run").status.found))

    assert train(runs_dir / "run", config, device=torch.device("cpu"), on_step=on_step)
    [(terminal, status)] = said
    assert f"{images}: {SENTENCE}cat/12.jpg, cat/14.jpg, …" in terminal
    assert status is not None
    assert (status.images, status.class_names) == (20, ("cat", "dog"))
    app = open_training(run="run")
    assert SENTENCE in words(app).replace("`", "")
    assert any(SENTENCE in each.value.replace("`", "") for each in app.warning)


def test_the_form_says_what_is_in_a_folder_before_the_start(images: Path) -> None:
    (images / "train.jpg").write_bytes(image_files.one_pixel())
    app = open_training(data="folder", folder=str(images))
    shown = words(app).replace("`", "")
    assert "60 images in 2 classes (cat, dog)." in shown
    assert "1 image beside the class folders is left out: train.jpg." in shown
    app.text_input(key="folder").set_value("/there/is/nothing").run()
    assert "There is no folder /there/is/nothing" in words(app).replace("`", "")
    assert not app.exception


def test_the_form_says_nothing_of_a_folder_that_takes_long(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.services.cached.LOOK_SECONDS", -1.0)
    app = open_training(data="folder", folder=str(images.parent / "images"))
    assert not app.exception
    assert "images in 2 classes" not in words(app)


def test_names_from_outside_are_shown_and_do_nothing(runs_dir: Path) -> None:
    path = write_run(runs_dir, "odd")
    evil = "![x](http://there/x.png)"
    there = found(9, [evil, "b" * 300], [("<b>.jpg", "unreadable"), ("$x$.jpg", "again")])
    write_status(path, read_status(path).replace(found=there))
    assert read_status(path).found == there
    app = open_training(run="odd")
    assert not app.exception
    [warning] = [each.value for each in app.warning if "9 images" in each.value]
    assert f"`({evil}" in warning or f"`{evil}" in warning
    assert "b" * 50 not in warning


@pytest.mark.parametrize(
    "damage", ['"text"', "[]", '{"images": -1}', '{"images": 1e400}', "{}", '{"images": 1}']
)
def test_a_damaged_record_of_it_is_none(damage: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(f'{{"state": "finished", "found": {damage}}}')
    assert read_status(tmp_path) == StatusRecord(state=read_status(tmp_path).state)
