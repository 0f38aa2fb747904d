"""Settings of the Playground page that are worth seeing."""

from __future__ import annotations

from typing import Any

from diffusion_core.playground.drawing import write_drawing

FIVE = [(-1.6, 1.2), (1.5, 1.5), (0.1, -0.1), (-1.2, -1.6), (1.7, -1.0)]


def _five_points() -> str:
    import numpy as np

    return write_drawing(np.array(FIVE), np.zeros(len(FIVE), np.int64))


# (title, sentence, what differs from the start)
GALLERY: list[tuple[str, str, dict[str, Any]]] = [
    (
        "DDPM wanders, DDIM glides",
        "Both start from the same noise and use the same network. DDPM adds noise at every step.",
        {"panels": ["ddpm", "ddim"], "paths": True, "field": "off"},
    ),
    (
        "A flow takes straight ways",
        "The paths of a flow bend less than those of DDIM, so fewer steps are enough.",
        {"panels": ["ddim", "flow"], "paths": True, "sampling_steps": 20, "field": "off"},
    ),
    (
        "Too few steps",
        "With four steps DDPM and DDIM miss the moons. The flow comes closest.",
        {"panels": ["ddpm", "ddim", "flow"], "sampling_steps": 4, "paths": True, "field": "off"},
    ),
    (
        "Linear, but too short",
        "With T = 50 the linear schedule leaves 78 % of the signal, so N(0, I) is a wrong start.",
        {"panels": ["ddpm", "ddim"], "timesteps": 50, "direction": "reverse"},
    ),
    (
        "Cosine, as short",
        "The cosine schedule reaches pure noise at any T. Compare it with the linear one.",
        {"panels": ["ddpm", "ddim"], "timesteps": 50, "kind": "cosine"},
    ),
    (
        "The exact score",
        "The exact score leads back to the training points; the network smooths between them.",
        {"panels": ["ddim", "exact"], "field": "both", "data": "spiral"},
    ),
    (
        "Five points by heart",
        "With so little data the network learns the points themselves and generates nothing new.",
        {"panels": ["ddim", "exact"], "data": "drawing", "drawing": _five_points()},
    ),
    (
        "Two classes, guided",
        "The network knows the class. A guidance scale of 2 keeps the classes apart.",
        {"panels": ["ddim"], "classes": True, "guidance_scale": 2.0},
    ),
    (
        "Too much guidance",
        "At a scale of 8 the particles overshoot their moon and lose its shape.",
        {"panels": ["ddim", "exact"], "classes": True, "guidance_scale": 8.0, "paths": True},
    ),
    (
        "A learning rate too high",
        "At 0.3 the loss jumps and stays high. The particles never find the data.",
        {"panels": ["ddim"], "learning_rate": 0.3},
    ),
    (
        "A network too small",
        "Four neurons cannot bend around the spiral. Compare the learned field with the exact one.",
        {"panels": ["ddim", "exact"], "data": "spiral", "width": 4, "layers": 1, "field": "both"},
    ),
    (
        "Cars in a plane",
        "The two main components of the car images: where a cloud of images has its shape.",
        {"panels": ["ddim", "flow"], "data": "images", "images": "cars"},
    ),
]
