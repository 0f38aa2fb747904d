"""Tensors to uint8 images, strips, grids and PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

# The formats of an image file by the end of its name, with what Pillow is told of each. All but
# JPEG and AVIF keep every value.
IMAGE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
    ".bmp": ("BMP", {}),
}
LARGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 65_535}  # pixels, by format
LONG_TEXT = 1000  # characters; longer entries of a PNG are compressed


def to_uint8(x: Tensor) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] to uint8 (B, H, W, C): (x + 1) / 2 * 255, rounded.

    Rounded, not truncated as in the lecture, so an image scaled to [-1, 1] is restored exactly.
    """
    scaled = ((x.detach().float().cpu() + 1) * 127.5).clamp(0, 255).round()
    return scaled.permute(0, 2, 3, 1).byte().numpy()


def strip(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Images (H, W, C) side by side: (H, n W, C)."""
    return np.concatenate(list(images), axis=1)


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images (n, H, W, C) as rows of `columns` (by default nearly square); the rest is black."""
    n, height, width, channels = images.shape
    columns = min(n, columns or int(np.ceil(n**0.5)))
    rows = -(-n // columns)
    empty = np.zeros((rows * columns - n, height, width, channels), images.dtype)
    cells = np.concatenate([images, empty]).reshape(rows, columns, height, width, channels)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def to_pil(image: np.ndarray) -> Image.Image:
    """A uint8 image (H, W, 3) or (H, W, 1) of Pillow's: in colour or grey."""
    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def png(image: np.ndarray, enlarge: int = 1, text: Mapping[str, str] | None = None) -> bytes:
    """A uint8 image (H, W, 3) or (H, W, 1) as PNG, each pixel enlarged `enlarge` times.

    `text`: entries stored in the file, such as the settings that made the image.
    """
    pil_image = to_pil(image)
    if enlarge > 1:
        size = (pil_image.width * enlarge, pil_image.height * enlarge)
        pil_image = pil_image.resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    pil_image.save(buffer, format="PNG", pnginfo=png_entries(text))
    return buffer.getvalue()


def encode(image: np.ndarray, suffix: str, text: Mapping[str, str] | None = None) -> bytes:
    """A uint8 image (H, W, 3) or (H, W, 1) in the format of one of IMAGE_FORMATS.

    `text`: see `png`; the other formats do not hold it. Raises ValueError as `check_size` does.
    """
    format, options = IMAGE_FORMATS[suffix.lower()]
    if format == "PNG":
        return png(image, text=text)
    check_size(image.shape[1], image.shape[0], suffix)
    buffer = io.BytesIO()
    pil_image = to_pil(image)
    pil_image.save(buffer, format=format, **options)
    return buffer.getvalue()


def check_size(width: int, height: int, suffix: str) -> None:
    """Raises ValueError for an image with more pixels a side than the format allows."""
    most = LARGEST_SIDE.get(IMAGE_FORMATS[suffix.lower()][0])
    if most is not None and max(width, height) > most:
        raise ValueError(
            f"The image has {width:,}×{height:,} pixels, and {suffix} allows at most {most:,} a "
            "side; choose .png."
        )


def png_entries(text: Mapping[str, str] | None) -> PngInfo:
    """`text` as Pillow's PNG writer takes it."""
    entries = PngInfo()
    for name, value in (text or {}).items():
        entries.add_itxt(name, value, zip=len(value) > LONG_TEXT)
    return entries
