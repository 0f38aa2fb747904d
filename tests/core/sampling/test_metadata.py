"""The settings in a PNG file: they come back, and a file of any origin is believed in nothing."""

from __future__ import annotations

import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_core.media.images import png
from diffusion_core.sampling.metadata import ENTRY, Kind, Made, NoSettings, entries, read
from diffusion_core.sampling.spec import EACH_IN_TURN, SamplingSpec

SPEC = SamplingSpec(
    run="cars", step=20, n=8, steps=3, seed=5, classes=("van", "coupé"), label=EACH_IN_TURN
)
PIXELS = np.zeros((4, 4, 3), np.uint8)


def file_with(text: str) -> bytes:
    return png(PIXELS, text={ENTRY: text})


def changed(**values: object) -> bytes:
    return file_with(json.dumps(json.loads(entries(SPEC, 3)[ENTRY]) | values))


def chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check


def with_chunk(more: bytes, file: bytes | None = None) -> bytes:
    """A PNG with a chunk of ours behind its first, which has its size."""
    file = png(PIXELS) if file is None else file
    return file[:33] + more + file[33:]


def test_a_grid_and_a_single_image_give_their_settings_back() -> None:
    assert read(png(PIXELS, text=entries(SPEC))) == Made(SPEC, None)
    assert read(png(PIXELS, text=entries(SPEC, 3))) == Made(SPEC, 3, Kind.IMAGE)
    assert json.loads(entries(SPEC, 3)[ENTRY])["class"] == "coupé"
    assert entries(SPEC, 3)["Description"].endswith("each class in turn (image 4)")


def test_what_is_no_such_grid_says_what_it_is_and_under_which_settings() -> None:
    page = {"mode": "Side by side", "vs_n": 2, "vs_seed": [0, 7]}
    made = read(png(PIXELS, text=entries(SPEC, what="side by side", page=page)))
    assert made == Made(SPEC, None, Kind.GRID, page)
    assert made.mode == "Side by side"
    film = read(png(PIXELS, text=entries(SPEC, 2, "film of image 3", kind=Kind.FILM)))
    assert film == Made(SPEC, 2, Kind.FILM) and film.mode == ""
    assert read(changed(kind=[1], page="Draw")) == Made(SPEC, 3, Kind.IMAGE)
    assert read(changed(kind="![](//evil.example)")) == Made(SPEC, 3, Kind.OTHER)
    assert read(changed(page={"mode": 7})).mode == ""


@pytest.mark.parametrize(
    ("what", "image", "kind"),
    [
        ("film of image 3", 2, Kind.FILM),
        ("film of all images", None, Kind.FILM),
        ("predicted images out of the noise", 2, Kind.STRIP),
        ("", 2, Kind.IMAGE),
        ("side by side", None, Kind.OTHER),
        ([1], None, Kind.GRID),
    ],
)
def test_files_of_earlier_versions_say_in_words_what_they_show(
    what: object, image: int | None, kind: Kind
) -> None:
    record = json.loads(entries(SPEC, image)[ENTRY]) | {"what": what}
    del record["kind"]
    assert read(file_with(json.dumps(record))) == Made(SPEC, image, kind)


def test_settings_with_the_names_of_many_classes_come_back() -> None:
    many = SamplingSpec(
        run="cars", step=20, classes=tuple(f"class {k}" for k in range(3000)), label="class 7"
    )
    file = png(PIXELS, text=entries(many))
    assert len(file) < 20_000  # the same few letters again and again
    assert read(file) == Made(many)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", "The file is no PNG image"),
        (b"GIF89a" + bytes(100), "The file is no PNG image"),
        (png(PIXELS)[:20], "The file is no PNG image|damaged"),
        (png(PIXELS), "carries no settings"),
        (file_with("{"), "settings in the image are damaged"),
        (file_with("[" * 100_000), "settings in the image are damaged"),
        (file_with("[]"), "The settings: it is a list; it must be an object"),
        (file_with("{}"), "The settings: run is missing"),
        (changed(n=10**9), "The settings: n is 1000000000; it must be from 1 to 4,096"),
        (changed(sampler="magic"), "There is no sampler 'magic'"),
        (changed(picture=8), "the request has no such image"),
        (changed(picture=True), "the request has no such image"),
        (changed(picture=-1), "the request has no such image"),
        (bytes(65 * 2**20), "larger than 64 MB"),
    ],
)
def test_a_file_without_settings_that_can_be_used_gets_a_sentence(
    file: bytes, sentence: str
) -> None:
    with pytest.raises(NoSettings, match=sentence):
        read(file)


def test_a_jpeg_is_no_image_of_ours() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="JPEG")
    with pytest.raises(NoSettings, match="no PNG image"):
        read(buffer.getvalue())


@pytest.mark.parametrize("kind", ["iTXt", "zTXt"])
def test_an_entry_that_grows_beyond_all_bounds_is_refused(kind: str) -> None:
    bomb = zlib.compress(b'{"run": "' + bytes(50 * 2**20) + b'"}')
    head = ENTRY.encode() + (b"\0\1\0\0\0" if kind == "iTXt" else b"\0\0")
    file = with_chunk(chunk(kind.encode(), head + bomb))
    assert len(file) < 100_000
    with pytest.raises(NoSettings):
        read(file)


def test_an_image_of_too_many_pixels_is_not_decoded_and_gets_a_sentence() -> None:
    size = (10**5).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    file = png(PIXELS, text=entries(SPEC))
    huge = file[:8] + chunk(b"IHDR", size) + file[33:]
    with pytest.raises(NoSettings, match="too many pixels"):
        read(huge)


def test_settings_are_read_also_where_the_pixels_are_cut_short() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = png(noise, text=entries(SPEC, 0))
    assert read(file[: len(file) // 2]) == Made(SPEC, 0, Kind.IMAGE)


def test_an_entry_of_plain_latin_text_is_read_as_well() -> None:
    info = PngInfo()
    info.add_text(ENTRY, json.dumps(SamplingSpec(run="cars", step=20).to_dict()))
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG", pnginfo=info)
    assert read(buffer.getvalue()) == Made(SamplingSpec(run="cars", step=20))
