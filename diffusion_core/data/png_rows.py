"""PNG files whose pixels end too early: Pillow leaves the missing rows black and says nothing."""

from __future__ import annotations

import struct
import zlib
from typing import IO

import numpy as np
from PIL import Image

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a colour type
# Of an interlaced file: the first column and row of each pass, and the distance to the next ones.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip
AT_ONCE = 2**20  # bytes that are decompressed at a time


def lacks_rows(image: Image.Image, file: IO[bytes]) -> bool:
    """Whether the file of a decoded PNG holds fewer pixels than its header says."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    if "interlace" not in image.info and np.asarray(last).any():
        return False
    pixels, wanted = zlib.decompressobj(), 0
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        data = file.read(length + 4)[:length]  # without the checksum
        if kind == b"IHDR":
            wanted = _size(*struct.unpack(">IIBBBBB", data))
        elif kind == b"IDAT":
            while data and wanted > 0:
                wanted -= len(pixels.decompress(data, AT_ONCE))
                data = pixels.unconsumed_tail
    return wanted > 0 and wanted > len(pixels.flush())


def _size(width: int, height: int, bits: int, kind: int, _: int, __: int, interlaced: int) -> int:
    """The bytes of all pixels with the byte before each row that names its filter."""
    size = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + -(-columns * bits * CHANNELS[kind] // 8))
    return size
