"""Tensors to images: nothing is lost on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from diffusion_core.media.images import encode, grid, png, strip, to_uint8


def numbered(n: int, height: int = 2, width: int = 3) -> np.ndarray:
    """n images, each of one level: 1, 2, ..., n."""
    levels = np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (n, height, width, 3)).copy()


def test_all_256_levels_come_back_the_same() -> None:
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 9)], axis=-1).reshape(1, 16, 16, 3)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    assert np.array_equal(to_uint8(x), image)
    of_torchvision = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    assert np.array_equal(to_uint8(of_torchvision), image)


def test_what_lies_beyond_black_and_white_is_black_and_white() -> None:
    x = torch.tensor([-7.0, -1.0, 0.0, 1.0, 1.01]).reshape(1, 1, 1, 5)
    assert to_uint8(x).flatten().tolist() == [0, 0, 128, 255, 255]


def test_half_precision_and_gradients_are_no_obstacle() -> None:
    x = torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert to_uint8(x).shape == (1, 2, 2, 3)


def test_a_strip_holds_its_images_from_left_to_right() -> None:
    found = strip(numbered(4))
    assert found.shape == (2, 12, 3)
    assert found[0, ::3, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("n", "columns", "shape"),
    [(1, None, (2, 3)), (4, None, (4, 6)), (5, None, (4, 9)), (16, None, (8, 12)), (5, 8, (2, 15))],
)
def test_a_grid_is_nearly_square_unless_told_otherwise(
    n: int, columns: int | None, shape: tuple[int, int]
) -> None:
    found = grid(numbered(n), columns)
    assert found.shape == (*shape, 3) and found.dtype == np.uint8
    corners = found[::2, ::3, 0].flatten().tolist()
    # Row by row, and black where no image is left.
    assert corners == [*range(1, n + 1), *[0] * (len(corners) - n)]


def test_a_png_is_the_image_to_the_pixel_and_keeps_its_words() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pil_image = Image.open(io.BytesIO(png(image, text={"seed": "3", "words": "β, ε"})))
    assert pil_image.format == "PNG" and pil_image.mode == "RGB"
    assert np.array_equal(np.asarray(pil_image), image)
    assert isinstance(pil_image, PngImageFile)
    assert pil_image.text == {"seed": "3", "words": "β, ε"}


def test_an_enlarged_png_draws_each_pixel_as_a_square() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    large = np.asarray(Image.open(io.BytesIO(png(image, enlarge=4))))
    assert np.array_equal(large, image.repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize(
    ("suffix", "format", "furthest"),
    [
        (".png", "PNG", 0),
        (".JPG", "JPEG", 8),
        (".jpeg", "JPEG", 8),
        (".webp", "WEBP", 0),
        (".avif", "AVIF", 8),
        (".tif", "TIFF", 0),
        (".tiff", "TIFF", 0),
        (".bmp", "BMP", 0),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_written_in_the_format_that_its_name_says(
    suffix: str, format: str, furthest: int, channels: int
) -> None:
    ramp = np.linspace(0, 255, 32 * 24).reshape(32, 24, 1).astype(np.uint8)
    image = np.repeat(ramp, channels, axis=-1)
    pil_image = Image.open(io.BytesIO(encode(image, suffix, {"seed": "3"})))
    assert (pil_image.format, pil_image.size) == (format, (24, 32))
    read = np.asarray(pil_image.convert("RGB"), int)
    assert np.abs(read - image).max() <= furthest


def test_an_image_that_is_too_large_for_a_format_gets_a_sentence() -> None:
    wide = np.zeros((1, 16_384, 3), np.uint8)
    assert len(encode(wide, ".png"))
    sentence = "has 16,384×1 pixels, and .webp allows at most 16,383 a side; choose .png"
    with pytest.raises(ValueError, match=sentence):
        encode(wide, ".webp")
