"""The last results of this session: they stay when the settings change, and go with the session.

Only their images are kept, as PNG, and the settings that made them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import streamlit as st

from dashboard.components.gallery.gallery import Row, address_of
from dashboard.services.sampling_job import SamplingJob
from dashboard.ui import keys
from dashboard.ui.progress import session_jobs
from diffusion_core.media.images import png
from diffusion_core.sampling.metadata import Made

# Of a session, on a server that many share.
MOST = 12
MOST_BYTES = 4 * 2**20
FACE = 64  # pixels of a thumbnail at most


@dataclass(frozen=True)
class Result:
    """What a job made, as the page shows it."""

    made: Made
    text: str  # what it is, with the settings
    rows: tuple[Row, ...]
    face: str  # the address of a small image that stands for it
    what: str = ""  # what is not in the spec, in a few words
    not_linked: str = ""  # what a link to it does not carry, as a sentence

    @property
    def mode(self) -> str:
        return self.made.mode or "Generate"

    @property
    def bytes(self) -> int:
        return sum(len(tile.address) for row in self.rows for tile in row.tiles)

    def parts(self) -> dict[str, str]:
        """What describes it, by field."""
        spec = self.made.spec
        run = {"run": f"{spec.run} at step {spec.step:,}"}
        return {"what": self.what} | run | spec.details()


def face_of(image: np.ndarray) -> str:
    """Of an image uint8 (H, H, C)."""
    stride = -(-image.shape[0] // FACE)
    return address_of(png(image[::stride, ::stride]))


def results() -> dict[int, Result]:
    """This session's, by the numbers of their jobs, oldest first."""
    return st.session_state.setdefault(keys.HISTORY, {})


def keep(job: SamplingJob, make: Callable[[], Result]) -> Result:
    """The result of a job that is done, made once."""
    kept = results()
    if job.number not in kept:
        new = make()
        # One that is generated again takes the place of the first.
        others = {number: old for number, old in kept.items() if old.rows != new.rows}
        st.session_state[keys.HISTORY] = within_bounds(others | {job.number: new})
        return new
    return kept[job.number]


def within_bounds(kept: dict[int, Result]) -> dict[int, Result]:
    """Without the oldest, where they are too many or too large. Those of the newest jobs of each
    mode stay: the page shows them."""
    kept = dict(sorted(kept.items()))
    newest = {job.number for job in session_jobs().values()}
    for number in [number for number in kept if number not in newest]:
        size = sum(result.bytes for result in kept.values())
        if len(kept) <= MOST and size <= MOST_BYTES:
            break
        del kept[number]
    return kept
