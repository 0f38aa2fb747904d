"""What a run has cost so far: images, hours and energy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from diffusion_core.runs.run import RunSnapshot

ENERGY = "energy_joules"  # the curve of the energy since the first step
# Time between two logged steps without a pause: strips, checkpoints, validation.
ORDINARY_GAP_SECONDS = 60.0
ORDINARY_GAP_STEPS = 20


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


def training_seconds(wall_time: np.ndarray) -> np.ndarray:
    """Seconds of training up to each of a curve's points, from 0 at the first; both (n,).

    A gap of over a minute and over 20 times the median is a pause, or the time between two
    starts: it counts as a median gap. So does a clock that was set back.
    """
    gaps = np.diff(wall_time)
    if not len(gaps):
        return np.zeros(len(wall_time))
    forward = gaps[gaps >= 0]
    usual = float(np.median(forward)) if len(forward) else 0.0
    longest = max(ORDINARY_GAP_SECONDS, ORDINARY_GAP_STEPS * usual)
    gaps = np.where((gaps < 0) | (gaps > longest), usual, gaps)
    return np.concatenate([[0.0], np.cumsum(gaps)])
