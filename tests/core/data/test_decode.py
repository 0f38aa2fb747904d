"""Image files of every make: decoded to upright RGB, or one sentence that says what is wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, TiffImagePlugin

from diffusion_core.data import decode
from diffusion_core.data.decode import (
    MAX_PIXELS,
    ImageError,
    open_image,
    read_square,
    to_rgb,
    to_size,
)
from tests import image_files
from tests.image_files import HALVES, RED, png_of, tiff_of

# Small, so that cutting and changing bytes hits something.
WHOLE = [
    image_files.halves("PNG"),
    image_files.halves("JPEG"),
    image_files.halves("GIF"),
    image_files.halves("WEBP"),
    image_files.halves("BMP"),
    image_files.halves("TIFF", compression="tiff_lzw"),
    image_files.halves("PPM"),
    image_files.halves("JPEG", "CMYK"),
    image_files.png_16_bit(),
    image_files.animated_gif(),
    png_of(np.full((2, 2, 4), 4095), 6),
    tiff_of(np.full((2, 2, 3), 4095, np.uint16), apart=True),
]


def pixels(source: bytes) -> np.ndarray:
    image = open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def near(found: np.ndarray, wanted: np.ndarray, by: float) -> bool:
    return float(np.abs(found.astype(float) - wanted).mean()) <= by


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_formats_without_loss_come_back_to_the_byte(kind: str) -> None:
    assert np.array_equal(pixels(image_files.halves(kind)), HALVES)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_formats_with_loss_come_back_nearly(kind: str) -> None:
    assert near(pixels(image_files.halves(kind, quality=95)), HALVES, 4)


def test_a_path_and_an_open_file_are_read_like_bytes(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(image_files.halves("PNG"))
    with file.open("rb") as opened:
        assert np.array_equal(np.asarray(open_image(opened)), HALVES)
    assert np.array_equal(np.asarray(open_image(file)), HALVES)


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    assert near(pixels(image_files.halves("JPEG", "CMYK", quality=95)), HALVES, 6)


def test_a_16_bit_png_is_scaled_to_8_bits_and_not_cut_off() -> None:
    found = pixels(image_files.png_16_bit())
    assert np.array_equal(found[0, :, 0], np.linspace(0, 255, 64).round())
    assert np.array_equal(found[..., 0], found[..., 2])


def test_every_16_bit_value_goes_to_the_nearest_8_bit_value() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = np.asarray(to_rgb(Image.fromarray(every)))[..., 0]
    assert np.array_equal(found, np.rint(every / 257))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 5.0, 10.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([-3.0, np.nan, 2.0], [0, 0, 255]),
        ([np.inf, -np.inf, 1.0], [255, 0, 255]),
        ([-1.0, -2.0, -3.0], [255, 128, 0]),
        ([-1024.0, 0.0, 3072.0], [0, 64, 255]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
        ([0.5, 0.5, 0.5], [128, 128, 128]),
        ([51.0, 51.0, 51.0], [51, 51, 51]),
        ([1e-30, 0.0, 5e-31], [255, 0, 128]),
        ([0.0, 1e38, 2e38], [0, 128, 255]),
    ],
)
def test_floats_are_scaled_by_their_range(values: list[float], wanted: list[int]) -> None:
    file = image_files.encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert pixels(file)[0, :, 0].tolist() == wanted


def ppm_of(values: np.ndarray) -> bytes:
    header = f"P6 {values.shape[1]} {values.shape[0]} 65535\n"
    return header.encode() + values.astype(">u2").tobytes()


RAMP = np.linspace(0, 1, 256)
_RISING = np.linspace(0, 1, 64)
# Red from dark to bright, green the other way, half as much blue: (4, 64, 3).
COLOURS = np.tile(np.stack([_RISING, 1 - _RISING, _RISING / 2], -1), (4, 1, 1))
SHOWN = list(range(256))


@pytest.mark.parametrize(
    ("dtype", "low", "high", "shown"),
    [
        ("uint16", 0, 65535, SHOWN),
        ("uint16", 0, 1023, SHOWN),
        ("uint16", 0, 4095, SHOWN),  # of a 12-bit camera
        ("uint16", 0, 16383, SHOWN),
        ("uint16", 0, 255, SHOWN),
        ("uint16", 0, 32767, [k // 2 for k in SHOWN]),
        ("int16", 0, 32767, SHOWN),
        ("int16", 0, 4095, SHOWN),
        ("int8", 0, 127, SHOWN),
        ("int8", -128, 127, SHOWN),
        ("int16", -1024, 3071, SHOWN),
        ("int16", -32768, 32767, SHOWN),
        ("uint32", 0, 2**32 - 1, SHOWN),
        ("uint32", 0, 65535, SHOWN),
        ("uint32", 0, 255, SHOWN),
        ("uint32", 0, 2**24 - 1, SHOWN),
        ("int32", 0, 2**31 - 1, SHOWN),
        ("int32", 0, 255, SHOWN),
        ("int32", 0, 4095, SHOWN),
        ("int32", -(2**31), 2**31 - 1, SHOWN),
        ("int32", -5, 5, None),
        ("float32", -1, 1, SHOWN),
        ("float32", -2000, 500, SHOWN),
    ],
)
def test_numbers_in_a_tiff_are_scaled_by_their_real_depth(
    dtype: str, low: int, high: int, shown: list[int] | None
) -> None:
    values = (low + RAMP * (high - low)).round(0 if dtype[0] != "f" else 9).astype(dtype)
    found = pixels(tiff_of(np.tile(values, (3, 1))))[1, :, 0].astype(int)
    assert (np.diff(found) >= 0).all()
    if shown:
        assert np.abs(found - shown).max() <= 1
    else:
        assert (found[0], found[-1]) == (0, 255)


def test_what_a_tiff_says_of_its_numbers_holds() -> None:
    values = np.tile(np.array([0, 500, 1000], np.uint16), (2, 1))
    assert pixels(tiff_of(values, {281: 1000}))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(tiff_of(values * 65, {262: 0}))[0, :, 0].tolist() == [255, 129, 2]


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize(
    "make",
    [
        tiff_of,
        partial(tiff_of, order=">"),
        partial(tiff_of, deflate=True),
        partial(tiff_of, deflate=True, predict=True, order=">"),
        partial(tiff_of, apart=True),
        partial(tiff_of, apart=True, order=">"),
        partial(png_of, colour=2),
        ppm_of,
    ],
    ids="plain big-endian deflate predicted apart big-endian-apart png ppm".split(),
)
def test_colours_are_scaled_by_their_real_depth(
    make: Callable[[np.ndarray], bytes], top: int
) -> None:
    values = (COLOURS * top).round().astype(np.uint16)
    found = pixels(make(values))
    assert np.abs(found - COLOURS * 255).max() <= 1


@pytest.mark.parametrize("top", [1023, 4095, 65535])
def test_transparency_of_16_bits_has_a_depth_of_its_own(top: int) -> None:
    colours = (COLOURS * top).round().astype(np.uint16)
    wanted = COLOURS * 255
    for opaque in (4095, 65535):
        alpha = np.full((*colours.shape[:2], 1), opaque, np.uint16)
        rgba = np.concatenate([colours, alpha], -1)
        grey = np.concatenate([colours[..., :1], alpha], -1)
        for file in (tiff_of(rgba, {338: 2}), tiff_of(rgba, {338: 1}), png_of(rgba, 6)):
            assert np.abs(pixels(file) - wanted).max() <= 1
        assert np.abs(pixels(png_of(grey, 4)) - wanted[..., :1]).max() <= 1
    half = np.concatenate(
        [
            colours // 2,
            np.full_like(alpha, top // 2),
        ],
        -1,
    )
    found = pixels(tiff_of(half, {338: 1}))  # multiplied by the transparency
    assert np.abs(found - (wanted / 2 + 127)).max() <= 2


def test_other_colours_of_16_bits_are_scaled_too() -> None:
    cmyk = np.concatenate([1 - COLOURS, np.zeros((4, 64, 1))], -1)
    for top in (4095, 65535):
        file = tiff_of((cmyk * top).round().astype(np.uint16), {262: 5})
        assert np.abs(pixels(file) - COLOURS * 255).max() <= 1
    beside = np.concatenate([COLOURS, np.ones((4, 64, 1))], -1)
    file = tiff_of((beside * 4095).round().astype(np.uint16), {338: 0})
    assert np.abs(pixels(file) - COLOURS * 255).max() <= 1
    declared = tiff_of((COLOURS * 1000).round().astype(np.uint16), {281: [1000] * 3})
    assert np.abs(pixels(declared) - COLOURS * 255).max() <= 1
    assert not pixels(tiff_of(np.zeros((2, 2, 3), np.uint16))).any()


def test_an_upright_photo_of_12_bits_is_turned_as_its_tag_says() -> None:
    values = (COLOURS * 4095).round().astype(np.uint16)
    found = pixels(tiff_of(values, {274: 6}))
    assert np.abs(found - np.rot90(COLOURS, 3) * 255).max() <= 1


def test_a_palette_of_8_bits_in_a_tiff_is_not_black() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    for scale in (1, 257):
        palette = [scale * k for k in [*range(256), *range(255, -1, -1), *[9] * 256]]
        found = pixels(tiff_of(ramp, {262: 3, 320: palette}))[0]
        assert found[200].tolist() == [200, 55, 9]


def test_a_neutral_lab_image_is_grey() -> None:
    lab = np.zeros((1, 256, 3), np.uint8)
    lab[..., 0] = SHOWN
    found = pixels(tiff_of(lab, {262: 8})).astype(int)
    assert (np.ptp(found, axis=-1) <= 1).all()
    assert found[0, [0, 128, 255], 1].tolist() == [0, 119, 255]


@pytest.mark.parametrize(
    ("file", "holds"),
    [
        (tiff_of(np.zeros((2, 2, 3), np.float32)), "32-bit floating-point numbers in 3 channels"),
        (tiff_of(np.zeros((2, 2, 3), np.uint32)), "32-bit whole numbers in 3 channels"),
        (tiff_of(np.zeros((2, 2, 3), np.int16)), "16-bit signed whole numbers in 3 channels"),
        (tiff_of(np.zeros((2, 2), np.float64)), "64-bit floating-point numbers in 1 channel"),
        (tiff_of(np.zeros((2, 2, 5), np.uint8)), "8-bit whole numbers in 5 channels"),
        (
            tiff_of(np.full((2, 2, 3), 4095, np.uint16), apart=True, deflate=True),
            "16-bit whole numbers in 3 separate channels",
        ),
        (tiff_of(np.zeros((2, 2), np.uint8), {259: 12345}), "an unusual compression"),
    ],
    ids="floats uint32 int16 float64 bands apart compression".split(),
)
def test_a_tiff_of_another_kind_is_refused_with_what_it_holds(file: bytes, holds: str) -> None:
    with pytest.raises(ImageError) as raised:
        open_image(file)
    assert str(raised.value) == (
        f"This TIFF has {holds}, which cannot be read. Save it with 8 or 16 bits for each value, "
        "in grey or RGB, and try again."
    )


def test_a_dark_image_of_16_bits_is_not_black_and_a_black_one_is() -> None:
    dark = pixels(tiff_of(np.full((2, 2), 100, np.uint16)))
    assert (dark == 100).all()
    assert not pixels(tiff_of(np.zeros((2, 2), np.int32))).any()


def test_values_that_stand_for_none_do_not_count() -> None:
    image = Image.fromarray(np.array([[-9999, 0, 5, 10]], np.float32))
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[42113] = "-9999"
    file = image_files.encode(image, "TIFF", tiffinfo=info)
    assert pixels(file)[0, :, 0].tolist() == [0, 0, 128, 255]


def test_an_animation_gives_its_first_frame() -> None:
    assert np.array_equal(pixels(image_files.animated_gif())[5, 5], (255, 0, 0))


def test_a_single_pixel_is_an_image() -> None:
    image = open_image(image_files.one_pixel())
    assert np.array_equal(to_size(image, 64), np.tile(np.array(RED, np.uint8), (64, 64, 1)))


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (200, 30, 30, 255))
    image.putpixel((1, 0), (200, 30, 30, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    found = pixels(image_files.encode(image, "PNG"))[0]
    assert found[:2].tolist() == [[200, 30, 30], [255, 255, 255]]
    assert np.abs(found[2].astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_transparency_that_hides_the_whole_image_does_not_count(kind: str) -> None:
    image = Image.fromarray(HALVES)
    image.putalpha(0)
    assert np.array_equal(pixels(image_files.encode(image, kind)), HALVES)
    assert (pixels(image_files.encode(Image.new("RGBA", (2, 2)), kind)) == 255).all()
    image.putpixel((0, 0), (*RED, 255))
    assert pixels(image_files.encode(image, kind))[0, :2].tolist() == [[*RED], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_colour_that_a_png_calls_transparent_is_white(mode: str) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), 90 if mode == "L" else (90, 90, 90))
    key = 0 if mode == "L" else (0, 0, 0)
    found = pixels(image_files.encode(image, "PNG", transparency=key))
    assert found[0].tolist() == [[255, 255, 255], [90, 90, 90]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_common_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.where(HALVES[..., 0] > 100, 255, 0).astype(np.uint8))
    found = pixels(image_files.encode(grey.convert(mode), "PNG"))
    assert np.array_equal(found, np.asarray(grey.convert("RGB")))


def test_a_palette_with_a_transparent_entry_is_laid_on_white() -> None:
    image = Image.fromarray(HALVES).quantize(2)
    clear = image.getpixel((0, 0))
    found = pixels(image_files.encode(image, "PNG", transparency=clear))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, -1].tolist() == HALVES[0, -1].tolist()


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_a_photo_is_turned_upright_as_its_exif_says(orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = image_files.halves("JPEG", quality=95, exif=exif)
    assert near(pixels(file), np.rot90(HALVES, turns), 4)


def test_both_sides_are_resized_as_torchvision_does() -> None:
    from torchvision.transforms import Resize

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8))
    assert np.array_equal(to_size(image, 64), np.asarray(Resize((64, 64))(image)))


def test_an_image_becomes_a_square_by_its_centre_between_borders_or_stretched() -> None:
    thirds = np.zeros((4, 12, 3), np.uint8)  # three squares: red, green, blue
    for k in range(3):
        thirds[:, 4 * k : 4 * k + 4, k] = 200
    image, white = Image.fromarray(thirds), (255, 255, 255)
    assert (to_size(image, 4, decode.CROP) == thirds[:, 4:8]).all()
    upright = Image.fromarray(thirds.transpose(1, 0, 2))
    assert (to_size(upright, 4, decode.CROP) == thirds[:, 4:8]).all()
    fitted = to_size(image, 12, decode.PAD)
    assert (fitted[4:8] == thirds).all()
    assert (fitted[:4] == white).all() and (fitted[8:] == white).all()
    stretched = to_size(image, 12, decode.SQUASH)
    assert (stretched == thirds[:1]).all()
    assert (to_size(image, 12) == stretched).all()


def test_crop_and_pad_are_those_of_pillow() -> None:
    random = np.random.default_rng(0)
    for width, height in ((150, 90), (90, 150), (64, 64), (333, 100), (20, 500), (61, 64), (1, 1)):
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        for size in (16, 64):
            way = Image.Resampling.BILINEAR
            cropped = np.asarray(ImageOps.fit(image, (size, size), way))
            assert np.array_equal(to_size(image, size, decode.CROP), cropped), (width, height)
            padded = np.asarray(ImageOps.pad(image, (size, size), way, "white"))
            assert np.array_equal(to_size(image, size, decode.PAD), padded), (width, height)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", "This is not a readable image."),
        (image_files.TEXT, "This is not a readable image."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "This is not a readable image."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a readable"),
        (image_files.truncated_jpeg(), "The image is damaged or incomplete."),
        (image_files.halves("PNG")[:60], "The image is damaged or incomplete."),
        (image_files.huge_png(10_000, 20_000), "far more than 50 megapixels. Make it smaller"),
        (image_files.huge_png(8_000, 8_000), "8,000 x 8,000 = 64 megapixels; at most 50"),
        (image_files.huge_png(2**30, 1), "far more than 50 megapixels"),
    ],
    ids="empty text svg eps cut-jpeg cut-png 200-megapixels 64-megapixels one-long-row".split(),
)
def test_what_cannot_be_used_gets_one_sentence_that_says_why(file: bytes, sentence: str) -> None:
    with pytest.raises(ImageError) as raised:
        open_image(file)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("bits", "colour"), [(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (2, 3), (8, 3), (8, 4), (8, 6)]
)
@pytest.mark.parametrize(("width", "height"), [(21, 20), (1, 2), (3, 9)])
def test_a_png_that_lacks_rows_is_refused_and_a_whole_one_is_not(
    width: int,
    height: int,
    bits: int,
    colour: int,
    interlaced: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "WHOLE_PIXELS", 0)  # `read_square` reduces all of them first
    kind = width, height, bits, colour, interlaced
    whole = image_files.png_without(0, *kind)
    assert read_square(whole, 8).all() and np.asarray(open_image(whole)).all()
    file = tmp_path / "a.png"
    for rows in {1, height // 2}:
        file.write_bytes(image_files.png_without(rows, *kind))
        with pytest.raises(ImageError, match="damaged or incomplete"):
            open_image(file)
        with pytest.raises(ImageError, match="damaged or incomplete"):
            read_square(file.read_bytes(), 8)


def test_a_png_that_ends_in_black_is_whole() -> None:
    image = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    assert open_image(image_files.encode(image, "PNG")).size == (40, 30)


def test_a_200_megapixel_image_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = image_files.huge_png(10_000, 20_000)
    assert len(file) < 100_000

    def load(self: Image.Image) -> None:
        raise AssertionError("the image was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    tracemalloc.start()
    with pytest.raises(ImageError):
        open_image(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_the_largest_image_that_is_taken_has_the_limits_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_PIXELS == 50_000_000
    monkeypatch.setattr(decode, "MAX_PIXELS", 800)
    assert open_image(image_files.huge_png(40, 20)).size == (40, 20)
    with pytest.raises(ImageError, match="40 x 21 = 0 megapixels"):
        open_image(image_files.huge_png(40, 21))


def test_an_image_that_the_memory_does_not_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match="not enough memory"):
        open_image(image_files.halves("PNG"))


def decoded_or_refused(file: bytes) -> None:
    """Whatever comes, an RGB image or a ImageError with a sentence, and nothing else."""
    try:
        image = open_image(file)
    except ImageError as error:
        assert str(error).endswith(".")
        assert "\n" not in str(error)
    else:
        assert image.mode == "RGB"
        assert to_size(image, 8).shape == (8, 8, 3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([b"", *(file[:16] for file in WHOLE), b"\x00" * 4, b"8BPS", b"icns"]),
    rest=st.binary(max_size=200),
)
@example(start=b"", rest=b"")
def test_arbitrary_bytes_never_raise_anything_but_an_image_error(start: bytes, rest: bytes) -> None:
    decoded_or_refused(start + rest)


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.data(), file=st.sampled_from(WHOLE))
def test_an_image_with_some_bytes_changed_or_lost_never_raises_anything_else(
    data: st.DataObject, file: bytes
) -> None:
    damaged = bytearray(file[: data.draw(st.integers(0, len(file)))])
    for _ in range(data.draw(st.integers(0, 6))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decoded_or_refused(bytes(damaged))
