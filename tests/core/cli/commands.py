"""What the tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_core.cli.main import main

# A network and images so small that a step takes milliseconds.
TINY = [
    *("--data", "cars:48", "--batch-size", "4", "--device", "cpu", "--quiet"),
    *("--set", 'network_args={"widths": [8, 16], "blocks": 1, "attention_levels": [1]}'),
    *("--set", "schedule.timesteps=20", "image_size=16", "num_workers=0", "mixed_precision=no"),
    *("--set", "checkpoint_every=2", "sample_every=0", "validate_every=0"),
]


def image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def draw(run: Path, out: Path | str, *words: str) -> int:
    arguments = ["sample", "--run", str(run), "--device", "cpu", "--out", str(out)]
    return main([*arguments, "--steps", "3", *words])


def one_line(text: str) -> str:
    """The text without its line end; it must be a single line."""
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()
