"""What a data source is, and the record that makes one known everywhere.

A source is a file in `sources/` with a function that opens it and a `SourceKind` called `SOURCE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from diffusion_core.data.errors import DataError
from diffusion_core.text import shown


class Source(Protocol):
    """A data set that is not decoded yet.

    Where `parallel` is true, several processes decode it, each with a pickled copy.
    """

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names; the labels are positions in it."""

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """The name of each file that is left out, and why: a key of `found.REASONS`."""

    @property
    def size(self) -> int:
        """The side in pixels that suits the images."""

    @property
    def identity(self) -> str:
        """Text that changes with the images: the fingerprint is made from it."""

    @property
    def parallel(self) -> bool:
        """Whether it can be pickled and read by several processes."""

    def read(self, index: int) -> tuple[Image.Image, int]:
        """Image `index` from 0, RGB, and its label. Raises ImageError for a broken file."""

    def name(self, index: int) -> str:
        """What to call image `index` where it cannot be read."""

    def label(self, index: int) -> int:
        """Its label, without decoding it where that is possible. Raises ImageError as `read`."""


@dataclass(frozen=True)
class SourceKind:
    """One kind of data set: `name` or `name:DETAIL` in a run's settings.

    The detail is a number of images where `most` is set, else text, and then required.
    """

    name: str
    help: str  # a sentence
    usage: tuple[str, ...]  # the forms that a spec may have
    open: Callable[[str], Source]  # given the detail, or ""; raises DataError
    size: int  # pixels, the suggested side
    detail: str  # its label in a form
    channels: int = 3  # suggested; 1: the images are grey
    most: int | None = None  # images that a form offers
    largest: int | None = None  # images that a spec NAME:N may ask for; None: it names no number
    placeholder: str = ""  # an example of a text
    missing: str = ""  # what to do where a text is required and missing
    endless: bool = False  # image N exists for every N, whatever the count
    names: Callable[[], Sequence[str]] | None = None  # the texts that there are, where known
    is_path: bool = False  # the detail is a path of this machine
    # As `open`, but downloads nothing and raises TooLong after so many seconds.
    open_within: Callable[[str, float], Source] | None = None
    may_download: Callable[[], bool] = lambda: False  # whether opening it may take long
    # The identity that earlier versions gave the same images, if it was another; where the classes
    # matter (True), empty if theirs were others.
    earlier_identity: Callable[[Any, bool], str] | None = None


@dataclass(frozen=True)
class IndexedSource:
    """Images that a module-level function `draw` makes from their index alone."""

    count: int
    classes: tuple[str, ...]
    size: int
    identity: str
    draw: Callable[[int], tuple[np.ndarray, int]]  # uint8 (H, W, 3) and the label
    parallel: bool = True
    left_out: tuple[tuple[str, str], ...] = ()
    label_of: Callable[[int], int] | None = None  # that `draw` gives, where it is had for less

    def read(self, index: int) -> tuple[Image.Image, int]:
        pixels, label = self.draw(index)
        return Image.fromarray(pixels), label

    def label(self, index: int) -> int:
        return self.draw(index)[1] if self.label_of is None else self.label_of(index)

    def name(self, index: int) -> str:
        return f"image {index}"


def parse_count(kind: str, detail: str, usual: int, most: int) -> int:
    """The number of images in a spec, 1 to `most`; `usual` where it gives none."""
    if not detail:
        return usual
    if not detail.isdecimal() or len(detail) > 18 or not 1 <= int(detail) <= most:
        raise DataError(
            f"{shown(f'{kind}:{detail}')} is no data set: {kind}:N takes a number of images from 1 "
            f"to {most:,}."
        )
    return int(detail)
