"""Decode image files to RGB pixels, or say in one sentence what is wrong with them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusion_core.files import check_regular

# 50 megapixels take 200 MB when decoded; the networks see 64 x 64.
MAX_PIXELS = 50_000_000
# Only these are tried: Pillow passes EPS files to Ghostscript, which runs the program in them.
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "WebP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
EXTENSIONS = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
# Images that cannot be read: named where they are left out.
OTHER_EXTENSIONS = frozenset(
    ".heic .heif .hif .jxl .jp2 .j2k .jpx .jxr .svg .svgz .eps .psd .xcf .tga .ico .icns .dds .exr "
    ".hdr .dcm .pcx .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf".split()
)


class ImageError(ValueError):
    """A file that cannot be used as an image; the message says why and what to do."""


class ImageTooLarge(ImageError):
    """An image with more than MAX_PIXELS."""


def format_names() -> str:
    """ "PNG, JPEG, … or PPM"."""
    *names, last = FORMATS
    return f"{', '.join(names)} or {last}"


def open_image(source: bytes | Path | IO[bytes]) -> Image.Image:
    """Decode an image to upright RGB: the first frame of an animation, transparency on white.

    The size is checked in the header before decoding. Raises ImageError.
    """
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large and damaged images; the errors below say the same.
            warnings.simplefilter("ignore")
            if isinstance(source, Path):
                check_regular(source)
            image = Image.open(source, formats=tuple(name.upper() for name in FORMATS))
            if image.width * image.height > MAX_PIXELS:
                raise too_large(image.width, image.height)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # in place: the tags of a TIFF stay
            return to_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"The image has far more than {MAX_PIXELS // 10**6} megapixels. Make it smaller and "
            f"try again."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"This is not a readable image. Use a {format_names()} file.") from error
    except MemoryError as error:
        raise ImageError("There is not enough memory for this image; make it smaller.") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        raise ImageError(
            "The image is damaged or incomplete. Save it again in another program, as PNG or "
            "JPEG, and try again."
        ) from error


def too_large(width: int, height: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image has {width:,} x {height:,} = {width * height / 1e6:,.0f} megapixels; "
        f"at most {MAX_PIXELS // 10**6} can be read. Make it smaller and try again."
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB: values of any range to 8 bits, transparency on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(image)).convert("RGB")
    tags = getattr(image, "tag_v2", {})
    # Pillow keeps the upper 8 of 16 bits, of which a camera of 12 bits fills 4.
    deep = image.mode == "RGB" and _first(tags, BITS, 8) == 16
    if deep and int(np.asarray(image).max()) < 16:
        image = image.point(lambda value: value * 17)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image)
        return ground
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> np.ndarray:
    """The values of a grey image of 16 bits, 32 bits or floats as uint8 (H, W).

    Whole numbers by their bit depth, numbers below 0 and floats by the range of the image.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    values = np.array(image)
    bits = _first(tags, BITS, 32 if values.dtype.itemsize > 2 else 16)
    signed = _first(tags, SAMPLE_FORMAT, UNSIGNED) == SIGNED
    if image.mode == "I" and bits == 32 and tags and not signed:
        values = values.view(np.uint32)  # which Pillow takes for signed
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
        bottom, top = 0.0, _depth(high, int(bits) - signed, _first(tags, MAX_SAMPLE, 0))
    # An infinite value is as bright as can be, and what is missing is black.
    exact[~good & ~np.isposinf(exact)] = bottom
    exact -= bottom
    exact *= 255 / max(top - bottom, 1e-300)
    pixels = exact.clip(0, 255, out=exact).round(out=exact).astype(np.uint8)
    return 255 - pixels if _first(tags, PHOTOMETRIC, 1) == WHITE_IS_ZERO else pixels


# Tags of a TIFF, and their values.
BITS, PHOTOMETRIC, MAX_SAMPLE, SAMPLE_FORMAT, GDAL_NODATA = 258, 262, 281, 339, 42113
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2


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


def _float_range(low: float, high: float) -> tuple[float, float]:
    """What is black and what is white: from 0 or, where there are values below, from the least."""
    if low < high:
        return min(low, 0.0), max(high, 0.0) if low >= 0 else high
    return (0.0, 1.0) if 0 <= low <= 1 else (0.0, max(255.0, low)) if low > 0 else (low, low + 1)


def _depth(high: float, bits: int, declared: int) -> float:
    """The largest value of the depth that whole numbers up to `high` really have.

    Cameras and microscopes write 12 bits, or 8, into 16 or 32.
    """
    if high <= declared < 2**bits - 1:
        return float(declared)
    depths = [depth for depth in (8, 12, 16) if depth < bits] + [*range(17, bits), bits]
    return float(2 ** next((depth for depth in depths if high < 2**depth), bits) - 1)


def to_size(image: Image.Image, size: int) -> np.ndarray:
    """Resize RGB to uint8 (size, size, 3), stretched to a square as in the lecture.

    Bilinear with antialias, as torchvision's `Resize((size, size))`.
    """
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
