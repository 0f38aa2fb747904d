"""The images of a report: files of a run folder, each made to fit a number of bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffusion_core.files import check_regular

MOST_BYTES = 2**26  # of a file that is read
MOST_PIXELS = 2**26  # of one that is decoded
LONGEST_SIDE = 4096  # pixels of an image in a report
SMALLEST_SIDE = 16  # pixels to which one is made smaller
FAST = 1  # of WebP: 0 to 6
QUALITY, LOWER_QUALITY = 90, 70  # of WebP and JPEG; the lower takes about half
SAMPLED = 3  # images of a kind that are made to estimate the size of all


class ReportImageError(ValueError):
    """An image that cannot be taken along; the message says why."""


@dataclass(frozen=True)
class ReportImage:
    """A file that is to become an image of at most `most` bytes."""

    path: Path
    most: int
    squares: int | None = None  # keep so many squares from the left of a strip

    def whole(self) -> bytes | None:
        """The file as it is, with the settings that it holds; None where it is to be made smaller.

        Raises ReportImageError.
        """
        data = self._read()
        size = self._opened(data).size
        if self._right(size) < size[0] or max(size) > LONGEST_SIDE:
            return None
        return data if len(data) <= self.most else None

    def pixels(self) -> Image.Image:
        """The image decoded, cut and scaled to the largest size. Raises ReportImageError."""
        image = self._opened(self._read())
        try:
            image.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise ReportImageError(f"{self.path.name} is damaged.") from error
        image = image.crop((0, 0, self._right(image.size), image.height))
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return image.convert("L" if image.mode in ("1", "L") else "RGB")

    def for_page(self) -> tuple[str, bytes]:
        """The type and the bytes of the image in a page. Raises ReportImageError."""
        if (data := self.whole()) is not None:
            return "png", data
        return "webp", self._smaller("WEBP")

    def for_paper(self) -> bytes:
        """As JPEG, which a PDF holds as it is. Raises ReportImageError."""
        return self._smaller("JPEG")

    def _smaller(self, format: str) -> bytes:
        image, quality = self.pixels(), QUALITY
        while True:
            buffer = io.BytesIO()
            image.save(buffer, format, quality=quality, subsampling=0, method=FAST)
            excess = buffer.tell() / self.most
            if excess <= 1 or max(image.size) <= SMALLEST_SIDE:
                return buffer.getvalue()
            if quality == QUALITY:
                quality = LOWER_QUALITY
                if excess < 2:  # else that alone is not enough
                    continue
            scale = 0.95 * min(1.0, 2 / excess) ** 0.5
            image = image.resize([max(1, int(scale * each)) for each in image.size])

    def _read(self) -> bytes:
        try:
            check_regular(self.path)
            if self.path.stat().st_size > MOST_BYTES:
                raise ReportImageError(f"{self.path.name} has more than {MOST_BYTES // 2**20} MB.")
            return self.path.read_bytes()
        except OSError as error:
            raise ReportImageError(f"{self.path.name} cannot be read.") from error

    def _opened(self, data: bytes) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(data), formats=["PNG"])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ReportImageError(f"{self.path.name} is no PNG image that can be read.") from error
        if image.width * image.height > MOST_PIXELS:
            raise ReportImageError(
                f"{self.path.name} has {image.width:,}×{image.height:,} pixels, too many to read."
            )
        return image

    def _right(self, size: tuple[int, int]) -> int:
        width, height = size
        return width if self.squares is None else min(width, self.squares * height)


def some_of(count: int, most: int) -> list[int]:
    """At most so many of the numbers from 0 to count - 1, evenly, the first and last included."""
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def estimate(images: Sequence[ReportImage], *, paper: bool) -> float:
    """The bytes of images of one kind, without making them all."""
    total, made = 0.0, list[ReportImage]()
    for image in images:
        try:
            whole = None if paper else image.whole()
        except ReportImageError:
            continue
        if whole is None:
            made.append(image)
        else:
            total += len(whole)
    sizes = []
    for k in some_of(len(made), SAMPLED):
        try:
            sizes.append(len(made[k].for_paper() if paper else made[k].for_page()[1]))
        except ReportImageError:
            continue
    return total + (len(made) * sum(sizes) / len(sizes) if sizes else 0.0)
