"""Decode image files to RGB pixels, or say in one sentence what is wrong with them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from diffusion_core.data.values import is_wide, to_8_bits, unknown_tiff, with_real_depth
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
    try:
        with warnings.catch_warnings():
            # Pillow warns of large and damaged images; the errors below say the same.
            warnings.simplefilter("ignore")
            if isinstance(source, Path):
                check_regular(source)
            image = _open(source)
            if image.width * image.height > MAX_PIXELS:
                raise too_large(image.width, image.height)
            image = with_real_depth(image, lambda: _open(source))
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


def _open(source: Path | IO[bytes]) -> ImageFile:
    """Open an image without decoding it."""
    if not isinstance(source, Path):
        source.seek(0)
    return Image.open(source, formats=tuple(name.upper() for name in FORMATS))


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
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image)
        return ground
    return image.convert("RGB")


def _is_nowhere_seen(image: Image.Image) -> bool:
    """Whether an RGBA image has colours and a transparency that hides all of them.

    Some programs leave the fourth channel empty.
    """
    pixels = np.asarray(image)
    return not pixels[..., 3].any() and bool((pixels != pixels[0, 0]).any())


def to_size(image: Image.Image, size: int) -> np.ndarray:
    """Resize RGB to uint8 (size, size, 3), stretched to a square as in the lecture.

    Bilinear with antialias, as torchvision's `Resize((size, size))`.
    """
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
