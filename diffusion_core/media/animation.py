"""Frames as an animation in memory: GIF, WebP, MP4 or animated PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from PIL import Image

from diffusion_core.media.images import png_entries

FORMATS = ("webp", "gif", "mp4", "png")
MEDIA_TYPES = {  # of the files, by the end of their names
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".png": "image/png",
}
CRF = 14  # of x264, where 0 is lossless and 23 the default, which would smooth noise
COLOURS = 256  # of a GIF
SAMPLE = 2**20  # pixels from which its palette is chosen


def animate(
    frames: np.ndarray,
    format: str,
    fps: int = 12,
    enlarge: int = 1,
    hold: float = 1.5,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """Encode uint8 frames (k, H, W, 3) or (k, H, W, 1) in one of FORMATS.

    Every pixel is enlarged `enlarge` times without blurring. The last frame stays for `hold`
    seconds; all formats but MP4 then loop. WebP and PNG keep every value, GIF has one palette of
    256 colours for all frames, MP4 is H.264 (yuv420p) that browsers play; its sides are made even
    by repeating the last row or column. `text`: entries stored in a PNG, see `images.png`.

    Raises ValueError for an unknown format or frames of another shape.
    """
    if format not in FORMATS:
        raise ValueError(f"Unknown format {format!r}; choose one of {', '.join(FORMATS)}.")
    if frames.ndim != 4 or not len(frames) or frames.shape[-1] not in (1, 3):
        raise ValueError(f"A film needs frames of shape (k, H, W, 3 or 1), not {frames.shape}.")
    if frames.shape[-1] == 1:
        frames = frames.repeat(3, axis=-1)
    if format == "mp4":
        return _mp4(_large(frames, enlarge), fps, hold)
    # In whole hundredths of a second, as GIF counts.
    times = [max(20, 10 * round(100 / fps))] * len(frames)
    times[-1] += round(1000 * hold)
    if format == "gif":
        images = _with_palette(frames, enlarge)
    else:
        images = [Image.fromarray(frame) for frame in _large(frames, enlarge)]
    options = {
        "gif": {"optimize": False},
        "webp": {"lossless": True, "quality": 30, "method": 2},  # of lossless: the effort
        "png": {"pnginfo": png_entries(text)},
    }[format]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format=format.upper(),
        save_all=True,
        append_images=images[1:],
        duration=times if len(times) > 1 else times[0],
        loop=0,
        **options,  # type: ignore[arg-type]
    )
    return buffer.getvalue()


def _large(frames: np.ndarray, enlarge: int) -> np.ndarray:
    return frames.repeat(enlarge, axis=1).repeat(enlarge, axis=2)


def _with_palette(frames: np.ndarray, enlarge: int) -> list[Image.Image]:
    """The frames in one palette of 256 colours, chosen from all of them."""
    pixels = frames.reshape(-1, 3)
    pixels = pixels[:: -(-len(pixels) // SAMPLE)]
    palette = Image.fromarray(pixels[None]).quantize(COLOURS, Image.Quantize.MEDIANCUT)
    images = []
    for frame in frames:
        # Dithered at its own size, so that an enlarged pixel still has a single colour.
        image = Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        size = (image.width * enlarge, image.height * enlarge)
        images.append(image.resize(size, Image.Resampling.NEAREST))
    return images


def _mp4(frames: np.ndarray, fps: int, hold: float) -> bytes:
    import av  # with FFmpeg, which takes 30 MB: not before a film is asked for

    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(CRF)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        for frame in [*frames, *[frames[-1]] * round(hold * fps)]:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return buffer.getvalue()
