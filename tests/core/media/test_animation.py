"""Films as files, decoded again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from diffusion_core.media.animation import FORMATS, animate
from diffusion_core.sampling.metadata import entries, read
from diffusion_core.sampling.spec import SamplingSpec


def film(frames: int = 5, height: int = 8, width: int = 8) -> np.ndarray:
    """Noise that becomes a flat colour."""
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3))
    flat = np.full((1, height, width, 3), (200, 80, 40))
    way = np.linspace(0, 1, frames)[:, None, None, None]
    return ((1 - way) * noise + way * flat).astype(np.uint8)


def decode(data: bytes) -> Iterator[tuple[np.ndarray, int]]:
    """(frame, milliseconds) of each."""
    with Image.open(io.BytesIO(data)) as image:
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            image.load()  # only now a WebP knows how long the frame stays
            yield np.asarray(image.convert("RGB")), round(image.info["duration"])


@pytest.mark.parametrize("format", ["webp", "png"])
def test_webp_and_png_keep_every_value_and_hold_the_last_frame(format: str) -> None:
    frames = film()
    found = list(decode(animate(frames, format, fps=10, enlarge=3, hold=2.0)))
    large = frames.repeat(3, axis=1).repeat(3, axis=2)
    assert np.array_equal(np.stack([frame for frame, _ in found]), large)
    assert [time for _, time in found] == [100, 100, 100, 100, 2100]


def test_a_gif_has_one_palette_and_sharp_pixels_near_the_true_ones() -> None:
    frames = film(height=16, width=12)
    data = animate(frames, "gif", fps=12, enlarge=2, hold=1.0)
    found = list(decode(data))
    assert [time for _, time in found] == [80, 80, 80, 80, 1080]
    seen = np.stack([frame for frame, _ in found])
    small = seen[:, ::2, ::2]
    assert np.array_equal(seen, small.repeat(2, axis=1).repeat(2, axis=2))
    assert np.abs(small.astype(int) - frames).mean() < 8
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) <= 256
    assert Image.open(io.BytesIO(data)).info["loop"] == 0


def test_an_mp4_is_h264_that_browsers_play_with_even_sides(tmp_path: Path) -> None:
    frames = film(height=15, width=9)
    frames[-1, 0, 0] = (0, 0, 255)
    path = tmp_path / "film.mp4"
    path.write_bytes(animate(frames, "mp4", fps=10, enlarge=3, hold=1.0))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (28, 46)
        assert stream.average_rate == 10
        seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(seen) == 5 + 10
    assert np.abs(seen[4][20:, 12:24].astype(int) - (200, 80, 40)).max() < 12
    assert np.abs(seen[-1][20:, 12:24].astype(int) - (200, 80, 40)).max() < 12
    assert seen[4][1, 1, 2] > 150 > 120 > seen[4][1, 1, 0]  # the blue corner


def test_grey_frames_and_a_single_one_become_films_too() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 1), np.uint8)
    for format in FORMATS:
        data = animate(grey, format)
        assert len(data) > 50
    [(frame, _)] = decode_still(animate(grey, "png"))
    assert np.array_equal(frame, grey[0].repeat(3, axis=-1))


def decode_still(data: bytes) -> list[tuple[np.ndarray, int]]:
    with Image.open(io.BytesIO(data)) as image:
        return [(np.asarray(image.convert("RGB")), 0)]


def test_a_moving_png_brings_its_settings_back() -> None:
    order = SamplingSpec(run="cars", step=5, n=2)
    data = animate(film(), "png", text=entries(order, what="film"))
    assert read(data).spec == order


@pytest.mark.parametrize(
    ("frames", "format", "sentence"),
    [
        (film(), "avi", "Unknown format 'avi'; choose one of webp, gif, mp4, png"),
        (film()[0], "gif", r"frames of shape \(k, H, W, 3 or 1\), not \(8, 8, 3\)"),
        (film()[:0], "gif", "A film needs frames"),
    ],
)
def test_what_makes_no_film_is_said(frames: np.ndarray, format: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        animate(frames, format)
