"""The data sources: every file in this folder that has a `SourceKind` called `SOURCE`."""

from __future__ import annotations

import importlib
import pkgutil

from diffusion_core.data.errors import DataError
from diffusion_core.data.source import Source, SourceKind, parse_count
from diffusion_core.text import shown


def _found() -> dict[str, SourceKind]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}."))
    kinds = (getattr(importlib.import_module(name), "SOURCE", None) for name in names)
    return {kind.name: kind for kind in kinds if kind is not None}


SOURCES: dict[str, SourceKind] = _found()


def kind_of(spec: str) -> SourceKind:
    """The kind of a spec such as `cars:300` or `folder:PATH`. Raises DataError."""
    name, colon, detail = spec.partition(":")
    kind = SOURCES.get(name)
    if kind is None or not (detail or (kind.largest and not colon)):
        raise DataError(f"{shown(spec)} is no data set. Use {usage()}.")
    return kind


def check_spec(spec: str) -> None:
    """Raises DataError for a spec whose number of images, if it has one, cannot be."""
    if (kind := kind_of(spec)).largest:
        parse_count(kind.name, spec.partition(":")[2], kind.largest, kind.largest)


def open_source(spec: str) -> Source:
    """The data set that a spec names. Raises DataError."""
    return kind_of(spec).open(spec.partition(":")[2])


def usage() -> str:
    """Every form of a spec: "cars, cars:N, digits, … or torchvision:NAME"."""
    *forms, last = (form for kind in SOURCES.values() for form in kind.usage)
    return f"{', '.join(forms)} or {last}"
