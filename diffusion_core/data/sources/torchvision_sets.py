"""Any classification set of torchvision: `torchvision:CIFAR10`, `torchvision:Flowers102`, ..."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion_core.data.cache import default_cache_dir
from diffusion_core.data.decode import ImageError, to_rgb
from diffusion_core.data.errors import DataError, TooLong
from diffusion_core.data.source import SourceKind
from diffusion_core.text import shown

SIZE = 32  # pixels
PROBES = 16  # images whose labels are compared with a list that may hold them


def may_download() -> bool:
    """Whether this installation lets torchvision download missing files."""
    return os.environ.get("DIFFUSION_LAB_DOWNLOAD") == "1"


# Not sets themselves: what sets are made of.
BASES = frozenset({"VisionDataset", "DatasetFolder", "ImageFolder", "LSUNClass"})


@functools.lru_cache(maxsize=1)
def open_set(name: str, root: Path, download: bool) -> Any:
    """Open the training part of a set: a sequence of (Pillow image, label).

    Its files are expected below `root`; `download` lets torchvision get those that are missing.
    Raises DataError.
    """
    from torchvision import datasets

    maker = getattr(datasets, name, None)
    if not (inspect.isclass(maker) and name in datasets.__all__):
        raise DataError(
            f"torchvision has no data set called {shown(name)}; its names are like CIFAR10."
        )
    if name in BASES:
        raise DataError(
            f"torchvision's {name} is no data set of its own. Name one, for example CIFAR10, or "
            f"use folder:PATH for images of your own."
        )
    accepted = inspect.signature(maker).parameters
    needed = [
        each.name
        for each in accepted.values()
        if each.default is each.empty
        and each.kind is each.POSITIONAL_OR_KEYWORD
        and each.name != "root"
    ]
    if needed:
        raise DataError(
            f"torchvision's {name} cannot be opened by its name alone: it needs "
            f"{' and '.join(needed)}. Use another data set, for example CIFAR10."
        )
    arguments: dict[str, Any] = {}
    if "root" in accepted:
        arguments["root"] = str(root)
    downloadable = _is_downloadable(maker)
    if downloadable:
        arguments["download"] = download
    try:
        return maker(**arguments)
    except ImportError as error:
        raise DataError(
            f"torchvision's {name} cannot be opened: it needs the package {error.name or 'scipy'}."
        ) from error
    except Exception as error:  # each set raises its own for missing files
        raise DataError(_missing(name, downloadable, download)) from error


def _is_downloadable(maker: type) -> bool:
    """Whether torchvision can download a set; QMNIST has the option from the set it is made of."""
    made_of = maker.__mro__[:-1]
    return any("download" in inspect.signature(kind).parameters for kind in made_of)


def _missing(name: str, downloadable: bool, tried: bool) -> str:
    """Why a set of torchvision cannot be opened, and what to do."""
    put = (
        "put them into the folder torchvision of the cache folder, which is "
        "DIFFUSION_LAB_CACHE_DIR or ~/.cache/diffusion-lab."
    )
    if downloadable and tried:
        return f"torchvision's {name} could not be downloaded. Check the connection, or {put}"
    if downloadable and may_download():
        return (
            f"The files of torchvision's {name} are not here yet. They will be downloaded when the "
            f"run starts."
        )
    what = f"torchvision's {name} cannot be opened: its files are missing or damaged"
    if not downloadable:
        return f"{what}, and torchvision cannot download them. To use it, {put}"
    return f"{what}. Set DIFFUSION_LAB_DOWNLOAD=1 to let torchvision download them, or {put}"


@dataclass(frozen=True)
class TorchvisionSource:
    """A torchvision data set."""

    images: Any  # a sequence of (Pillow image, label)
    classes: tuple[str, ...]
    numbers: dict[int, int]  # of each label, its position in the classes
    identity: str
    size: int = SIZE
    parallel: bool = False  # each process would hold a copy of the whole set
    left_out: tuple[tuple[str, str], ...] = ()
    labels: tuple[int, ...] = ()  # of all images, where the set keeps them

    @property
    def count(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Image.Image, int]:
        try:
            image, label = self.images[index]
            return to_rgb(image), self.numbers[int(label)]
        except Exception as error:  # each set raises its own for a damaged file
            raise ImageError("The image is damaged or missing.") from error

    def label(self, index: int) -> int:
        if self.labels:
            return self.numbers[self.labels[index]]
        return self.read(index)[1]

    def name(self, index: int) -> str:
        return f"image {index}"


def open_torchvision(detail: str, seconds: float | None = None) -> TorchvisionSource:
    """A set by its name. With `seconds`, only to look: nothing is downloaded.

    Raises DataError; TooLong where reading its labels takes more seconds.
    """
    end = None if seconds is None else time.monotonic() + seconds
    root = default_cache_dir() / "torchvision"
    images = open_set(detail, root, download=end is None and may_download())
    listed = labels_of(images, detail, end)
    there = sorted(set(listed))
    # ImageNet has several names for a class.
    known = getattr(images, "classes", None) or ()
    names = tuple(str(name[0] if isinstance(name, tuple) else name) for name in known)
    if names and there[0] >= 0 and there[-1] < len(names):
        there = list(range(len(names)))
    else:
        names = tuple(str(label) for label in there)
    numbers = {label: k for k, label in enumerate(there)}
    labels = tuple(listed) if len(listed) == len(images) else ()
    return TorchvisionSource(images, names, numbers, f"{detail} {len(images)}", labels=labels)


def labels_of(images: Any, name: str, end: float | None = None) -> list[int]:
    """The labels of a set, without those of images that cannot be read.

    Raises DataError where an image has none, TooLong after `end`.

    Sets keep them under names of their own, or not at all. A list of as many whole numbers is
    theirs if it has the labels of the images at some places; else every image is read.
    """
    try:
        count = len(images)
        places = sorted({k * (count - 1) // (PROBES - 1) for k in range(PROBES)}) if count else []
        probes = _read_labels(images, places)
        for kept in getattr(images, "__dict__", {}).values() if probes else ():
            labels = _whole_numbers(kept, count)
            if labels and all(labels[k] == label for k, label in probes.items()):
                return labels
        found = list(_read_labels(images, range(count), end).values())
    except TooLong:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"torchvision's {name} has no class for each image, which training needs. Use a set "
            f"for classification, for example CIFAR10."
        ) from error
    if not found:
        raise DataError(f"torchvision's {name} holds no image that can be read.")
    return found


def _read_labels(images: Any, places: Iterable[int], end: float | None = None) -> dict[int, int]:
    """The labels of the images that can be read; raises as `_label`, and TooLong after `end`."""
    labels = {}
    for k in places:
        if end is not None and time.monotonic() > end:
            raise TooLong
        try:
            item = images[k]
        except Exception:  # each set raises its own for a damaged file, which is skipped later
            continue
        labels[k] = _label(item)
    return labels


def _label(item: Any) -> int:
    """The label of an item of a set; raises TypeError or ValueError where it is none."""
    image, label = item
    if not isinstance(image, Image.Image):
        raise TypeError
    return operator.index(label)


def _whole_numbers(kept: Any, count: int) -> list[int]:
    """A sequence of labels, or of pairs that end in one, as a list; empty for anything else."""
    if isinstance(kept, (str, bytes, dict)) or not hasattr(kept, "__len__") or len(kept) != count:
        return []
    if getattr(kept, "ndim", 1) != 1:  # the pixels of all images, which a list takes a minute for
        return []
    values = kept.tolist() if hasattr(kept, "tolist") else list(kept)
    values = [v[-1] if isinstance(v, tuple) and len(v) == 2 else v for v in values]
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        return []


SOURCE = SourceKind(
    name="torchvision",
    help="a classification data set of torchvision, by name.",
    usage=("torchvision:NAME",),
    open=open_torchvision,
    open_within=open_torchvision,
    size=SIZE,
    detail="Name in torchvision",
    placeholder="CIFAR10",
    missing="Give the data set's name in torchvision, for example CIFAR10.",
    may_download=may_download,
)
