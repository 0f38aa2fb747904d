"""Image files like those of a data set of photographs, made from the drawn cars.

700 x 480 pixels and JPEG at quality 90, which is what decoding costs; what they show does not
matter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_core.data.sources.cars import draw_car

WIDTH, HEIGHT = 700, 480
TEXTURES = 8


def write_photographs(folder: Path, count: int) -> int:
    """Write `count` files below `folder`, split into `train` and `test` with a folder per class.

    Returns the mean size of a file in bytes. The same count gives the same files.
    """
    rng = np.random.default_rng(0)
    textures = [texture(rng) for _ in range(TEXTURES)]
    sizes = 0
    for index in range(count):
        image, label = draw_car(index)
        pil_image = Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        # Shifted round, so that no two files hold the same.
        grain = np.roll(textures[index % TEXTURES], int(rng.integers(WIDTH)), axis=1)
        pixels = np.asarray(pil_image, np.float32) + grain[..., None]
        part = "test" if index % 2 else "train"
        path = folder / part / f"kind-{label}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        sizes += path.stat().st_size
    return sizes // count


def texture(rng: np.random.Generator) -> np.ndarray:
    """Detail at every scale, as in a photograph: float32 (HEIGHT, WIDTH) around 0, in grey levels.

    The amplitude of each frequency falls with 1/f, the spectrum of natural images.
    """
    fy, fx = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    frequency = np.maximum(np.hypot(fx, fy), 1 / WIDTH)
    spectrum = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH))) / frequency
    grain = np.fft.irfft2(spectrum, s=(HEIGHT, WIDTH))
    return (grain * (18 / grain.std())).astype(np.float32)
