"""Runs whose images were touched, moved or copied, and new runs on the weights of others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.data.store import build_store, same_images
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.run import load_run
from diffusion_core.training.trainer import TrainingError, train
from tests.tiny_runs import DEVICE, set_running, tiny, write_run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def paint(root: Path, *classes: str, count: int = 8, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def touch(root: Path) -> None:
    for file in root.rglob("*.png"):
        os.utime(file, (1, 1))


def half_trained(run: Path, data: Path) -> Path:
    """Stopped after its first checkpoint: as killed then."""
    train(run, tiny(data=f"folder:{data}", steps=4), device=DEVICE)
    return run


def more(run: Path) -> str:
    jobs.change(load_run(run), {"steps": load_run(run).status.step + 2})
    return train(run, resume=True, device=DEVICE)


def forget_content(run: Path) -> None:
    """As a run of an earlier version, which knew the images by their fingerprint alone."""
    file = run / "config.json"
    values = json.loads(file.read_text())
    assert values["resolved"].pop("data_content")
    file.write_text(json.dumps(values))
    for path in (run / "state").iterdir():
        state = torch.load(path, weights_only=True)
        state.pop("data_content", None)
        torch.save(state, path)


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_resumes_where_its_images_were_touched(
    tmp_path: Path, cache: Path, cached: bool
) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = half_trained(tmp_path / "run", data)
    touch(data)
    if not cached:
        shutil.rmtree(cache)
    assert more(run) == "finished"
    assert load_run(run).status.step == 6


def test_a_run_does_not_resume_on_other_pixels_labels_or_order(tmp_path: Path) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = half_trained(tmp_path / "run", data)
    wrong = "not those that this run has trained on"
    (data / "a" / "0.png").rename(data / "a" / "9.png")
    with pytest.raises(TrainingError, match=wrong):
        more(run)
    (data / "a" / "9.png").rename(data / "a" / "0.png")
    (data / "b").rename(data / "c")
    with pytest.raises(TrainingError, match=wrong):
        more(run)
    (data / "c").rename(data / "b")
    Image.new("RGB", (16, 16)).save(data / "b" / "3.png")
    with pytest.raises(TrainingError, match=wrong):
        more(run)


def test_a_run_of_an_earlier_version_resumes_by_the_images_in_the_cache(
    tmp_path: Path, cache: Path
) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = half_trained(tmp_path / "run", data)
    forget_content(run)
    for meta in cache.glob("*/meta.json"):  # the store is as old
        values = json.loads(meta.read_text())
        assert values.pop("pixels")
        meta.write_text(json.dumps(values))
    touch(data)
    assert more(run) == "finished"
    assert load_run(run).details.data_content  # known from now on
    forget_content(run)
    shutil.rmtree(cache)
    for file in data.rglob("*.png"):
        os.utime(file, (2, 2))
    with pytest.raises(TrainingError, match="no longer in the cache"):
        more(run)


def earlier_fingerprint(data: Path, names: list[str], size: int = 16) -> str:
    """As version 0.1 made it: names, sizes and times in the order of the images."""
    stats = [(name, (data / name).stat()) for name in names]
    lines = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    recipe = "\n".join([f"store 1, size {size}, count {len(names)}", *lines])
    return hashlib.sha256(recipe.encode()).hexdigest()


def as_of_an_earlier_version(run: Path, fingerprint: str) -> None:
    forget_content(run)
    file = run / "config.json"
    values = json.loads(file.read_text())
    values["resolved"]["data_fingerprint"] = fingerprint
    file.write_text(json.dumps(values))
    for path in (run / "state").iterdir():
        state = torch.load(path, weights_only=True)
        torch.save(state | {"data_fingerprint": fingerprint}, path)


# Stanford Cars, and as Kaggle packs it: there the classes were cars_test and cars_train.
STANFORD = ("test/a", "test/b", "train/a", "train/b")
KAGGLE = ("cars_test/cars_test", "cars_train/cars_train")


@pytest.mark.parametrize(
    ("layout", "labelled", "same"),
    [
        (STANFORD, True, True),
        (STANFORD, False, True),
        (KAGGLE, True, None),
        (KAGGLE, False, True),
        (("data/test/a", "data/train/a"), True, None),
        (("a", "b"), True, True),
        (("",), True, True),
    ],
)
def test_files_that_an_earlier_version_read_are_known_without_a_cache(
    layout: tuple[str, ...], labelled: bool, same: bool | None, tmp_path: Path
) -> None:
    data = paint(tmp_path / "images", *layout, count=2)
    names = [f"{folder}/{k}.png".lstrip("/") for folder in layout for k in range(2)]
    fingerprint = earlier_fingerprint(data, names)
    store = build_store(f"folder:{data}", 16, workers=0)
    assert same_images(store, fingerprint, labelled=labelled) is same
    assert same_images(store, fingerprint, "other content", labelled) is (
        layout in (("a", "b"), ("",))
    )
    (data / names[0]).write_bytes((data / names[1]).read_bytes())
    store = build_store(f"folder:{data}", 16, workers=0)
    assert not same_images(store, fingerprint, labelled=labelled)


def test_a_lecture_run_on_kaggles_stanford_cars_resumes_without_a_cache(
    tmp_path: Path, cache: Path
) -> None:
    data = paint(tmp_path / "images", *KAGGLE, count=4)
    names = [f"{folder}/{k}.png" for folder in KAGGLE for k in range(4)]
    config = tiny(data=f"folder:{data}", steps=1, class_conditional=False, validation_count=2)
    train(tmp_path / "run", config, device=DEVICE)
    as_of_an_earlier_version(tmp_path / "run", earlier_fingerprint(data, names))
    shutil.rmtree(cache)
    assert more(tmp_path / "run") == "finished"
    assert load_run(tmp_path / "run").details.data_content  # known from now on


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = half_trained(tmp_path / "run", data)
    data.rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match="If the images were moved, change data to their new"):
        more(run)


# ---------------------------------------------------------------- moved images


def test_the_path_of_the_images_is_absolute_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "images", "a", "b")
    monkeypatch.chdir(tmp_path)
    there = f"folder:{tmp_path / 'images'}"
    train(Path("run"), tiny(data="folder:images", steps=4), device=DEVICE)
    jobs.create(Path("runs"), "other", tiny(data="folder:./images/../images"))
    for run in (tmp_path / "run", tmp_path / "runs" / "other"):
        assert json.loads((run / "config.json").read_text())["data"] == there
    assert load_run("run").checkpoint(4).config.data == there
    monkeypatch.chdir("/")
    assert more(tmp_path / "run") == "finished"


def test_a_run_with_a_relative_path_has_an_absolute_one_once_it_was_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = half_trained(tmp_path / "run", paint(tmp_path / "images", "a", "b"))
    file = run / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data": "folder:images"}))
    monkeypatch.chdir(tmp_path)
    more(run)
    assert load_run(run).config.data == f"folder:{tmp_path / 'images'}"


def test_the_same_images_elsewhere_take_the_place_of_those_of_a_run(tmp_path: Path) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = load_run(half_trained(tmp_path / "run", data))
    there = tmp_path / "other" / "pictures"
    shutil.copytree(data, there, copy_function=shutil.copy)  # without the times
    shutil.rmtree(data)
    before = json.loads((run.path / "config.json").read_text())
    jobs.change(run, {"data": f"folder:{there}", "steps": 6})
    assert json.loads((run.path / "config.json").read_text()) == before | {
        "data": f"folder:{there}"
    }
    assert run.config.steps == 6
    assert run.checkpoint(4).config.data == f"folder:{there}"  # for evaluation
    assert train(run.path, resume=True, device=DEVICE) == "finished"


def test_a_single_class_may_have_another_name_where_it_has_moved(tmp_path: Path) -> None:
    data = paint(tmp_path / "images", ".")
    run = load_run(half_trained(tmp_path / "run", data))
    data.rename(tmp_path / "moved")
    touch(tmp_path / "moved")
    jobs.change(run, {"data": f"folder:{tmp_path / 'moved'}"})
    assert more(run.path) == "finished"


def test_other_images_do_not_take_their_place(tmp_path: Path) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = load_run(half_trained(tmp_path / "run", data))
    other = paint(tmp_path / "other", "a", "b", seed=1)
    named = paint(tmp_path / "named", "a", "c")
    before = (run.path / "config.json").read_bytes()
    for spec in (f"folder:{other}", f"folder:{named}", "cars:16"):
        with pytest.raises(ConfigError, match="are not those that this run has trained on"):
            jobs.change(run, {"data": spec, "steps": 6})
    with pytest.raises(ConfigError, match="There is no folder"):
        jobs.change(run, {"data": "folder:/nowhere"})
    with pytest.raises(ConfigError, match="is no data set"):
        jobs.change(run, {"data": "pictures"})
    with pytest.raises(ConfigError, match="seed cannot change"):
        jobs.change(run, {"data": f"folder:{tmp_path / 'images'}", "seed": 6})
    assert (run.path / "config.json").read_bytes() == before
    assert not (run.path / "changes.json").exists()


def test_a_run_at_work_keeps_its_images_and_one_that_has_not_begun_may_take_others(
    tmp_path: Path,
) -> None:
    other = f"folder:{paint(tmp_path / 'images', 'a', 'b')}"
    fresh = jobs.create(tmp_path, "fresh", tiny())
    jobs.change(fresh, {"data": other})
    assert fresh.config.data == other
    running = load_run(write_run(tmp_path, "running"))
    set_running(running.path)
    with pytest.raises(jobs.JobError, match="running is running; pause it before you change its d"):
        jobs.change(running, {"data": other})


def test_a_change_of_data_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = paint(tmp_path / "images", "a", "b")
    run = half_trained(tmp_path / "run", data)
    data.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert main(["change", "run", "data=folder:moved"]) == 0
    assert load_run(run).config.data == f"folder:{tmp_path / 'moved'}"
    paint(tmp_path / "other", "a", "b", seed=1)
    assert main(["change", "run", "data=folder:other"]) == 2
    assert "not those that this run has trained on" in capsys.readouterr().err
