"""Decode image files to RGB pixels, or say in one sentence what is wrong with them."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from diffusion_core.data.png_rows import lacks_rows
from diffusion_core.data.values import is_wide, to_8_bits, unknown_tiff, with_real_depth
from diffusion_core.files import check_regular

# 50 megapixels take 200 MB when decoded; the networks see 64 x 64.
MAX_PIXELS = 50_000_000
WHOLE_PIXELS = 4_000_000  # up to which `read_square` decodes all of an image
STRIP_PIXELS = 2**20  # that `read_square` converts at a time
# How an image that is not square becomes one: its central square, all of it between white borders,
# or all of it squashed as in the lecture.
CROP, PAD, SQUASH = FITS = ("crop", "pad", "squash")
Box = tuple[float, float, float, float]  # left, upper, right, lower
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


def begins_as_image(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a format that is decoded."""
    known = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(known) or webp or head[4:12] in (b"ftypavif", b"ftypavis")


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
    with _explaining(source):
        image = _decoded(_checked(source), source)
        ImageOps.exif_transpose(image, in_place=True)  # in place: the tags of a TIFF stay
        return to_rgb(image)


def read_square(data: bytes, size: int, fit: str = SQUASH) -> np.ndarray:
    """As `to_size(open_image(data), size, fit)`; a large image is reduced to about 4 `size` a side
    first, in little more memory than Pillow needs to decode it. Raises ImageError."""
    source = io.BytesIO(data)
    with _explaining(source):
        image = _checked(source)
        if image.width * image.height <= WHOLE_PIXELS:
            return to_size(open_image(data), size, fit)
        inner = _inner(image.size, size, fit)
        # A JPEG is decoded at 1, 1/2, 1/4 or 1/8. What it was may end within the last pixel.
        drafted = image.draft(None, (4 * size, 4 * size))
        width, height = drafted[1][2:] if drafted else image.size
        box = _used(width, height, fit)
        image = _decoded(image, source)
        turned = image.getexif().get(ExifTags.Base.Orientation, 1)
        if is_wide(image):
            reduced = to_rgb(image)
        else:
            reduced, box = _reduce(image, 4 * size, box)
        resized = reduced.resize(inner, Image.Resampling.BILINEAR, box=box)
        resized.getexif()[ExifTags.Base.Orientation] = turned
        return _squared(ImageOps.exif_transpose(resized), size)


def upright_size(data: bytes) -> tuple[int, int]:
    """Width and height as the header says, without decoding. Raises ImageError."""
    source = io.BytesIO(data)
    with _explaining(source):
        image = _checked(source)
        # Not `image.getexif()`, which decodes a PNG to look behind its pixels.
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return image.size[::-1] if turned in (5, 6, 7, 8) else image.size


@contextmanager
def _explaining(source: Path | IO[bytes]) -> Iterator[None]:
    """Pillow's errors as ImageError."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large and damaged images; the errors below say the same.
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"The image has far more than {MAX_PIXELS // 10**6} megapixels. Make it smaller and "
            f"try again."
        ) from error
    except UnidentifiedImageError as error:
        if kind := unknown_tiff(source):
            raise ImageError(
                f"This TIFF has {kind}, which cannot be read. Save it with 8 or 16 bits for each "
                f"value, in grey or RGB, and try again."
            ) from error
        raise ImageError(f"This is not a readable image. Use a {format_names()} file.") from error
    except MemoryError as error:
        raise ImageError("There is not enough memory for this image; make it smaller.") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        raise ImageError(
            "The image is damaged or incomplete. Save it again in another program, as PNG or "
            "JPEG, and try again."
        ) from error


def _checked(source: Path | IO[bytes]) -> ImageFile:
    """Open an image without decoding it. Raises ImageTooLarge."""
    if isinstance(source, Path):
        check_regular(source)
    image = _open(source)
    if image.width * image.height > MAX_PIXELS:
        raise too_large(image.width, image.height)
    return image


def _open(source: Path | IO[bytes]) -> ImageFile:
    """Open an image without decoding it."""
    if not isinstance(source, Path):
        source.seek(0)
    return Image.open(source, formats=tuple(name.upper() for name in FORMATS))


def _decoded(image: ImageFile, source: Path | IO[bytes]) -> ImageFile:
    """Decode an image just opened. Raises EOFError for a PNG that lacks rows."""
    image = with_real_depth(image, lambda: _open(source))
    if image.format == "PNG":
        with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
            if lacks_rows(image, file):
                raise EOFError
    return image


def too_large(width: int, height: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The image has {width:,} x {height:,} = {width * height / 1e6:,.0f} megapixels; "
        f"at most {MAX_PIXELS // 10**6} can be read. Make it smaller and try again."
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB: values of any range to 8 bits, transparency on white."""
    if is_wide(image):
        return Image.fromarray(to_8_bits(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if _is_nowhere_seen(image):
            return image.convert("RGB")
        return _on_white(image)
    return image.convert("RGB")


def _reduce(image: Image.Image, side: int, box: Box) -> tuple[Image.Image, Box]:
    """The part `box` to RGB with `side` to twice as many pixels a side, and where that part lies.

    Strip by strip, so that no second image of the whole size is made.
    """
    left, upper = math.floor(box[0]), math.floor(box[1])
    right, lower = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    width, height = right - left, lower - upper
    across, down = max(1, width // side), max(1, height // side)
    rows = down * max(1, STRIP_PIXELS // (width * down))
    strips = [(left, top, right, min(top + rows, lower)) for top in range(upper, lower, rows)]
    transparent = image.has_transparency_data
    if transparent:
        extrema = [image.crop(strip).convert("RGBA").getextrema() for strip in strips]
        low = np.min(extrema, axis=0)[:, 0]
        high = np.max(extrema, axis=0)[:, 1]
        transparent = high[3] > 0 or bool((low == high).all())  # as `_is_nowhere_seen`
    reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
    for place in strips:
        strip = image.crop(place)
        strip = _on_white(strip.convert("RGBA")) if transparent else strip.convert("RGB")
        reduced.paste(strip.reduce((across, down)), (0, (place[1] - upper) // down))
    return reduced, (
        (box[0] - left) / across,
        (box[1] - upper) / down,
        (box[2] - left) / across,
        (box[3] - upper) / down,
    )


def _on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image)
    return ground


def _is_nowhere_seen(image: Image.Image) -> bool:
    """Whether an RGBA image has colours and a transparency that hides all of them.

    Some programs leave the fourth channel empty.
    """
    pixels = np.asarray(image)
    return not pixels[..., 3].any() and bool((pixels != pixels[0, 0]).any())


def to_size(image: Image.Image, size: int, fit: str = SQUASH) -> np.ndarray:
    """Resize RGB to uint8 (size, size, 3); `fit` is one of FITS.

    Bilinear with antialias, as torchvision's `Resize((size, size))`.
    """
    inner, box = _inner(image.size, size, fit), _used(*image.size, fit)
    return _squared(image.resize(inner, Image.Resampling.BILINEAR, box=box), size)


def _used(width: float, height: float, fit: str) -> Box:
    """The part of an image that is shown."""
    if fit != CROP:
        return 0, 0, width, height
    side = min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def _inner(whole: tuple[int, int], size: int, fit: str) -> tuple[int, int]:
    """The width and height that this part gets, of `size` each."""
    if fit != PAD:
        return size, size
    width, height = (max(1, round(size * side / max(whole))) for side in whole)
    return width, height


def _squared(image: Image.Image, size: int) -> np.ndarray:
    """With white borders where it is smaller, as Pillow's `ImageOps.pad`."""
    if image.size == (size, size):
        return np.array(image)
    ground = Image.new("RGB", (size, size), "white")
    ground.paste(image, (round((size - image.width) / 2), round((size - image.height) / 2)))
    return np.array(ground)
