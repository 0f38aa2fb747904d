"""Noise schedules that people design and save by name beside the runs.

A run keeps the points themselves, so that it does not need the saved schedule.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from diffusion_core.process.tables import MOST_POINTS, check_points
from diffusion_core.saved import Saved, Shelf


class Design(Saved):
    points: Annotated[tuple[tuple[float, float], ...], Field(max_length=MOST_POINTS, strict=False)]

    @field_validator("points")
    @classmethod
    def _make_a_schedule(
        cls, points: tuple[tuple[float, float], ...]
    ) -> tuple[tuple[float, float], ...]:
        check_points(points)
        return points


DESIGNS = Shelf(Design, "schedule", ".schedules")
