"""Sets of torchvision: the classes of all labels, and a sentence for what is no set of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_core.data.errors import DataError, TooLong
from diffusion_core.data.found import sentence
from diffusion_core.data.sources import torchvision_sets
from diffusion_core.data.sources.torchvision_sets import open_torchvision
from diffusion_core.data.store import build_store, count, look

IMAGE = Image.new("RGB", (9, 9), "red")


class Listed:
    """A set as torchvision's are, which keeps its labels in `attribute`, if it does."""

    def __init__(self, labels: list[Any], attribute: str = "", **others: Any) -> None:
        self.items = {k: (IMAGE, label) for k, label in enumerate(labels)}
        self.read = 0
        if attribute:
            pairs = [(f"{k}.ppm", label) for k, label in enumerate(labels)]
            setattr(self, attribute, pairs if attribute == "_samples" else labels)
        for name, value in others.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int) -> Any:
        self.read += 1
        if self.items[k][1] == "broken":
            raise OSError("image file is truncated")
        return self.items[k]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch):
    def open_listed(*arguments: Any, **others: Any):
        listed = Listed(*arguments, **others)
        monkeypatch.setattr(torchvision_sets, "open_set", lambda name, root, download: listed)
        return open_torchvision("Listed")

    return open_listed


@pytest.mark.parametrize("attribute", ["", "targets", "_labels", "_samples"])
def test_the_classes_are_those_of_all_labels(attribute: str, opened) -> None:
    """As GTSRB, whose first 2,000 images are of few of its 43 classes."""
    source = opened([k // 100 for k in range(4300)], attribute)
    assert source.classes == tuple(str(k) for k in range(43))
    assert source.read(4299)[1] == 42
    # Only sets that keep no list are read through.
    assert (source.images.read < 100) == bool(attribute)


def test_the_pixels_are_not_taken_for_labels(opened) -> None:
    """CIFAR10 keeps 154 million of them before its labels."""

    class Pixels(np.ndarray):
        def tolist(self) -> Any:
            raise AssertionError("it makes a list of the pixels")

    pixels = np.zeros((100, 2, 2, 3), np.uint8).view(Pixels)
    source = opened([0, 1] * 50, data=pixels, targets=[0, 1] * 50)
    assert source.classes == ("0", "1") and source.images.read < 100


def test_a_list_of_other_numbers_is_not_taken_for_the_labels(opened) -> None:
    source = opened([0, 1] * 50, years=[1990 + k % 7 for k in range(100)])
    assert source.classes == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "names", "classes", "last"),
    [
        ([0, 1, 1], ["cat", "dog", "owl"], ("cat", "dog", "owl"), 1),
        ([0, 1], [("tench", "Tinca tinca"), ("shark",)], ("tench", "shark"), 1),
        ([1, 2, 3], ["cat", "dog", "owl"], ("1", "2", "3"), 2),  # counted from 1
        ([-1, 5, 7], None, ("-1", "5", "7"), 2),
        ([torch.tensor(0), torch.tensor(4)], None, ("0", "4"), 1),
        ([0, "broken", 2], None, ("0", "2"), 1),
    ],
)
def test_labels_of_any_whole_numbers_have_a_class(labels, names, classes, last, opened) -> None:
    source = opened(labels, classes=names)
    assert source.classes == classes
    assert source.read(len(labels) - 1)[1] == source.label(len(labels) - 1) == last


@pytest.mark.parametrize(
    "label", ["a caption", {"boxes": []}, torch.zeros(40), None, IMAGE, 0.5, (1, 2)]
)
def test_a_set_without_one_whole_number_for_an_image_gets_a_sentence(label: Any, opened) -> None:
    with pytest.raises(DataError, match="Listed has no class for each image, which training"):
        opened([label] * 3)


def test_items_that_are_no_pair_of_an_image_and_a_label_get_the_sentence(opened) -> None:
    for item in ((IMAGE, IMAGE, 1), torch.zeros(2, 3), IMAGE, ("text", 1)):
        with pytest.raises(DataError, match="has no class for each image"):
            torchvision_sets.labels_of([item], "Pairs")
    with pytest.raises(DataError, match="holds no image that can be read"):
        opened([])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("VisionDataset", "VisionDataset is no data set of its own"),
        ("DatasetFolder", "DatasetFolder is no data set of its own"),
        ("ImageFolder", "or use folder:PATH for images of your own"),
        ("CocoDetection", "cannot be opened by its name alone: it needs annFile"),
        ("EMNIST", "it needs split"),
        ("wrap_dataset_for_transforms_v2", "no data set called"),
        ("x" * 500, "no data set called 'x{39}…"),
    ],
)
def test_what_is_no_set_gets_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        open_torchvision(name)
    assert str(caught.value).endswith(".")


def test_an_image_that_cannot_be_read_is_left_out_and_counted(opened, tmp_path) -> None:
    opened([0, "broken", 1])
    found = build_store("torchvision:Listed", 16, cache_dir=tmp_path, workers=0)
    assert found.labels.tolist() == [0, 1]
    assert found.skipped == ("image 1",)


def test_a_set_is_looked_at_without_a_download(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_DOWNLOAD", "1")
    opened([0, 1, 1], "targets", classes=["cat", "dog"])
    asked = []
    listed = torchvision_sets.open_set("Listed", Path(), False)

    def open_listed(name: str, root: Path, download: bool) -> Listed:
        asked.append(download)
        return listed

    monkeypatch.setattr(torchvision_sets, "open_set", open_listed)
    found = look("torchvision:Listed", seconds=60)
    assert found is not None
    assert sentence(found) == "3 images in 2 classes (cat, dog)."
    assert count("torchvision:Listed") == 3
    assert asked == [False, True]


def test_a_set_whose_labels_take_too_long_to_read_is_left_to_the_run(opened) -> None:
    opened([0, 1] * 50)
    with pytest.raises(TooLong):
        look("torchvision:Listed", seconds=-1)


@pytest.mark.parametrize(
    ("name", "allowed", "sentence"),
    [
        (
            "CIFAR10",
            "",
            "Set DIFFUSION_LAB_DOWNLOAD=1 to let torchvision download them, or put",
        ),
        ("CIFAR10", "1", "are not here yet. They will be downloaded when the run starts."),
        ("QMNIST", "1", "are not here yet. They will be downloaded when the run starts."),
        ("ImageNet", "1", "missing or damaged, and torchvision cannot download them."),
    ],
)
def test_what_is_missing_is_said_with_what_will_happen(
    name: str, allowed: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DIFFUSION_LAB_DOWNLOAD", allowed)
    with pytest.raises(DataError) as caught:
        look(f"torchvision:{name}", seconds=60)
    assert sentence in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
