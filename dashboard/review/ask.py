"""The form that starts a blind vote, from the sample strips of the chosen runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.remarks import ask_name
from dashboard.services import review_deeds
from dashboard.services.budgets import OverBudget
from dashboard.services.review_deeds import Unnamed
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import SettingsError, get_settings
from dashboard.services.shared_look import look_anew, once, recent
from dashboard.ui import keys
from dashboard.ui.controls import Choice, MultiChoice, Number, Text
from dashboard.ui.images import read_strip
from dashboard.ui.outside import plain
from diffusion_core.data.decode import ImageError
from diffusion_core.files import os_sentence
from diffusion_core.records import RecordError
from diffusion_core.review import polls
from diffusion_core.review.polls import MOST_QUESTIONS, Entry, Kind, PollError
from diffusion_core.runs.jobs import JobError, free_name
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.votes import MOST_SHOWN, VoteError

ERRORS = (
    *(NotAllowed, SettingsError, OverBudget, Unnamed, PollError, VoteError, RecordError),
    *(ImageError, JobError, OSError),
)
COMPARED = MultiChoice(
    key="vote_of",
    label="Compare",
    one=Text(key="", label=""),
    most=MOST_SHOWN,
)
KIND = Choice(
    key="vote_kind",
    label="Show",
    options=tuple(map(str, Kind)),
    titles={str(Kind.PAIRS): "two at a time", str(Kind.ALL): "all at once"},
    default=str(Kind.PAIRS),
    segmented=True,
)
COUNT = Number(key="vote_count", label="Images of each", low=1, high=MOST_QUESTIONS, default=4)
CONTROLS = (COMPARED, KIND, COUNT)


@dataclass(frozen=True)
class Strip:
    """The samples of a run at a step, from which images are taken."""

    run: RunSnapshot
    step: int
    file: Path

    @property
    def entry(self) -> Entry:
        return Entry(name=f"{self.run.name}, step {self.step:,}", run=self.run.name, step=self.step)

    def images(self) -> list[np.ndarray]:
        """Raises ImageError, OSError."""
        stamp = self.file.stat().st_mtime_ns
        found = once(("strip", self.file, stamp), lambda: read_strip(self.file))
        # One that shows an image forming, as in the lecture, ends in the image on the left.
        forming = self.run.config is not None and self.run.config.sample_steps == 0
        return found[:1] if forming else found


def show_form(chosen: Sequence[RunSnapshot], key: str) -> None:
    """`key`: of the control that opens a vote."""
    strips = [
        Strip(run, step, file)
        for run in chosen
        for step, file in reversed(recent(("samples", run.path), run.run.samples))
    ]
    by_name = {strip.entry.name: strip for strip in strips}
    if len(by_name) < 2:
        st.info("Select runs in the table whose samples are to be compared, two to eight.")
        return
    by = ask_name(Deed.ASK, "name-ask")
    newest = dict[str, str]()
    for name, strip in by_name.items():
        newest.setdefault(strip.run.name, name)
    start = list(newest.values()) if len(newest) > 1 else list(by_name)[:2]
    control = COMPARED.now(options=list(by_name), default=start)
    names = control.ask(default=start, max_selections=MOST_SHOWN)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = Kind(KIND.ask())
    taken = [by_name[name] for name in names]
    if len(taken) < 2:
        st.caption("Compare at least two.")
        return
    try:
        images = {strip.entry.name: strip.images() for strip in taken}
    except (ImageError, OSError) as error:
        st.error(f"The samples cannot be read: {plain(error)}")
        return
    most = min(map(len, images.values()))
    count = min(COUNT.now(high=most, default=most).ask(width=160) if most > 1 else 1, most)
    pairs = len(taken) * (len(taken) - 1) // 2 if kind == Kind.PAIRS else 1
    if pairs * count > MOST_QUESTIONS:
        st.error(f"This makes {pairs * count:,} questions; ask at most {MOST_QUESTIONS}.")
        return
    st.caption(f"{pairs * count} questions for each person. {_noise(taken)}")
    folder = get_settings().runs_dir / polls.FOLDER
    with st.form("ask", border=False):
        st.text_input(
            "Name", recent(("vote-name", folder), lambda: free_name(folder, "vote")), key=keys.POLL
        )
        st.form_submit_button(
            "Start the vote",
            type="primary",
            disabled=not by,
            on_click=_start,
            args=(kind, taken, images, count, by, key),
        )
    if why := st.session_state.pop(keys.VOTE_ERROR, ""):
        st.error(why)


def _noise(strips: Sequence[Strip]) -> str:
    if _same_seed(strips) is not None:
        return "Each question shows images from the same noise."
    return "The runs differ in seed or image size, so their images come from different noise."


def _same_seed(strips: Sequence[Strip]) -> int | None:
    """The seed of all strips; None where their noise differs."""
    noises = {
        (config.seed, config.image_shape)
        for strip in strips
        if (config := strip.run.config) is not None
    }
    known = all(strip.run.config is not None for strip in strips)
    return next(iter(noises))[0] if known and len(noises) == 1 else None


def _start(
    kind: Kind,
    strips: Sequence[Strip],
    images: dict[str, list[np.ndarray]],
    count: int,
    by: str,
    key: str,
) -> None:
    """The callback of the button."""
    seed = _same_seed(strips)
    texts = [
        f"image {k + 1}" if seed is None else f"seed {seed}, image {k + 1}" for k in range(count)
    ]
    taken = {name: found[:count] for name, found in images.items()}
    name = st.session_state[keys.POLL].strip()
    try:
        review_deeds.ask(name, kind, [strip.entry for strip in strips], taken, texts, by)
    except ERRORS as error:
        why = os_sentence(error) if isinstance(error, OSError) else str(error)
        st.session_state[keys.VOTE_ERROR] = plain(why)
    else:
        st.session_state[key] = name
    finally:
        look_anew()
