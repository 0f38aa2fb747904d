"""Settings of the Playground page that are worth seeing."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffusion_core.playground.drawing import write_drawing
from diffusion_core.playground.random import Random

FIVE = np.array([(-1.6, 1.2), (1.5, 1.5), (0.1, -0.1), (-1.2, -1.6), (1.7, -1.0)])


def _uneven() -> np.ndarray:
    """Two clouds: 36 points on the left, 4 on the right."""
    side = np.where(np.arange(40) < 36, -1, 1)[:, None]
    return side * np.array([1.3, 0.8]) + 0.22 * Random(1, "data").normals(40)


def _drawn(points: np.ndarray) -> dict[str, str]:
    return {"data": "drawing", "drawing": write_drawing(points, np.zeros(len(points), np.int64))}


# (title, sentence, what differs from the start)
GALLERY: list[tuple[str, str, dict[str, Any]]] = [
    (
        "DDPM wanders, DDIM glides",
        "Both start from the same noise and use the same network. DDPM adds noise at every step.",
        {"panels": ["ddpm", "ddim"], "paths": True, "field": "off"},
    ),
    (
        "A flow's lines are straight",
        "From data to noise every particle of a flow moves on a line, of DDIM's process on an arc.",
        {"panels": ["ddim", "flow"], "direction": "forward", "paths": True, "field": "off"},
    ),
    (
        "But its way back bends",
        "Where lines cross, the network can only learn their mean, so the generated paths turn.",
        {"panels": ["ddim", "flow"], "paths": True},
    ),
    (
        "Too few steps",
        "In two steps no sampler finds the arms of the spiral; six are enough.",
        {"panels": ["ddpm", "ddim", "flow"], "data": "spiral", "sampling_steps": 2, "paths": True},
    ),
    (
        "A schedule that stops early",
        "Linear, T = 50, ends with 78 % of the signal. The right cloud gets a third, not a tenth.",
        {"panels": ["ddpm", "ddim"], "timesteps": 50, **_drawn(_uneven())},
    ),
    (
        "A schedule that reaches noise",
        "The same with the cosine schedule: a tenth of the particles end on the right.",
        {"panels": ["ddpm", "ddim"], "timesteps": 50, "kind": "cosine", **_drawn(_uneven())},
    ),
    (
        "The exact score",
        "The exact score leads back to the training points; the network smooths between them.",
        {"panels": ["ddim", "exact"], "field": "both", "data": "spiral"},
    ),
    (
        "Five points by heart",
        "With so little data the network learns the points themselves and generates nothing new.",
        {"panels": ["ddim", "exact"], **_drawn(FIVE)},
    ),
    (
        "Two classes, guided",
        "The network knows the class. A guidance scale of 2 keeps the classes apart.",
        {"panels": ["ddim"], "classes": True, "guidance_scale": 2.0},
    ),
    (
        "Too much guidance",
        "At a scale of 8 the particles crowd at the far ends of their moon and overshoot it.",
        {"panels": ["ddim", "exact"], "classes": True, "guidance_scale": 8.0, "paths": True},
    ),
    (
        "A learning rate too high",
        "At 0.3 the loss jumps and stays high. The particles never find the data.",
        {"panels": ["ddim"], "learning_rate": 0.3},
    ),
    (
        "Cars in a plane",
        "Each point is an image, placed by its two main components.",
        {"panels": ["ddim", "flow"], "data": "images", "images": "cars"},
    ),
]
