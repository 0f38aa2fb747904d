"""Image files as people upload them, good and bad, each as bytes. Knows no test."""

from __future__ import annotations

import io
import struct
import zlib

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
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", squeezed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
