"""Folders of images as users have them: what counts as an image, its class, what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffusion_core.data import store
from diffusion_core.data.decode import EXTENSIONS
from diffusion_core.data.errors import DataError, TooLong
from diffusion_core.data.found import sentence
from diffusion_core.data.sources import folder as folder_source
from diffusion_core.data.sources.folder import open_folder
from diffusion_core.data.sources.layout import split_of
from tests import image_files

IMAGE = image_files.one_pixel()


def write(root: Path, *names: str, content: bytes = IMAGE) -> Path:
    """Files below `root`: "cat/1-3.jpg" stands for 1.jpg, 2.jpg and 3.jpg."""
    for name in names:
        path = root / name
        first, dash, last = path.stem.partition("-")
        stems = range(int(first), int(last) + 1) if dash and last.isdecimal() else [path.stem]
        path.parent.mkdir(parents=True, exist_ok=True)
        for stem in stems:
            (path.parent / f"{stem}{path.suffix}").write_bytes(content)
    return root


def classes(root: Path) -> dict[str, int]:
    """The number of images of each class."""
    source = open_folder(str(root))
    labels = [label for _, label in source.files]
    return {name: labels.count(k) for k, name in enumerate(source.classes)}


def left_out(root: Path) -> dict[str, str]:
    return dict(open_folder(str(root)).left_out)


CLASSES = ("cat/1-3.jpg", "dog/1-2.jpg")
TRAIN, TEST = (tuple(f"{split}/{name}" for name in CLASSES) for split in ("train", "test"))


@pytest.mark.parametrize(
    "strays",
    [
        [".ipynb_checkpoints/1-checkpoint.jpg"],
        ["cat/.ipynb_checkpoints/1.jpg", "dog/deep/.cache/x.jpg"],
        ["__MACOSX/._1.jpg", "__MACOSX/cat/._1.jpg", "cat/._1.jpg", "._cat/1.jpg"],
        ["@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "cat/@eaDir/1.jpg"],
        [".Trash/1.jpg", ".Trash-1000/files/1.jpg", "$RECYCLE.BIN/1.jpg", "lost+found/1.jpg"],
        ["System Volume Information/1.jpg", ".git/1.jpg", ".thumbnails/normal/1.png"],
        ["Thumbs.db", "cat/Thumbs.db", "desktop.ini", "notes.txt", "labels.csv"],
        ["devkit/cars_meta.mat", "empty/readme.txt"],
    ],
    ids=lambda strays: strays[0].partition("/")[0],
)
def test_hidden_and_system_names_count_nowhere(strays: list[str], tmp_path: Path) -> None:
    assert classes(write(tmp_path / "a", *CLASSES, *strays)) == {"cat": 3, "dog": 2}
    assert not left_out(tmp_path / "a")
    assert classes(write(tmp_path / "b", *TRAIN, *TEST, *strays)) == {"cat": 6, "dog": 4}
    if "cat" not in "".join(strays) and "dog" not in "".join(strays):
        assert classes(write(tmp_path / "flat", "1-40.jpg", *strays)) == {"flat": 40}


def test_a_hidden_folder_can_itself_be_given(tmp_path: Path) -> None:
    assert classes(write(tmp_path / ".data" / "@me", *CLASSES)) == {"cat": 3, "dog": 2}


LAYOUTS: list[tuple[list[str], dict[str, int], int]] = [
    # files, images by class, images left out
    (["1-3.jpg"], {"root": 3}, 0),
    ([*CLASSES], {"cat": 3, "dog": 2}, 0),
    (["cat/1.jpg"], {"cat": 1}, 0),
    (["cat/a/1.jpg", "cat/b/c/d/1.jpg", "dog/e/1.jpg"], {"cat": 2, "dog": 1}, 0),
    (["cat/train/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"], {"cat": 1, "dog": 2}, 0),
    ([*CLASSES, "1-30.jpg"], {"cat": 3, "dog": 2}, 30),
    ([*CLASSES, "unlabelled/1-9.jpg"], {"cat": 3, "dog": 2}, 9),
    # Splits
    ([*TRAIN, *TEST], {"cat": 6, "dog": 4}, 0),
    ([*TRAIN], {"cat": 3, "dog": 2}, 0),
    ([*TRAIN, *TEST, "val/cat/1.jpg", "val/bird/1.jpg"], {"bird": 1, "cat": 7, "dog": 4}, 0),
    ([*TRAIN, "test/1-8.jpg"], {"cat": 3, "dog": 2}, 8),
    ([*TRAIN, *TEST, "unlabeled/1-5.jpg", "sample.jpg"], {"cat": 6, "dog": 4}, 6),
    ([*TRAIN, *TEST, "extra/1.jpg", "masks/cat/1.png"], {"cat": 6, "dog": 4}, 2),
    ([*TRAIN, "other/1-5.jpg"], {"cat": 3, "dog": 2}, 5),
    ([*TRAIN, "train/1.jpg"], {"cat": 3, "dog": 2}, 1),
    (["train/1-3.jpg", "test/1-2.jpg"], {"root": 5}, 0),
    (["train/1-3.jpg"], {"root": 3}, 0),
    (["TRAIN/cat/1.JPG", "Validation/dog/1.JPEG"], {"cat": 1, "dog": 1}, 0),
    (["train2017/cat/1.jpg", "val2017/cat/1.jpg"], {"cat": 2}, 0),
    (["training_set/cats/1.jpg", "test_set/cats/1.jpg"], {"cats": 2}, 0),
    (["training_set/training_set/cats/1.jpg", "test_set/test_set/dogs/1.jpg"],
     {"cats": 1, "dogs": 1}, 0),
    (["cars_train/cars_train/1-3.jpg", "cars_test/cars_test/1-2.jpg"], {"root": 5}, 0),
    (["trainA/1-2.jpg", "trainB/1.jpg", "testA/1.jpg"], {"trainA": 2, "trainB": 1, "testA": 1}, 0),
    (["cars_train/audi/1.jpg", "cars_test/bmw/1.jpg"], {"audi": 1, "bmw": 1}, 0),
    (["seg_train/seg_train/sea/1.jpg", "seg_test/seg_test/sea/1.jpg", "seg_pred/seg_pred/1.jpg"],
     {"sea": 2}, 1),
    (["car_data/car_data/train/audi/1.jpg", "car_data/car_data/test/bmw/1.jpg"],
     {"audi": 1, "bmw": 1}, 0),
    (["train/n01/images/1.jpg", "train/n02/images/1.jpg", "val/images/1-2.jpg"],
     {"n01": 1, "n02": 1}, 2),
    (["images/cat/1.jpg", "images/dog/1.jpg"], {"cat": 1, "dog": 1}, 0),
    (["root/cat/1.jpg", "root/dog/1.jpg"], {"cat": 1, "dog": 1}, 0),
    # Folders around splits, parts, copies, masks
    (["archive/cars set/Train/audi/1.jpg", "archive/cars set/Test/bmw/1.jpg"],
     {"audi": 1, "bmw": 1}, 0),
    (["ILSVRC/Data/CLS-LOC/train/n01/1.jpg", "ILSVRC/Data/CLS-LOC/val/n02/1.jpg"],
     {"n01": 1, "n02": 1}, 0),
    (["cover.jpg", "archive/train/audi/1.jpg"], {"audi": 1}, 1),
    (["preview.jpg", "images/cat/1.jpg", "images/dog/1.jpg"], {"cat": 1, "dog": 1}, 1),
    (["PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg"], {"Cat": 1, "Dog": 1}, 0),
    (["a/b/c/cat/1.jpg", "a/b/c/dog/1.jpg", "a/b/c/dog/deep/2.jpg"], {"cat": 1, "dog": 2}, 0),
    (["set/ill/images/1.jpg", "set/ill/masks/1.jpg", "set/well/images/1.jpg"],
     {"ill": 1, "well": 1}, 1),
    (["cat/1.jpg", "cat/kitten/1.jpg", "cat/old/1.jpg"], {"cat": 3}, 0),
    (["cat/deep/er/1.jpg"], {"cat": 1}, 0),
    (["2023/01/1.jpg", "2024/01/1.jpg"], {"2023": 1, "2024": 1}, 0),
    (["fold1/cat/1.jpg", "fold2/cat/1.jpg", "fold2/dog/1.jpg"], {"cat": 2, "dog": 1}, 0),
    (["part1/train/cat/1.jpg", "part2/test/cat/1.jpg"], {"cat": 2}, 0),
    (["images_001/1.jpg", "images_002/1.jpg"], {"root": 2}, 0),
    (["jpg/1.jpg", "png/1.png"], {"root": 2}, 0),
    (["HAM10000_images_part_1/1.jpg", "HAM10000_images_part_2/1.jpg"], {"root": 2}, 0),
    (["class_1/1.jpg", "class_2/1.jpg"], {"class_1": 1, "class_2": 1}, 0),
    (["0/1.jpg", "1/1.jpg", "10/1.jpg"], {"0": 1, "1": 1, "10": 1}, 0),
    (["rose/1.jpg", "lily/1.jpg", "root/rose/1.jpg", "root/lily/1.jpg"], {"lily": 2, "rose": 2}, 0),
    (["rose/1.jpg", "root/lily/1.jpg"], {"root": 1, "rose": 1}, 0),
    (["chest/train/ill/1.jpg", "chest/test/ill/1.jpg", "chest/chest/train/ill/1.jpg"],
     {"ill": 2}, 1),
    (["images/1-2.jpg", "annotations/trimaps/1-2.png"], {"images": 2}, 2),
    (["images/train/1.jpg", "images/val/2.jpg", "masks/train/1.png"], {"root": 2}, 1),
    (["train/images/1.jpg", "train/masks/1.png", "test/images/2.jpg"], {"root": 2}, 1),
    (["ill/images/1.jpg", "ill/masks/1.jpg", "well/images/1.jpg"], {"ill": 1, "well": 1}, 1),
    (["JPEGImages/1.jpg", "SegmentationClass/1.png", "SegmentationObject/1.png"],
     {"JPEGImages": 1}, 2),
    (["train_images/1.jpg", "train_masks/1.png", "test_images/2.jpg"], {"root": 2}, 1),
    (["mask/1.jpg", "no_mask/1.jpg"], {"mask": 1, "no_mask": 1}, 0),
    (["label/1.jpg", "images of cats/1.jpg"], {"images of cats": 1, "label": 1}, 0),
    # A train is a class among vehicles.
    (["bus/1.jpg", "car/1.jpg", "train/1-2.jpg"], {"bus": 1, "car": 1, "train": 2}, 0),
    (["bus/a/1.jpg", "train/a/1.jpg", "train/b/1.jpg"], {"bus": 1, "train": 2}, 0),
    (["steam_train/1.jpg", "bullet_train/1.jpg"], {"bullet_train": 1, "steam_train": 1}, 0),
    (["train_station/1.jpg", "test tube/1.jpg"], {"test tube": 1, "train_station": 1}, 0),
    (["trainers/1.jpg", "sandals/1.jpg"], {"sandals": 1, "trainers": 1}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("files", "wanted", "others"), LAYOUTS, ids=lambda v: str(v)[:60])
def test_a_folder_is_divided_as_the_documentation_says(
    files: list[str], wanted: dict[str, int], others: int, tmp_path: Path
) -> None:
    root = write(tmp_path / "root", *files)
    assert classes(root) == wanted
    assert len(left_out(root)) == others


@pytest.mark.parametrize("stray", [".git/HEAD", "devkit/x.mat", "unlabelled/1.jpg", "empty/x"])
def test_a_stray_folder_beside_splits_changes_nothing(stray: str, tmp_path: Path) -> None:
    assert classes(write(tmp_path, *TRAIN, *TEST, stray)) == {"cat": 6, "dog": 4}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("trainset", "train"),
        ("TrainImages", "train"),
        ("ILSVRC2012_img_val", "val"),
        ("valid", "val"),
        ("images-test", "test"),
        ("test1", "test"),
        ("trailer", None),
        ("testament", None),
        ("train_wreck", None),
        ("value", None),
        ("", None),
        ("___", None),
    ],
)
def test_splits_are_recognised_by_the_words_of_their_names(name: str, split: str | None) -> None:
    found = split_of(name)
    assert (found and found[0]) == split


def test_every_format_that_is_decoded_is_looked_for(tmp_path: Path) -> None:
    for kind, suffix in [("AVIF", ".avif"), ("GIF", ".gif"), ("JPEG", ".jfif"), ("JPEG", ".JPE"),
                         ("WEBP", ".WebP"), ("BMP", ".dib"), ("PPM", ".pnm")]:  # fmt: skip
        write(tmp_path, f"x{suffix}", content=image_files.halves(kind))
    found = store.build_store(f"folder:{tmp_path}", 16, cache_dir=tmp_path / ".cache", workers=0)
    assert len(found) == 7
    assert not found.found.left_out
    assert {".png", ".tiff", ".pgm", ".jpeg"} <= EXTENSIONS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "AVIF"])
def test_an_image_without_a_suffix_counts(kind: str, tmp_path: Path) -> None:
    root = write(tmp_path / "root", "cat/8f3a", content=image_files.halves(kind))
    write(root, "cat/README", "dog/LICENSE", content=image_files.TEXT)
    os.mkfifo(root / "cat" / "pipe")
    write(root, "dog/1.png")
    assert classes(root) == {"cat": 1, "dog": 1}
    assert not left_out(root)


def test_images_in_formats_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write(tmp_path, "1-2.jpg", "phone.HEIC", "logo.svg", "notes.txt")
    assert left_out(tmp_path) == {"phone.HEIC": "format", "logo.svg": "format"}


def test_an_image_that_is_reached_twice_counts_once_where_it_lies(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "cat/1-2.jpg", "dog/1-2.jpg")
    (root / "cat" / "loop").symlink_to("..")
    (root / "cat" / "itself").symlink_to("itself")
    (root / "cat" / "all dogs").symlink_to("../dog")
    (root / "cat" / "0.jpg").symlink_to("../dog/1.jpg")
    (root / "cat" / "self.jpg").symlink_to("self.jpg")
    os.link(root / "dog" / "2.jpg", root / "dog" / "hard.jpg")
    assert classes(root) == {"cat": 2, "dog": 2}
    assert left_out(root) == {
        "cat/0.jpg": "again", "dog/hard.jpg": "again", "cat/self.jpg": "unreadable"
    }  # fmt: skip


def test_linked_folders_and_files_from_elsewhere_count_where_the_link_is(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "1-3.jpg", ".blobs/8f3a")
    root = write(tmp_path / "root", "dog/1.jpg")
    (root / "cat").symlink_to(elsewhere)
    (root / "again").symlink_to(elsewhere)
    (root / "dog" / "2.jpg").symlink_to(elsewhere / ".blobs" / "8f3a")
    assert classes(root) == {"again": 3, "dog": 2}


def test_names_that_are_not_utf_8_are_read_and_shown(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "1-9.jpg")
    os.rename(root / "3.jpg", os.fsencode(root) + b"/caf\xe9.jpg")
    write(root, "broken\n.jpg", content=b"no image")
    found = store.build_store(f"folder:{root}", 16, cache_dir=tmp_path / "cache", workers=0)
    assert sentence(found.found) == (
        r"9 images in 1 class (root). 1 of 10 files cannot be read: broken\n.jpg."
    )
    os.makedirs(os.fsencode(tmp_path) + b"/classes/caf\xe9")
    os.link(root / "1.jpg", os.fsencode(tmp_path) + b"/classes/caf\xe9/1.jpg")
    assert classes(tmp_path / "classes") == {r"caf\xe9": 1}


def test_the_same_class_written_by_two_systems_is_one(tmp_path: Path) -> None:
    write(tmp_path, "train/caf\u00e9/1.jpg", "test/cafe\u0301/1.jpg")
    assert classes(tmp_path) == {"caf\u00e9": 2}


def test_a_subfolder_or_file_that_may_not_be_read_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the system's answers are made."""
    root = write(tmp_path / "root", *CLASSES, "locked/1.jpg")
    scan, access = os.scandir, os.access

    def scandir(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(folder_source.os, "scandir", scandir)
    monkeypatch.setattr(
        folder_source.os, "access", lambda p, mode: Path(p).name != "3.jpg" and access(p, mode)
    )
    assert classes(root) == {"cat": 2, "dog": 2}
    assert left_out(root) == {"locked": "folder", "cat/3.jpg": "unreadable"}
    with pytest.raises(DataError, match=r"The folder .*locked cannot be read: Permission denied"):
        open_folder(str(root / "locked"))


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "1.jpg", "folder.jpg/2.jpg")
    os.mkfifo(root / "folder.jpg" / "pipe.jpg")
    assert classes(root) == {"folder.jpg": 1}
    assert left_out(root) == {"1.jpg": "beside", "folder.jpg/pipe.jpg": "unreadable"}


def test_a_very_deep_folder_stops_nothing(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "cat/1.jpg")
    deep = root / "cat"
    for _ in range(300):
        deep = deep / "deep"
        deep.mkdir()
    write(deep, "2.jpg")
    assert classes(root) == {"cat": 2}


def test_classes_are_those_of_images_that_were_decoded(tmp_path: Path) -> None:
    root = write(tmp_path / "root", *CLASSES)
    write(root, "ant/1-2.jpg", content=image_files.truncated_jpeg())
    write(root, "cat/0.jpg", content=b"")
    write(root, "dog/big.png", content=image_files.huge_png(8_000, 8_000))
    found = store.build_store(f"folder:{root}", 16, cache_dir=tmp_path / "cache", workers=0)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert sentence(found.found) == (
        "5 images in 2 classes (cat, dog); 4 left out. "
        "3 of 9 files cannot be read: ant/1.jpg, ant/2.jpg, cat/0.jpg. "
        "1 image is too large and left out: dog/big.png."
    )


def test_many_files_that_cannot_be_read_are_counted_and_some_named(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "41-60.png")
    write(root, "1-40.jpg", content=image_files.truncated_jpeg())
    found = store.build_store(f"folder:{root}", 16, cache_dir=tmp_path / "cache", workers=0)
    assert sentence(found.found) == (
        "20 images in 1 class (root). 40 of 60 files cannot be read: 1.jpg, 10.jpg, 11.jpg, …"
    )


def test_a_folder_that_takes_too_long_to_look_through_is_left_to_the_run(tmp_path: Path) -> None:
    write(tmp_path, *CLASSES)
    with pytest.raises(TooLong, match="too many files to count here"):
        store.look(f"folder:{tmp_path}", seconds=-1)
    found = store.look(f"folder:{tmp_path}", seconds=60)
    assert found is not None
    assert sentence(found) == "5 images in 2 classes (cat, dog)."


def test_a_folder_of_which_nothing_can_be_used_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "phone.heic")
    with pytest.raises(DataError, match=r"There are no images in .*: phone\.heic"):
        open_folder(str(tmp_path))
    write(tmp_path, "archive.zip", "data/train.parquet")
    with pytest.raises(DataError) as caught:
        open_folder(str(tmp_path))
    assert str(caught.value).endswith(
        "These cannot be used: phone.heic. These have to be unpacked or converted first: "
        "archive.zip, data/train.parquet."
    )


@pytest.mark.parametrize("path", ["a\0b", "~\0", "/" + "a" * 300, "~nobody-here/images"])
def test_a_path_that_no_disk_takes_is_said_to_be_no_folder(path: str) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*; give the folder of the images"):
        open_folder(path)
