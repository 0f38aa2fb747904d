"""The coefficients of one or several schedules at the timestep of the page.

The browser gets the tables once and follows the timestep by itself; `figures.schedule.number` says
how a number is written.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dashboard.components.assemble import component
from diffusion_core.process.tables import ScheduleTables

HTML = '<div class="coefficients" role="group" aria-label="Coefficients" tabindex="0"></div>'
ROW = 30  # pixels


def show_coefficients(schedules: Sequence[ScheduleTables], key: str) -> None:
    """One row a coefficient, one column a schedule; all of one T."""
    data = {
        "schedules": [
            {"name": each.kind, "betas": _packed(each.betas), "logSnr": _packed(each.log_snr)}
            for each in schedules
        ]
    }
    height = (len(ScheduleTables.TABLES) + 2) * ROW
    component(Path(__file__), HTML)(key=key, data=data, height=height)


def _packed(table: np.ndarray) -> str:
    """Base64 of little-endian float64."""
    return base64.b64encode(table.astype("<f8").tobytes()).decode()
