"""The form that starts a blind vote, on the sample strips of the chosen runs or on new images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st

from dashboard.remarks import ask_name
from dashboard.sampling import compare
from dashboard.sampling.compare_lists import Row
from dashboard.services import review_deeds
from dashboard.services.budgets import OverBudget
from dashboard.services.review_deeds import Unnamed
from dashboard.services.roles import Deed, NotAllowed
from dashboard.services.settings import SettingsError, get_settings
from dashboard.services.shared_look import look_anew, once, recent
from dashboard.ui import keys
from dashboard.ui.controls import Choice, MultiChoice, Number, Text, whole_bounds
from dashboard.ui.images import read_strip
from dashboard.ui.outside import plain
from dashboard.ui.progress import press, session_job, show_budget, show_running
from diffusion_core.data.decode import ImageError
from diffusion_core.files import os_sentence
from diffusion_core.records import RecordError
from diffusion_core.review import polls
from diffusion_core.review.polls import MOST_QUESTIONS, Entry, Kind, PollError
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.jobs import JobError, free_name
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.votes import MOST_SHOWN, VoteError
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.spec import SamplingSpec, SpecError

ERRORS = (
    *(NotAllowed, SettingsError, OverBudget, Unnamed, PollError, VoteError, RecordError),
    *(ImageError, JobError, OSError),
)
MOST_NEW = 32  # images of each
JOB = "vote"  # the mode of the session's job that makes new images
SAMPLES, NEW = "samples", "new"
SOURCE = Choice(
    key="vote_source",
    label="Images",
    options=(SAMPLES, NEW),
    titles={SAMPLES: "training samples", NEW: "new images"},
    default=SAMPLES,
    segmented=True,
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
COUNT = Number(key="vote_count", label="Images of each", low=1, high=MOST_QUESTIONS, default=8)
LOWEST, HIGHEST = whole_bounds(SamplingSpec, "seed")
SEED = Number(key="vote_seed", label="Seed", low=LOWEST, high=HIGHEST, default=0)
CONTROLS = (SOURCE, COMPARED, KIND, COUNT, SEED)


@dataclass(frozen=True)
class Candidate:
    """The images of a run at a step: a strip of samples, or what a checkpoint makes."""

    run: RunSnapshot
    step: int
    source: Path | Checkpoint

    @property
    def entry(self) -> Entry:
        return Entry(name=f"{self.run.name}, step {self.step:,}", run=self.run.name, step=self.step)


class Images(NamedTuple):
    by_entry: dict[str, list[np.ndarray]]
    seed: int | None  # of the noise, where it is the same for all


def show_form(chosen: Sequence[RunSnapshot], key: str) -> None:
    """`key`: of the control that opens a vote."""
    by = ask_name(Deed.ASK, "name-ask")
    if not chosen:
        st.info("Select the runs to compare in the table.")
        return
    source = SOURCE.ask()
    find = _strips if source == SAMPLES else _checkpoints
    by_name = {each.entry.name: each for run in chosen for each in find(run)}
    if len(by_name) < 2:
        what = "samples" if source == SAMPLES else "checkpoints"
        st.info(f"The chosen runs have fewer than two {what}. Select more runs in the table.")
        return
    newest = dict[str, str]()
    for name, each in by_name.items():
        newest.setdefault(each.run.name, name)
    start = list(newest.values()) if len(newest) > 1 else list(by_name)[:2]
    control = COMPARED.now(options=list(by_name), default=start)
    names = control.ask(default=start, max_selections=MOST_SHOWN)
    kind = Kind(KIND.ask())
    taken = [by_name[name] for name in names if name in by_name]
    if len(taken) < 2:
        st.caption("Compare at least two.")
        return
    images = _read_strips(taken) if source == SAMPLES else _make(taken)
    if images is not None:
        _offer_start(taken, images, kind, by, key)


def _offer_start(taken: Sequence[Candidate], images: Images, kind: Kind, by: str, key: str) -> None:
    count = min(map(len, images.by_entry.values()))
    groups = len(taken) * (len(taken) - 1) // 2 if kind == Kind.PAIRS else 1
    if groups * count > MOST_QUESTIONS:
        st.error(f"This makes {groups * count:,} questions; ask at most {MOST_QUESTIONS}.")
        return
    st.caption(
        f"{groups * count} questions for each person. "
        + (
            "The runs differ in seed or image size, so their images come from different noise."
            if images.seed is None
            else "Each question shows images from the same noise."
        )
    )
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
            args=(kind, taken, images, by, key),
        )
    if why := st.session_state.pop(keys.VOTE_ERROR, ""):
        st.error(why)


def _start(kind: Kind, taken: Sequence[Candidate], images: Images, by: str, key: str) -> None:
    """The callback of the button."""
    noise = "" if images.seed is None else f"seed {images.seed}, "
    count = min(map(len, images.by_entry.values()))
    texts = [f"{noise}image {k + 1}" for k in range(count)]
    of_entry = {name: found[:count] for name, found in images.by_entry.items()}
    name = st.session_state[keys.POLL].strip()
    try:
        review_deeds.ask(name, kind, [each.entry for each in taken], of_entry, texts, by)
    except ERRORS as error:
        why = os_sentence(error) if isinstance(error, OSError) else str(error)
        st.session_state[keys.VOTE_ERROR] = plain(why)
    else:
        st.session_state[key] = name
    finally:
        look_anew()


# ---------------------------------------------------------------- samples of the training


def _strips(run: RunSnapshot) -> list[Candidate]:
    """The newest first, as `_checkpoints`."""
    found = recent(("samples", run.path), run.run.samples)
    return [Candidate(run, step, file) for step, file in reversed(found)]


def _read_strips(taken: Sequence[Candidate]) -> Images | None:
    """As many images of each as are chosen; None, with a sentence, where they cannot be read."""
    try:
        found = {each.entry.name: _read_strip(each) for each in taken}
    except (ImageError, OSError) as error:
        st.error(f"The samples cannot be read: {plain(error)}")
        return None
    most = min(map(len, found.values()))
    count = COUNT.now(high=most, default=most).ask(width=160) if most > 1 else 1
    configs = [each.run.config for each in taken]
    noises = {config and (config.seed, config.image_shape) for config in configs}
    [noise] = noises if len(noises) == 1 else [None]
    by_entry = {name: images[:count] for name, images in found.items()}
    return Images(by_entry, noise[0] if noise else None)


def _read_strip(candidate: Candidate) -> list[np.ndarray]:
    """Raises ImageError, OSError."""
    file, config = candidate.source, candidate.run.config
    assert isinstance(file, Path)
    images = once(("strip", file, file.stat().st_mtime_ns), lambda: read_strip(file))
    # A strip that shows an image forming, as in the lecture, has the image on the left.
    return images[:1] if config is not None and config.sample_steps == 0 else images


# ---------------------------------------------------------------- new images


def _checkpoints(run: RunSnapshot) -> list[Candidate]:
    usable, _ = recent(("checkpoints", run.path), run.run.checkpoints)
    return [Candidate(run, each.step, each) for each in reversed(usable)]


def _make(taken: Sequence[Candidate]) -> Images | None:
    """The images of the session's last job, where it was this one; a button submits it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        count = COUNT.now(high=MOST_NEW).ask(width=160)
        seed = SEED.ask(width=160)
    try:
        rows = [_row(each, count, seed) for each in taken]
    except (SpecError, CheckpointError) as error:
        st.error(plain(error))
        return None
    press("Generate", lambda: compare.compare_task(rows[0].spec, {}, rows), JOB)
    show_budget()
    show_running()
    job = session_job(JOB)
    if job is None or job.active or job.result is None:
        if job is not None and (sentence := job.snapshot().sentence) and not job.active:
            st.error(plain(sentence))
        return None
    made: compare.Comparison = job.result
    if [row.spec for row in made.rows] != [row.spec for row in rows]:
        st.caption("Generate the images with these settings to ask about them.")
        return None
    by_entry = {
        each.entry.name: list(row.images) for each, row in zip(taken, made.rows, strict=True)
    }
    shapes = {row.images.shape[1:] for row in made.rows}
    return Images(by_entry, seed if len(shapes) == 1 else None)


def _row(candidate: Candidate, count: int, seed: int) -> Row:
    """As the first sampler that the model takes makes them usually. Raises SpecError."""
    checkpoint = candidate.source
    assert isinstance(checkpoint, Checkpoint)
    can = Capabilities.of(checkpoint)
    sampler = can.samplers[0]
    values = {
        "run": candidate.run.name,
        "step": checkpoint.step,
        "n": count,
        "seed": seed,
        "sampler": sampler,
        "steps": can.usual_steps[sampler],
        **can.spaced(sampler, can.usual_steps[sampler]),
        "classes": can.classes,
        "label": can.labels[0] if can.labels else "",
        "flow": can.flow,
    }
    return Row(SamplingSpec.from_dict(values, source=""), checkpoint)
