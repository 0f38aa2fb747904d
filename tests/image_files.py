"""Image files as people upload them, good and bad, each as bytes. Knows no test."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Literal

import numpy as np
from PIL import Image

RED = (200, 30, 30)
# Left half red, right half blue, as wide as two heights.
HALVES = np.zeros((20, 40, 3), np.uint8)
HALVES[:, :20] = RED
HALVES[:, 20:] = (30, 30, 200)

TEXT = b"This is a letter, not an image.\n" * 40


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(kind: str, mode: str = "RGB", **options: object) -> bytes:
    return encode(Image.fromarray(HALVES).convert(mode), kind, **options)


def truncated_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encode(Image.fromarray(noise), "JPEG")
    return whole[: len(whole) // 2]


def png_16_bit() -> bytes:
    """A grey ramp from black on the left to white on the right, 16 bits a value."""
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)
    return encode(Image.fromarray(np.tile(ramp, (8, 1))), "PNG")


def animated_gif() -> bytes:
    """Three frames: red, green, blue."""
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "lime", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def one_pixel() -> bytes:
    return encode(Image.new("RGB", (1, 1), RED), "PNG")


def huge_png(width: int, height: int) -> bytes:
    """A whole, valid, white PNG of any size that is small as a file: one bit a pixel."""
    row = b"\x00" + b"\xff" * -(-width // 8)
    squeeze = zlib.compressobj(9)
    squeezed = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    return _png(struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), squeezed)


def _png(header: bytes, squeezed: bytes, palette: bytes = b"") -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", squeezed), (b"IEND", b"")]
    if palette:
        chunks.insert(1, (b"PLTE", palette))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def png_of(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits of (H, W, channels); `colour`: 2 RGB, 4 grey with alpha, 6 RGBA."""
    rows = values.astype(">u2").reshape(len(values), -1)
    squeezed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    height, width, _ = values.shape
    return _png(struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0), squeezed)


def png_without(
    rows: int, width: int, height: int, bits: int, colour: int, interlaced: bool = False
) -> bytes:
    """A PNG of bright pixels whose compressed data is whole, but without the last `rows` rows."""
    step = {True: ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2),
                   (0, 1, 2, 2), (1, 0, 2, 1)), False: ((0, 0, 1, 1),)}  # fmt: skip
    grid = np.empty((height, width))
    parts = [grid[top::down, left::across].shape for top, left, down, across in step[interlaced]]
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    lines = [-(-columns * bits * channels // 8) for count, columns in parts for _ in range(count)]
    lines = [length for length in lines if length]
    stream = b"".join(b"\0" + b"\xff" * length for length in lines[: len(lines) - rows])
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return _png(header, zlib.compress(stream), b"\xff" * 768 if colour == 3 else b"")


def tiff_of(
    values: np.ndarray,
    tags: dict[int, int | list[int]] | None = None,
    *,
    order: Literal["<", ">"] = "<",
    deflate: bool = False,
    predict: bool = False,
    apart: bool = False,
) -> bytes:
    """A TIFF of (H, W) or (H, W, channels) of any type of number; Pillow writes only some of them.

    `order`: of the bytes. `predict`: differences between neighbours. `apart`: one channel after
    the other. `tags`: added to those that follow from the values, or in their place.
    """
    kinds = {"u": 1, "i": 2, "f": 3}
    values = values.reshape(*values.shape[:2], -1)
    height, width, channels = values.shape
    stored = values.copy()
    if predict:
        stored[:, 1:] -= values[:, :-1]
    stored = stored.astype(values.dtype.newbyteorder(order))
    split = [stored[..., k] for k in range(channels)] if apart else [stored]
    strips = [zlib.compress(part.tobytes()) if deflate else part.tobytes() for part in split]
    lengths = [len(strip) for strip in strips]
    starts = [8 + sum(lengths[:k]) for k in range(len(strips))]
    entries: dict[int, int | list[int]] = {
        256: width, 257: height, 258: [values.itemsize * 8] * channels, 259: 8 if deflate else 1,
        262: 2 if channels > 2 else 1, 273: starts, 277: channels, 278: height, 279: lengths,
        284: 1 + apart, 317: 1 + predict, 339: [kinds[values.dtype.kind]] * channels,
    } | (tags or {})  # fmt: skip
    directory_at = 8 + sum(lengths)
    more_at = directory_at + 2 + 12 * len(entries) + 4
    directory, more = struct.pack(f"{order}H", len(entries)), b""
    for tag, given in sorted(entries.items()):
        listed = given if isinstance(given, list) else [given]
        body = struct.pack(f"{order}{len(listed)}I", *listed)
        if len(listed) > 1:
            more += body
            body = struct.pack(f"{order}I", more_at + len(more) - len(body))
        directory += struct.pack(f"{order}HHI", tag, 4, len(listed)) + body
    magic = b"II*\0" if order == "<" else b"MM\0*"
    header = magic + struct.pack(f"{order}I", directory_at)
    return header + b"".join(strips) + directory + b"\0" * 4 + more
