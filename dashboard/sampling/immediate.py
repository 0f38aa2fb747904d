"""An image that follows the hand: of a distilled run, which needs a few evaluations of the network,
it is sampled while its seed, class and guidance are moved, without Generate.

Each is a job of the device's queue like any other, so visitors take turns and have budgets. A
fragment, since to run the whole page takes longer than to sample.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from dashboard.components.immediate.immediate import Answer, asked, show_immediate
from dashboard.sampling.controls import LABEL, SEED
from dashboard.sampling.trajectory import file_name
from dashboard.services import cached, sampling_queue
from dashboard.services.sampling_job import SamplingJob, explain
from dashboard.services.sampling_tasks import sample_task
from dashboard.ui import keys
from dashboard.ui.guidance import GUIDANCE
from dashboard.ui.navigation import entry
from dashboard.ui.run_wording import count
from diffusion_core.media.images import png
from diffusion_core.runs.checkpoint import Checkpoint
from diffusion_core.sampling.browser_model import why_not_in_browser
from diffusion_core.sampling.capabilities import ANY_CLASS, EACH_IN_TURN, Capabilities
from diffusion_core.sampling.metadata import entries
from diffusion_core.sampling.spec import SamplingSpec

KEY = "immediate"
MOST_STEPS = 4  # of one image
SEEDS = 1000  # of the slider
PATIENCE_SECONDS, LOOK_SECONDS = 1.0, 0.2  # for an image, before the page says who is first


@dataclass(frozen=True)
class Made:
    """The last image that was asked for."""

    spec: SamplingSpec
    written: float  # when its checkpoint was
    job: SamplingJob | None
    refused: str = ""  # why there is no job


def offer_immediate(start: SamplingSpec, checkpoint: Checkpoint, can: Capabilities) -> None:
    """The image of `start`, or how to come to one that follows the hand."""
    one = first_of(start)
    if not can.distilled or one.problems(can):
        return
    if one.steps <= MOST_STEPS:
        with st.container(border=True):
            st.markdown(
                "**As you move**: the first image of these settings, sampled at once. The other "
                "controls follow when you let go."
            )
            st.fragment(follow)(one, checkpoint, can)
            if not why_not_in_browser(checkpoint.config):
                page = entry("live.py")
                st.page_link(
                    page.path,
                    label="In your browser, without the server, on the page Live",
                    icon=page.icon,
                    query_params={"run": start.run},
                )
    else:
        st.caption(
            f"With at most {MOST_STEPS} steps, an image follows the hand here as you move "
            "the seed, the class and the guidance."
        )


def first_of(spec: SamplingSpec) -> SamplingSpec:
    """The first image alone."""
    return spec.replace(n=1, label=spec.class_of(0) or spec.label)


def follow(start: SamplingSpec, checkpoint: Checkpoint, can: Capabilities) -> None:
    """The fragment."""
    base, told = base_of(start, checkpoint), asked(KEY)
    rests = st.session_state.pop(keys.HAND_RESTS, False)
    spec = start
    if told is not None and told.base == base:
        spec = moved(start, told.settings, can)
        if rests and spec != start:
            st.rerun()  # the whole page, whose controls have been set
    made = make(spec, checkpoint, can)
    scales = (GUIDANCE.low, GUIDANCE.high, GUIDANCE.step or 1.0)
    show_immediate(
        answer_of(made, 0 if told is None else told.turn),
        base,
        classes_of(can),
        scales if is_guided(start, spec.label, can) else None,
        seeds=max(SEEDS, start.seed + 1),
        file=f"{file_name(spec, 'image-1')}.png",
        key=KEY,
        on_ask=lambda: keep(start, checkpoint, can),
    )


def base_of(start: SamplingSpec, checkpoint: Checkpoint) -> str:
    """Differs where the page's controls or the checkpoint do."""
    text = f"{start!r} {checkpoint.path} {checkpoint.time!r}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def classes_of(can: Capabilities) -> list[str]:
    return [label for label in can.labels if label != EACH_IN_TURN]


def is_guided(start: SamplingSpec, label: str, can: Capabilities) -> bool:
    """Whether a guidance scale can be chosen for a class."""
    return start.autoguided or (can.any_class and label != ANY_CLASS)


def moved(start: SamplingSpec, settings: Mapping[str, Any], can: Capabilities) -> SamplingSpec:
    """`start` with what the browser has set, as far as that can be."""
    changed: dict[str, Any] = {}
    ways = {
        "seed": SEED,
        "label": LABEL.now(options=classes_of(can)),
        "guidance": GUIDANCE,
    }
    for name, control in ways.items():
        value = settings[name]
        if isinstance(value, int) and name == "guidance":
            value = float(value)
        if not control.problem(value):
            changed[control.field] = value
    spec = start.replace(**changed)
    if is_guided(start, spec.label, can):
        return spec
    return spec.replace(guidance_scale=1.0).without_unused()


def keep(start: SamplingSpec, checkpoint: Checkpoint, can: Capabilities) -> None:
    """Callback: where the hand rests, the page's controls get what it has set."""
    told = asked(KEY)
    if told is None or not told.rests or told.base != base_of(start, checkpoint):
        return
    spec = moved(start, told.settings, can)
    for control in (SEED, LABEL, GUIDANCE):
        value = getattr(spec, control.field)
        if value != getattr(start, control.field):
            st.session_state[control.key] = control.of_field(value)
    st.session_state[keys.HAND_RESTS] = True


def make(spec: SamplingSpec, checkpoint: Checkpoint, can: Capabilities) -> Made:
    """Submit an image, unless it is the last one; wait for it a moment."""
    made: Made | None = st.session_state.get(keys.IMMEDIATE)
    if made is None or (made.spec, made.written) != (spec, checkpoint.time):
        if made is not None and made.job is not None:
            made.job.cancel()
        made = submit(spec, checkpoint, can)
        st.session_state[keys.IMMEDIATE] = made
    if made.job is not None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not made.job.wait(LOOK_SECONDS) and time.monotonic() < until:
            made.job.snapshot()  # it is looked at
    return made


def submit(spec: SamplingSpec, checkpoint: Checkpoint, can: Capabilities) -> Made:
    try:
        task = replace(sample_task(spec.checked(can), checkpoint), immediate=True)
        return Made(spec, checkpoint.time, sampling_queue.submit(task, cached.device()))
    except (ValueError, RuntimeError, OSError) as error:
        return Made(spec, checkpoint.time, None, explain(error))


def answer_of(made: Made, turn: int) -> Answer:
    spec, job = made.spec, made.job
    settings = {"seed": spec.seed, "label": spec.label, "guidance": spec.guidance_scale}
    if job is None:
        return Answer(turn, settings, None, said=made.refused)
    seen = job.snapshot()
    if seen.state == "done":
        [image] = job.result.images
        return Answer(
            turn,
            settings,
            png(image, text=entries(spec, 0)),
            job.task.text,
            f"{count(job.task.evaluations, 'network evaluation')}, {1000 * seen.seconds:.0f} ms.",
        )
    if not seen.active:
        return Answer(turn, settings, None, said=seen.sentence)
    said = "Loading the checkpoint …" if seen.state == "loading" else "Sampling …"
    if seen.before:
        said = f"Waiting for {count(seen.before, 'other job')} on this device."
    return Answer(turn, settings, None, said=said, waits=True)
