"""Any classification set of torchvision: `torchvision:CIFAR10`, `torchvision:Flowers102`, ..."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion_core.data.cache import default_cache_dir
from diffusion_core.data.errors import DataError
from diffusion_core.data.source import SourceKind

SIZE = 32  # pixels


def may_download() -> bool:
    """Whether this installation lets torchvision download missing files."""
    return os.environ.get("DIFFUSION_LAB_DOWNLOAD") == "1"


@functools.lru_cache(maxsize=1)
def open_set(name: str, root: Path) -> Any:
    """Open the training part of a set: a sequence of (Pillow image, label).

    Its files are expected below `root`, and downloaded only with DIFFUSION_LAB_DOWNLOAD=1. Raises
    DataError.
    """
    from torchvision import datasets

    maker = getattr(datasets, name, None)
    if not (inspect.isclass(maker) and name in datasets.__all__):
        raise DataError(f"torchvision has no data set called {name!r}; its names are like CIFAR10.")
    accepted = inspect.signature(maker).parameters
    arguments: dict[str, Any] = {}
    if "root" in accepted:
        arguments["root"] = str(root)
    if "download" in accepted:
        arguments["download"] = may_download()
    try:
        return maker(**arguments)
    except Exception as error:  # each set raises its own for missing files
        raise DataError(
            f"torchvision's {name} cannot be opened: {error} Put its files into {root}, or set "
            f"DIFFUSION_LAB_DOWNLOAD=1 to let it download them."
        ) from error


@dataclass(frozen=True)
class TorchvisionSource:
    """A torchvision data set."""

    images: Any  # a sequence of (Pillow image, label)
    classes: tuple[str, ...]
    identity: str
    size: int = SIZE
    parallel: bool = False  # each process would hold a copy of the whole set
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.images[index]
        return image.convert("RGB"), int(label)

    def name(self, index: int) -> str:
        return f"image {index}"


def open_torchvision(detail: str) -> TorchvisionSource:
    images = open_set(detail, default_cache_dir() / "torchvision")
    classes = tuple(str(name) for name in getattr(images, "classes", ()))
    if not classes:
        labels = {int(images[k][1]) for k in range(min(len(images), 2000))}
        classes = tuple(str(k) for k in range(max(labels) + 1))
    return TorchvisionSource(images, classes, f"{detail} {len(images)}")


SOURCE = SourceKind(
    name="torchvision",
    help="a classification data set of torchvision, by name.",
    usage=("torchvision:NAME",),
    open=open_torchvision,
    size=SIZE,
    detail="Name in torchvision",
    placeholder="CIFAR10",
    missing="Give the data set's name in torchvision, for example CIFAR10.",
    may_download=may_download,
)
