"""The table of parsers, and what an entry is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from diffusion_core.sampling.spec import SamplingSpec
from tests.tiny_runs import CLASSES


class Said(Exception):
    """What a reader returns as a sentence instead of raising it."""


@dataclass(frozen=True)
class Parser:
    """One parser and what is tried with it."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], Any]  # of an input and a folder to write to
    refusal: type[Exception] | tuple[type[Exception], ...] = Said
    again: Callable[[Any, Path], Any] | None = None  # writes and reads what was read
    few: int = 12  # inputs in `make test`
    many: int = 2000  # and in `make test-long`
    longest: int = 600  # characters of a refusal


PARSERS: dict[str, Parser] = {}
SPEC = SamplingSpec(run="run", step=40, n=4, classes=CLASSES, label="van")


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)
    return path
