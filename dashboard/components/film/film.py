"""The sample strips of several runs as one film: a slider moves all of them together.

The slider, the images and the player live in the browser. It is told where the strips are and
fetches each once, as the file that the trainer wrote; moving asks the server for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.components.assemble import component
from dashboard.components.film.served import samples_address
from dashboard.components.player.player import controls

KEY = "film"
PARAMETER = "strip"  # of the page's address: STEP@RUN, where the slider stands
HTML = f"""
<div class="film">
  <div class="rows"></div>
{controls("Samples through training")}
</div>
"""


@dataclass(frozen=True)
class Strips:
    """The strips of one run, oldest first."""

    name: str
    files: list[tuple[int, Path]]  # as of Run.samples
    at: np.ndarray  # (n,) where each lies on the axis, ascending
    colour: int = 0  # which of the chart's colours is the run's
    forming: bool = False  # a strip is one image on its way out of the noise


def show_film(runs: list[Strips], alignment: str) -> None:
    """One row a run under one slider; `alignment` is one of ALIGNMENTS, the axis of `at`."""
    rows = [row for run in runs if (row := row_data(run)) is not None]
    start = st.query_params.get(PARAMETER, "")
    known = start if start.partition("@")[2] in {row["name"] for row in rows} else None
    data = {"alignment": alignment, "rows": rows, "start": known}
    component(Path(__file__), HTML)(key=KEY, data=data, on_at_change=_remember)


def row_data(run: Strips) -> dict[str, Any] | None:
    """What the browser is told of a run; None where it has no strips.

    A strip that is written again under the same name gets another version, so that the browser
    does not show the one that it has.
    """
    strips = []
    for (step, path), at in zip(run.files, run.at, strict=True):
        try:
            version = path.stat().st_mtime_ns
        except OSError:  # removed since it was listed
            continue
        strips.append((step, round(float(at), 1), path.name, f"{version:x}"))
    if not strips:
        return None
    columns = zip(("steps", "at", "files", "versions"), zip(*strips, strict=True), strict=True)
    return {
        "name": run.name,
        "colour": run.colour,
        "forming": run.forming,
        "address": samples_address(run.files[0][1].parent),
    } | {name: list(column) for name, column in columns}


def _remember() -> None:
    """The slider was let go: the page's address says where, or nothing at the newest strip."""
    at = st.session_state[KEY].get("at")
    if at:
        st.query_params[PARAMETER] = at
    else:
        st.query_params.pop(PARAMETER, None)
