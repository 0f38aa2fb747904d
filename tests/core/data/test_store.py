"""The decoded store: the images that torchvision would give, once, whole, in the same order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.transforms import Resize

from diffusion_core.data import store
from diffusion_core.data.decode import ImageError
from diffusion_core.data.found import sentence
from diffusion_core.data.sources.cars import CLASSES, draw_car
from diffusion_core.data.store import (
    DataError,
    build_store,
    count,
    fingerprint_of,
    load_image,
    same_images,
)

# The fingerprint of cars:5 at 16 pixels before there were other ways to a square.
CARS = "791d672d67e0ffcc1529eba5b857ee37cfa77eb525a4b4bbd3096a888e08b5bc"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def paint(path: Path, seed: int, size: tuple[int, int] = (37, 23)) -> Path:
    """A smooth image of its own for each seed, in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def class_folders(root: Path, seed: int = 0) -> Path:
    """Two classes of three and two images, PNG and JPEG, one of them in a deeper folder."""
    for k, name in enumerate(["b/2.png", "b/10.jpg", "a/x.PNG", "a/deep/y.png", "a/z.jpeg"]):
        paint(root / name, seed + k)
    return root


def reference(root: Path, size: int) -> tuple[list[np.ndarray], list[int]]:
    """As the lecture reads a folder: torchvision's ImageFolder and Resize."""
    resize = Resize((size, size))
    pairs = [(np.asarray(resize(pil_image)), label) for pil_image, label in ImageFolder(str(root))]
    return [image for image, _ in pairs], [label for _, label in pairs]


# ---------------------------------------------------------------- drawn sets


def test_the_cars_in_the_store_are_the_cars_that_are_drawn(cache: Path) -> None:
    found = build_store("cars:9", 64, cache_dir=cache, workers=0)
    assert found.images.shape == (9, 3, 64, 64) and found.images.dtype == np.uint8
    assert found.labels.dtype == np.int64 and len(found) == 9
    assert found.classes == CLASSES and found.skipped == ()
    assert (found.spec, found.size) == ("cars:9", 64)
    for index in range(9):
        image, label = draw_car(index)
        assert np.array_equal(found.images[index].transpose(1, 2, 0), image)
        assert found.labels[index] == label


def test_the_digits_are_scikit_learns(cache: Path) -> None:
    from sklearn.datasets import load_digits

    found = build_store("digits", 32, cache_dir=cache, workers=0)
    assert len(found) == 1797 == count("digits")
    assert found.images.shape == (1797, 3, 32, 32)
    assert found.classes == tuple("0123456789")
    assert np.array_equal(found.labels, load_digits().target)
    assert set(found.labels) == set(range(10))
    # Upscaled, not painted anew: shrunk again they are the 8 x 8 images, nearly.
    grey = found.images[:, 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255 * 16
    assert np.abs(grey - load_digits().images).mean() < 1
    assert (found.images[:, 0] == found.images[:, 1]).all()


def test_a_set_can_be_asked_for_in_part_and_at_another_size(cache: Path) -> None:
    small = build_store("digits:12", 16, cache_dir=cache, workers=0)
    assert small.images.shape == (12, 3, 16, 16)
    assert (count("cars"), count("cars:30"), count("digits:12")) == (20_000, 30, 12)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("size", [16, 64])
def test_class_folders_are_read_as_torchvision_reads_them(
    tmp_path: Path, cache: Path, size: int
) -> None:
    root = class_folders(tmp_path / "pictures")
    found = build_store(f"folder:{root}", size, cache_dir=cache, workers=0)
    images, labels = reference(root, size)
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == labels == [0, 0, 0, 1, 1]
    for ours, theirs in zip(found.images, images, strict=True):
        assert np.abs(ours.transpose(1, 2, 0).astype(int) - theirs.astype(int)).max() <= 1


def test_train_and_test_folders_are_put_together_class_by_class(
    tmp_path: Path, cache: Path
) -> None:
    """As the lecture concatenates Stanford Cars; a class of one folder alone is a class too."""
    root = tmp_path / "pictures"
    class_folders(root / "train")
    class_folders(root / "test", seed=50)
    paint(root / "test" / "c" / "1.png", 99)
    found = build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    assert found.classes == ("a", "b", "c")
    wanted_images, wanted_labels = [], []
    for part in ("test", "train"):
        images, labels = reference(root / part, 16)
        wanted_images += images
        wanted_labels += labels
    assert found.labels.tolist() == wanted_labels == [0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 1]
    assert np.array_equal(found.images.transpose(0, 2, 3, 1), np.stack(wanted_images))


def test_a_flat_folder_is_one_class_in_the_order_of_the_names(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "flat"
    for k, name in enumerate(["c.png", "a.png", "b.jpg"]):
        paint(root / name, k)
    (root / "notes.txt").write_text("not an image, and not asked to be one")
    found = build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    assert found.classes == ("flat",) and found.labels.tolist() == [0, 0, 0]
    assert found.skipped == ()
    for k, name in enumerate(["a.png", "b.jpg", "c.png"]):
        image = Image.open(root / name).convert("RGB")
        wanted = np.asarray(Resize((16, 16))(image))
        assert np.array_equal(found.images[k].transpose(1, 2, 0), wanted)


def test_broken_files_are_skipped_and_named_and_the_others_stay_in_order(
    tmp_path: Path, cache: Path
) -> None:
    root = class_folders(tmp_path / "pictures")
    (root / "a" / "text.png").write_text("no image")
    whole = (root / "a" / "z.jpeg").read_bytes()
    (root / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "nowhere.png").symlink_to(root / "gone.png")
    found = build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    assert sorted(found.skipped) == ["a/text.png", "b/cut.jpg"]
    assert sentence(found.found) == (
        "5 images in 2 classes (a, b). "
        "3 of 8 files cannot be read: b/nowhere.png, a/text.png, b/cut.jpg."
    )
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert found.images.shape == (5, 3, 16, 16)
    alone = class_folders(tmp_path / "same")
    again = build_store(f"folder:{alone}", 16, cache_dir=cache, workers=0)
    assert np.array_equal(found.images, again.images)


def test_images_of_other_makes_become_rgb(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    Image.new("L", (8, 8), 100).save(root / "1-grey.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(root / "2-clear.png")
    Image.new("P", (8, 8), 0).save(root / "3-palette.png")
    found = build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    assert found.images[:, :, 0, 0].tolist() == [[100] * 3, [255] * 3, [0] * 3]


# ---------------------------------------------------------------- the cache


def test_a_store_is_memory_mapped_and_cannot_be_written_to(cache: Path) -> None:
    found = build_store("cars:3", 16, cache_dir=cache, workers=0)
    assert isinstance(found.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.images[0] = 0


def test_a_store_is_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_store("cars:3", 16, cache_dir=cache, workers=0)
    monkeypatch.setattr(store, "_decode", None)
    again = build_store("cars:3", 16, cache_dir=cache, workers=0)
    assert np.array_equal(first.images, again.images)
    assert first.fingerprint == again.fingerprint


def test_the_fingerprint_follows_the_images(tmp_path: Path, cache: Path) -> None:
    root = class_folders(tmp_path / "pictures")

    def fingerprint(size: int = 16) -> str:
        return build_store(f"folder:{root}", size, cache_dir=cache, workers=0).fingerprint

    seen = [fingerprint(), fingerprint(32)]
    paint(root / "a" / "x.PNG", 77)
    os.utime(root / "a" / "x.PNG", ns=(1, 1))
    seen.append(fingerprint())
    os.utime(root / "a" / "x.PNG", ns=(2, 2))
    seen.append(fingerprint())
    (root / "a" / "x.PNG").rename(root / "b" / "x.PNG")
    seen.append(fingerprint())
    (root / "b" / "x.PNG").unlink()
    seen.append(fingerprint())
    assert len(set(seen)) == 6
    assert fingerprint() == seen[-1]
    numbers = ("cars:3", "cars:4", "digits:3")
    drawn = {build_store(spec, 16, cache_dir=cache, workers=0).fingerprint for spec in numbers}
    assert len(drawn) == 3


def test_each_way_to_a_square_has_a_store_of_its_own(tmp_path: Path, cache: Path) -> None:
    file = paint(tmp_path / "a" / "wide.png", 0, (40, 20))
    spec = f"folder:{tmp_path / 'a'}"
    whole = Image.open(file).convert("RGB")
    ways = {
        "squash": whole.resize((16, 16), Image.Resampling.BILINEAR),
        "crop": ImageOps.fit(whole, (16, 16), Image.Resampling.BILINEAR),
        "pad": ImageOps.pad(whole, (16, 16), Image.Resampling.BILINEAR, "white"),
    }
    prints = set()
    for resize, expected in ways.items():
        image = np.asarray(expected)
        store = build_store(spec, 16, 3, resize, cache_dir=cache, workers=0)
        assert np.array_equal(store.images[0].transpose(1, 2, 0), image)
        assert np.array_equal(load_image(spec, 0, 16, resize)[0], image)
        assert store.fingerprint == fingerprint_of(spec, 16, 3, resize)
        prints.add(store.fingerprint)
    assert len(prints) == 3
    assert fingerprint_of("cars:5", 16) == fingerprint_of("cars:5", 16, 3, "squash") == CARS


def test_a_changed_file_is_decoded_again(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "flat"
    image = paint(root / "1.png", 1)
    before = build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    paint(image, 2)
    os.utime(image, ns=(1, 1))
    after = build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    assert not np.array_equal(before.images, after.images)


def test_half_a_store_is_never_seen(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping the building by raising in `progress` leaves nothing behind."""
    monkeypatch.setattr(store, "CHUNK", 2)
    calls = []

    class Stop(Exception):
        pass

    def progress(ready: int, total: int) -> None:
        calls.append((ready, total))
        if ready >= 4:
            raise Stop

    with pytest.raises(Stop):
        build_store("cars:7", 16, cache_dir=cache, workers=0, progress=progress)
    assert calls == [(2, 7), (4, 7)]
    assert list(cache.iterdir()) == []
    whole = build_store(
        "cars:7", 16, cache_dir=cache, workers=0, progress=lambda *c: calls.append(c)
    )
    assert calls[2:] == [(2, 7), (4, 7), (6, 7), (7, 7)]
    assert len(whole) == 7 and whole.images.reshape(7, -1).any(axis=1).all()


def test_a_store_is_on_the_disk_before_it_has_its_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power must not leave labels of zeros that look whole."""
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        sync(descriptor)
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def renamed(old: Path, new: Path) -> None:
        rename(old, new)
        done.append("renamed")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    build_store("cars:3", 16, cache_dir=cache, workers=0)
    before = done[: done.index("renamed")]
    assert {"images.npy", "labels.npy", "meta.json"} <= set(before)
    assert done[-1] == "cache"


@pytest.mark.parametrize(
    ("name", "damage"), [("meta.json", b"[]"), ("meta.json", b"{"), ("labels.npy", b"")]
)
def test_images_of_an_earlier_run_that_are_damaged_in_the_cache_tell_nothing(
    name: str, damage: bytes, cache: Path
) -> None:
    now = build_store("cars:3", 16, cache_dir=cache, workers=0)
    before = build_store("cars:4", 16, cache_dir=cache, workers=0)
    assert same_images(now, before.fingerprint) is False
    (before.folder / name).write_bytes(damage)
    assert same_images(now, before.fingerprint) is None


def test_progress_counts_broken_files_too(tmp_path: Path, cache: Path) -> None:
    root = class_folders(tmp_path / "pictures")
    (root / "a" / "text.png").write_text("no image")
    calls = []
    build_store(
        f"folder:{root}", 16, cache_dir=cache, workers=0, progress=lambda *c: calls.append(c)
    )
    assert calls[-1] == (6, 6)


@pytest.mark.long
def test_the_number_of_workers_does_not_change_the_bytes(tmp_path: Path) -> None:
    """More images than one process decodes at a time, so that there are two chunks."""
    root = tmp_path / "flat"
    for k in range(store.CHUNK + 10):
        paint(root / f"{k:04}.bmp", k, size=(9, 8))
    (root / "0100.bmp").write_bytes(b"no image")
    alone = build_store(f"folder:{root}", 16, cache_dir=tmp_path / "alone", workers=0)
    shared = build_store(f"folder:{root}", 16, cache_dir=tmp_path / "shared", workers=2)
    assert alone.fingerprint == shared.fingerprint
    assert alone.skipped == shared.skipped == ("0100.bmp",)
    assert np.array_equal(alone.images, shared.images)
    assert np.array_equal(alone.labels, shared.labels)


def test_two_that_build_the_same_store_at_once_both_get_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is finished while this one is still decoding."""
    others: list[Any] = []

    def progress(ready: int, total: int) -> None:
        if not others:
            others.append(build_store("cars:3", 16, cache_dir=cache, workers=0))

    ours = build_store("cars:3", 16, cache_dir=cache, workers=0, progress=progress)
    assert np.array_equal(ours.images, others[0].images)
    assert len(list(cache.iterdir())) == 1


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "mine"))
    build_store("cars:2", 16, workers=0)
    assert len(list((tmp_path / "mine").iterdir())) == 1


# ---------------------------------------------------------------- one image


def test_one_image_is_the_one_of_the_store(tmp_path: Path, cache: Path) -> None:
    root = class_folders(tmp_path / "pictures")
    for spec in ("cars:5", "digits:5", f"folder:{root}"):
        whole = build_store(spec, 16, cache_dir=cache, workers=0)
        for index in (0, 4):
            image, label, name = load_image(spec, index, 16)
            assert np.array_equal(image, whole.images[index].transpose(1, 2, 0))
            assert (label, name) == (whole.labels[index], whole.classes[label])
    assert load_image("digits", 1796)[0].shape == (32, 32, 3)


@pytest.mark.parametrize(("spec", "index"), [("cars:5", 5), ("cars:5", -1), ("digits", 1797)])
def test_an_image_beyond_the_set_is_refused_with_its_bounds(spec: str, index: int) -> None:
    with pytest.raises(DataError, match=rf"{spec} has the images 0 to [\d,]+, not {index}"):
        load_image(spec, index)


def test_one_broken_image_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ImageError, match="not a readable image"):
        load_image(f"folder:{tmp_path}", 0)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("boats", "'boats' is no data set. Use cars, cars:N, digits, digits:N, emoji, emoji:N, "),
        ("", "'' is no data set"),
        ("folder:", "'folder:' is no data set"),
        ("torchvision:", "'torchvision:' is no data set"),
        ("cars:0", "'cars:0' is no data set: cars:N takes a number of images from 1 to 10,000,000"),
        ("cars:many", "'cars:many' is no data set: cars:N takes"),
        ("cars:-3", "'cars:-3' is no data set: cars:N takes"),
        (
            "digits:1798",
            "'digits:1798' is no data set: digits:N takes a number of images",
        ),
        ("folder:/there/is/nothing", "There is no folder /there/is/nothing; give the folder"),
        ("torchvision:NOPE", "torchvision has no data set called 'NOPE'; its names are like"),
        ("torchvision:os", "torchvision has no data set called 'os'"),
    ],
)
def test_a_set_that_does_not_exist_gets_a_sentence(spec: str, sentence: str) -> None:
    for ask in (count, lambda s: build_store(s, 16), lambda s: load_image(s, 0)):
        with pytest.raises(DataError, match=sentence):
            ask(spec)


def test_a_torchvision_set_without_its_files_says_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded unless the environment allows it."""
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("DIFFUSION_LAB_DOWNLOAD", raising=False)
    with pytest.raises(
        DataError, match=r"CIFAR10 cannot be opened.*DIFFUSION_LAB_DOWNLOAD=1"
    ) as caught:
        count("torchvision:CIFAR10")
    assert "into the folder torchvision of the cache folder" in str(caught.value)


def test_a_torchvision_set_is_read_like_any_other(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FakeData is torchvision's own set without files."""
    from torchvision.datasets import FakeData

    monkeypatch.setattr(
        "diffusion_core.data.sources.torchvision_sets.open_set",
        lambda name, root, download: FakeData(size=6, image_size=(3, 20, 20), num_classes=3),
    )
    found = build_store("torchvision:FakeData", 16, cache_dir=cache, workers=2)
    theirs = FakeData(size=6, image_size=(3, 20, 20), num_classes=3)
    assert found.labels.tolist() == [int(theirs[k][1]) for k in range(6)]
    for k in range(6):
        wanted = np.asarray(Resize((16, 16))(theirs[k][0]))
        assert np.array_equal(found.images[k].transpose(1, 2, 0), wanted)


def test_empty_folders_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There are no images in .* Put PNG, JPEG, .* files"):
        build_store(f"folder:{tmp_path}", 16)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"There are no images in"):
        build_store(f"folder:{tmp_path}", 16)
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "a" / "b").mkdir()
    with pytest.raises(DataError, match=r"There are no images in"):
        build_store(f"folder:{tmp_path}", 16)


def test_a_folder_of_broken_files_alone_gets_a_sentence_and_no_store(
    tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    (root / "1.png").write_text("no image")
    with pytest.raises(DataError, match="None of the 1 files can be read as an image"):
        build_store(f"folder:{root}", 16, cache_dir=cache, workers=0)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_to_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written to"):
        build_store("cars:2", 16, cache_dir=tmp_path / "file" / "cache", workers=0)


def test_a_disk_without_room_is_refused_before_anything_is_drawn(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"need \d+ MiB and .* has 1 MiB free. Free some space"):
        build_store("cars:200", 64, cache_dir=cache, workers=0)
    assert list(cache.iterdir()) == []


def test_rows_are_read_as_they_lie_in_the_map(tmp_path: Path) -> None:
    found = build_store("cars:12", 16, 1, cache_dir=tmp_path, workers=0)
    rows = np.array([11, 0, 5, 5])
    assert np.array_equal(found.read(rows), found.images[rows])
    assert found.read(rows[:0]).shape == (0, 1, 16, 16)


def test_grey_is_what_pillow_makes_of_colour(tmp_path: Path) -> None:
    colour = build_store("cars:6", 16, cache_dir=tmp_path, workers=0)
    grey = build_store("cars:6", 16, 1, cache_dir=tmp_path, workers=0)
    assert grey.images.shape == (6, 1, 16, 16)
    assert grey.fingerprint != colour.fingerprint
    for one, other in zip(colour.images, grey.images, strict=True):
        wanted = np.asarray(Image.fromarray(one.transpose(1, 2, 0)).convert("L"))
        assert np.array_equal(other[0], wanted)
