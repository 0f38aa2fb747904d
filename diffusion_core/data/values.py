"""Values of images that have more than 8 bits or no usual range, as 8 bits.

Cameras and microscopes write 10, 12 or 14 bits into 16 or 32: whole numbers are scaled by the depth
that they really have, numbers below 0 and floats by their range.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImagePalette, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile, _Tile

# Tags of a TIFF, and their values.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, MAX_SAMPLE = 258, 259, 262, 277, 281
PLANAR, COLORMAP = 284, 320
SAMPLE_FORMAT, GDAL_NODATA = 339, 42113
WHITE_IS_ZERO, UNSIGNED, SIGNED, FLOAT = 0, 1, 2, 3
SEPARATE = 2  # each channel by itself
NUMBERS = {UNSIGNED: "whole", SIGNED: "signed whole", FLOAT: "floating-point"}

# Pillow gives the upper 8 of 16 bits; values up to these have 14 at most.
DARK = 64


def is_wide(image: Image.Image) -> bool:
    """Whether an image has one channel of numbers that are not 0 to 255."""
    signed = image.mode == "L" and _first(_tags(image), SAMPLE_FORMAT, UNSIGNED) == SIGNED
    return signed or image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_8_bits(image: Image.Image) -> np.ndarray:
    """The values of a grey image of 16 bits, 32 bits or floats as uint8 (H, W).

    Whole numbers by their bit depth, numbers below 0 and floats by the range of the image.
    """
    tags = _tags(image)
    values = np.array(image)
    bits = _first(tags, BITS, 32 if values.dtype.itemsize > 2 else 16)
    signed = _first(tags, SAMPLE_FORMAT, UNSIGNED) == SIGNED
    if image.mode == "I" and bits == 32 and tags and not signed:
        values = values.view(np.uint32)  # which Pillow takes for signed
    if image.mode == "L":
        values = values.view(np.int8)  # which Pillow takes for unsigned
    exact: np.ndarray[Any, np.dtype[np.floating[Any]]] = values.astype(
        np.float32 if values.dtype.itemsize <= 2 else np.float64
    )
    good = np.isfinite(exact)
    if (nothing := _nothing(tags)) is not None:
        good &= exact != nothing
    low = float(exact.min(initial=np.inf, where=good))
    high = float(exact.max(initial=-np.inf, where=good))
    if low > high:  # there are no values
        return np.zeros(values.shape, np.uint8)
    if image.mode == "F":
        bottom, top = _float_range(low, high)
    elif low < 0:
        bottom, top = low, high
    else:
        bottom, top = 0.0, _depth(high, bits, signed, _first(tags, MAX_SAMPLE, 0))
    # An infinite value is as bright as can be, and what is missing is black.
    exact[~good & ~np.isposinf(exact)] = bottom
    exact -= bottom
    exact *= 255 / max(top - bottom, 1e-300)
    pixels = exact.clip(0, 255, out=exact).round(out=exact).astype(np.uint8)
    return 255 - pixels if _first(tags, PHOTOMETRIC, 1) == WHITE_IS_ZERO else pixels


def _float_range(low: float, high: float) -> tuple[float, float]:
    """What is black and what is white: from 0 or, where there are values below, from the least."""
    if low < high:
        return min(low, 0.0), max(high, 0.0) if low >= 0 else high
    return (0.0, 1.0) if 0 <= low <= 1 else (0.0, max(255.0, low)) if low > 0 else (low, low + 1)


def _depth(high: float, bits: int, signed: bool, declared: int) -> float:
    """The largest value of the depth that whole numbers up to `high` really have."""
    if bits not in (16, 32):  # said by the file
        return float(2 ** (bits - signed) - 1)
    bits -= signed
    if max(high, 1) <= declared < 2**bits - 1:
        return float(declared)
    depths = [depth for depth in (8, 10, 12, 14, 16) if depth < bits] + [*range(17, bits), bits]
    return float(2 ** next((depth for depth in depths if high < 2**depth), bits) - 1)


# ---------------------------------------------------------------- colours of 16 bits


def with_real_depth(image: ImageFile, reopen: Callable[[], ImageFile]) -> ImageFile:
    """Decode an image just opened, colours of 16 bits by their real depth.

    Pillow keeps the upper 8 bits, of which values of 12 bits fill 4. Where these are dark the file
    is read once more with the two bytes of each value exchanged, which gives the lower ones.
    Raises UnidentifiedImageError for a TIFF that Pillow reads wrongly.
    """
    _correct(image)
    coding = _coding(image)
    compressed = bool(image.tile) and image.tile[0].codec_name == "libtiff"
    image.load()
    if ";16" not in coding or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    tops = [top for _, top in image.getextrema()]  # type: ignore[misc]  # of several bands
    colours = 3 if image.mode == "RGBA" else len(tops)
    if max(tops[:colours]) > DARK and min(tops[colours:], default=255) > DARK:
        return image
    if _is_apart(image) and compressed:
        raise UnidentifiedImageError  # libtiff gives the upper bytes, whatever is asked
    raw = coding.replace("a", "A")  # Pillow divides RGBa by its alpha
    same = raw == coding and image.format != "PPM"
    values = np.asarray(image if same else _read_as(reopen(), raw)).astype(np.uint16)
    values <<= 8
    if raw == "LA;16B":  # which has no name the other way round
        values |= np.asarray(_read_as(reopen(), "RGBA"))[..., [1, 1, 1, 3]]
    else:
        values |= np.asarray(_read_as(reopen(), _exchanged(raw)))
    pixels = np.empty(values.shape, np.uint8)
    declared = _first(_tags(image), MAX_SAMPLE, 0)
    for part in (np.s_[..., :colours], np.s_[..., colours:]):
        top = _depth(int(values[part].max(initial=0)), 16, False, declared)
        table = (np.arange(2**16) * (255 / top)).clip(0, 255).round().astype(np.uint8)
        pixels[part] = table[values[part]]
        declared = 0
    if raw != coding:
        alpha = np.maximum(pixels[..., 3:], 1).astype(np.uint16)
        pixels[..., :3] = np.minimum(pixels[..., :3] * np.uint16(255) // alpha, 255)
    image.frombytes(pixels.tobytes())
    return image


def _correct(image: ImageFile) -> None:
    """Where Pillow reads a TIFF wrongly: 16 bits in separate channels, 8 bits in a palette."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if image.mode in ("P", "PA") and max(tags[COLORMAP]) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[COLORMAP]))
    if _is_apart(image) and _first(tags, BITS, 8) == 16:
        if image.mode == "CMYK":
            raise UnidentifiedImageError
        order = "L" if tags.prefix == b"II" else "B"
        image.tile = [
            _coded(tile, f"{_mode_of(tile)};16{order}") if tile.codec_name == "raw" else tile
            for tile in image.tile
        ]


def _is_apart(image: ImageFile) -> bool:
    """Whether each channel of a TIFF lies by itself."""
    return _tags(image).get(PLANAR) == SEPARATE


def _coding(image: ImageFile) -> str:
    """Pillow's name for how the values lie in a file just opened: "RGB;16B"."""
    if image.format == "PPM":
        return "RGB;16B" if image.tile[0].args == ("RGB", 2**16 - 1) else ""
    return _mode_of(image.tile[0]) if image.tile else ""


def _read_as(image: ImageFile, coding: str) -> ImageFile:
    """Decode an image just opened as if its values lay otherwise in the file.

    Of channels that lie apart, each keeps its name.
    """
    _correct(image)
    order = coding[coding.find(";") :]
    image.tile = [
        _coded(tile, _mode_of(tile)[0] + order if _is_apart(image) else coding)
        for tile in image.tile
    ]
    image.load()
    return image


def _mode_of(tile: _Tile) -> str:
    return str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0])


def _coded(tile: _Tile, mode: str) -> _Tile:
    if tile.codec_name == "ppm":
        return tile._replace(codec_name="raw", args=mode)
    more = tile.args[1:] if isinstance(tile.args, tuple) else ()
    return tile._replace(args=(mode, *more) if more else mode)


def _exchanged(coding: str) -> str:
    """The name for the same values with the two bytes of each exchanged."""
    kind, _, order = coding.partition(";16")
    big = order == "B" or (order == "N" and sys.byteorder == "big")
    return f"{kind};16{'L' if big else 'B'}"


def unknown_tiff(source: Path | IO[bytes]) -> str:
    """What a TIFF holds that Pillow cannot read, as part of a sentence; empty for other files."""
    opened = source.open("rb") if isinstance(source, Path) else nullcontext(source)
    try:
        with opened as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.seek(0)
            header = file.read(8)
            if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return ""
            tags = TiffImagePlugin.ImageFileDirectory_v2(
                header + (file.read(8) if b"+" in header[:4] else b"")
            )
            file.seek(tags.next)
            tags.load(file)
    except Exception:  # as many kinds as Pillow's decoders raise
        return ""
    if BITS not in tags:
        return ""  # cut short
    if _first(tags, COMPRESSION, 1) not in TiffImagePlugin.COMPRESSION_INFO:
        return "an unusual compression"
    kind = NUMBERS.get(_first(tags, SAMPLE_FORMAT, UNSIGNED), "other")
    channels = _first(tags, SAMPLES, 1)
    apart = "separate " if tags.get(PLANAR) == SEPARATE else ""
    where = "1 channel" if channels == 1 else f"{channels:,} {apart}channels"
    return f"{_first(tags, BITS, 1)}-bit {kind} numbers in {where}"


# ---------------------------------------------------------------- what a TIFF says


def _tags(image: Image.Image) -> TiffImagePlugin.ImageFileDirectory_v2 | dict[int, Any]:
    """Those of a TIFF; empty for any other image."""
    return getattr(image, "tag_v2", {})


def _first(tags: Mapping[int, Any], tag: int, otherwise: int) -> int:
    """The first value of a tag of whole numbers."""
    value = tags.get(tag, otherwise)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else otherwise


def _nothing(tags: Mapping[int, Any]) -> float | None:
    """The value that stands for none, as maps have it."""
    try:
        return float(str(tags[GDAL_NODATA]).strip("\0 "))
    except (KeyError, ValueError):
        return None
