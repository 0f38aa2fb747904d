"""Positions of steps on the axis by which runs are aligned."""

from __future__ import annotations

import numpy as np

from diffusion_core.runs.metrics import training_seconds

ALIGNMENTS = ("step", "images", "time")


def place(
    steps: np.ndarray, alignment: str, batch_size: int | None, losses: dict[str, np.ndarray]
) -> np.ndarray | None:
    """The positions of `steps` (n,): steps, images seen or seconds of training, float64 (n,).

    `losses` is the run's curve "loss", which has the times. None without a batch size or times.
    """
    if alignment == "images":
        return steps * float(batch_size) if batch_size else None
    if alignment == "time":
        if not len(losses["step"]):
            return None
        return np.interp(steps, losses["step"], training_seconds(losses["wall_time"]))
    return steps.astype(np.float64)


def axis_unit(alignment: str, longest: float) -> tuple[float, str]:
    """The divisor of positions on an axis that ends at `longest`, and the axis title."""
    if alignment == "images":
        return 1.0, "images seen"
    if alignment == "time":
        for seconds, name in ((3600.0, "hours"), (60.0, "minutes")):
            if longest >= 2 * seconds:
                return seconds, f"training time, {name}"
        return 1.0, "training time, seconds"
    return 1.0, "step"
