"""What a run has cost so far: images, hours and energy."""

from __future__ import annotations

from typing import NamedTuple

from diffusion_core.runs.metrics import training_seconds
from diffusion_core.runs.run import RunSnapshot

ENERGY = "energy_joules"  # the curve of the energy since the first step


class Cost(NamedTuple):
    """None: not recorded."""

    images: int | None  # seen in training, each as often as it was
    seconds: float | None  # of training, without pauses
    joules: float | None  # of all its steps


def cost_of(run: RunSnapshot) -> Cost:
    """Raises MetricsError."""
    losses, energy = run.run.curve("loss"), run.run.curve(ENERGY, max_points=2)
    images = run.status.step * run.config.batch_size if run.config else None
    if not len(losses["step"]):
        return Cost(images, None, None)
    seconds = float(training_seconds(losses["wall_time"])[-1])
    # A run that went on where it cannot be read has recorded that of its first steps alone.
    is_whole = len(energy["step"]) and energy["step"][-1] == run.status.step
    return Cost(images, seconds, float(energy["value"][-1]) if is_whole else None)
