"""Any classification set of torchvision: `torchvision:CIFAR10`, `torchvision:Flowers102`, ..."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from diffusion_core.data.errors import DataError


def may_download() -> bool:
    """Whether this installation lets torchvision fetch what is missing."""
    return os.environ.get("DIFFUSION_LAB_DOWNLOAD") == "1"


def open_set(name: str, root: Path) -> Any:
    """The training part of a set, as torchvision gives it: items (image, label).

    Its files are looked for below `root`; they are downloaded only where the environment says
    DIFFUSION_LAB_DOWNLOAD=1. Raises DataError.
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
    except Exception as error:  # each set has its own way to say that its files are missing
        raise DataError(
            f"torchvision's {name} cannot be opened: {error} Put its files into {root}, or set "
            f"DIFFUSION_LAB_DOWNLOAD=1 to let it download them."
        ) from error
