"""The Noising page's tabs, of which only the open one is computed."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dashboard.explain.noising_notes import show_notes
from dashboard.explain.noising_shapes import show_mistakes, show_walk
from dashboard.explain.noising_steps import show_step_by_step
from dashboard.ui.controls import Choice
from dashboard.ui.tabs import open_tab
from diffusion_core.process.noising import image_to_x_0
from diffusion_core.process.schedule import NoiseSchedule

WALK, MISTAKES, STEPS, NOTES = (
    "Gather, reshape, broadcast",
    "Wrong shapes",
    "Step by step",
    "Notes on tensors",
)
MORE = Choice(key="more", label="Tab", options=(WALK, MISTAKES, STEPS, NOTES))


def show_more(schedule: NoiseSchedule, t: int, image: np.ndarray, noise: Tensor, seed: int) -> None:
    for name in open_tab(MORE):
        if name == WALK:
            show_walk(schedule, image_to_x_0(image))
        elif name == MISTAKES:
            show_mistakes(schedule, image_to_x_0(image), noise)
        elif name == STEPS:
            show_step_by_step(schedule, t, image, seed)
        else:
            show_notes()
