"""Images of visitors: read in a process with little memory, and as `open_image` reads them."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from diffusion_core.data import decode, decode_apart
from diffusion_core.data.decode import (
    FITS,
    ImageError,
    open_image,
    read_square,
    to_size,
    upright_size,
)
from diffusion_core.media.images import png
from tests import image_files

SIZE = 8


def large(mode: str, kind: str, **options: object) -> bytes:
    """400 x 300, smooth, transparent at the top where the mode has transparency."""
    y, x = np.mgrid[0:300, 0:400]
    pixels = np.stack([x * 255 // 400, y * 255 // 300, 200 - y // 2, y * 255 // 300], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8))
    return image_files.encode(image.convert(mode), kind, **options)


def turned() -> bytes:
    exif = Image.Exif()
    exif[decode.ExifTags.Base.Orientation] = 6
    return large("RGB", "JPEG", exif=exif, quality=95)


def hidden() -> bytes:
    """Colours under a transparency that hides all of them, which some programs leave behind."""
    image = Image.open(io.BytesIO(large("RGB", "PNG"))).convert("RGBA")
    image.putalpha(0)
    return image_files.encode(image, "PNG")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "data",
    [
        large("RGB", "PNG"),
        large("RGBA", "PNG"),
        large("P", "PNG"),
        large("LA", "PNG"),
        large("L", "JPEG", quality=95),
        large("CMYK", "JPEG", quality=95),
        turned(),
        hidden(),
        image_files.png_16_bit(),
    ],
    ids=["RGB", "RGBA", "palette", "LA", "grey JPEG", "CMYK", "turned", "hidden", "16 bits"],
)
def test_a_large_image_is_reduced_to_nearly_what_the_whole_would_give(
    data: bytes, fit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_image(data)
    with monkeypatch.context() as patch:
        patch.setattr(decode.ImageFile, "load", pytest.fail)  # the header is enough
        assert upright_size(data) == whole.size
    monkeypatch.setattr(decode, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(decode, "STRIP_PIXELS", 4000)  # several strips
    difference = read_square(data, SIZE, fit).astype(int) - to_size(whole, SIZE, fit)
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("fit", FITS)
def test_a_usual_image_is_read_as_anywhere(fit: str) -> None:
    data = large("RGBA", "PNG")
    found = decode_apart.decode_apart(data, 16, fit)
    assert np.array_equal(found, to_size(open_image(data), 16, fit))


@pytest.mark.parametrize("across", [True, False])
def test_the_centre_of_a_long_image_is_reduced_no_more_than_it_must(
    across: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = np.zeros((16, 1600, 3), np.uint8)
    lines[:, ::2] = 255  # every second column; averaged over two or more they are grey
    data = png(lines if across else lines.transpose(1, 0, 2))
    monkeypatch.setattr(decode, "WHOLE_PIXELS", 100)
    found = read_square(data, 16, decode.CROP)
    assert set(np.unique(found)) == {0, 255}


def flat(side: int) -> bytes:
    """A black RGBA PNG that is tiny as a file."""
    squeeze = zlib.compressobj(1)
    body = b"".join(squeeze.compress(bytes(4 * side + 1)) for _ in range(side)) + squeeze.flush()
    header = (side).to_bytes(4, "big") * 2 + bytes([8, 6, 0, 0, 0])
    return image_files._png(header, body)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is used")
def test_what_does_not_fit_into_the_memory_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    data = flat(2500)  # 25 MB
    assert decode_apart.decode_apart(data, SIZE).shape == (SIZE, SIZE, 3)
    monkeypatch.setattr(decode_apart, "MEMORY", 10 * 2**20)
    with pytest.raises(ImageError, match=r"^The image needs more than 10 MB of memory to be read"):
        decode_apart.decode_apart(data, SIZE)


def test_what_is_wrong_with_a_file_is_said_as_anywhere() -> None:
    for data in (image_files.TEXT, image_files.truncated_jpeg(), image_files.huge_png(8000, 8000)):
        with pytest.raises(ImageError) as here:
            open_image(data)
        with pytest.raises(ImageError) as apart:
            decode_apart.decode_apart(data, SIZE)
        assert str(apart.value) == str(here.value)


def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_apart, "SECONDS", 0.001)
    with pytest.raises(ImageError, match="takes longer than 0 s to read"):
        decode_apart.decode_apart(image_files.one_pixel(), SIZE)


def test_one_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_apart, "PATIENCE", 0.01)
    with decode_apart._turn, pytest.raises(ImageError, match="Many images are being read"):
        decode_apart.decode_apart(image_files.one_pixel(), SIZE)
    assert decode_apart.decode_apart(image_files.one_pixel(), SIZE)[0, 0].tolist() == [200, 30, 30]


def test_the_process_starts_without_pytorch() -> None:
    code = "import sys, diffusion_core.data.decode_apart; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"False\n"
