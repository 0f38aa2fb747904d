"""The button that starts a drawing, and how far it has come: the same in every mode of Sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.services import cached, sampling_queue
from dashboard.services.sampling_queue import SamplingJob, Snapshot, Task
from dashboard.ui.run_wording import duration
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.spec import SamplingSpec

POLL_SECONDS = 0.7  # between two looks at a drawing under way


def session_job(key: str) -> SamplingJob | None:
    """This session's newest drawing of one mode."""
    return st.session_state.setdefault("drawings", {}).get(key)


def is_busy() -> bool:
    """Whether a drawing of this session is under way that is not for the background."""
    jobs = st.session_state.setdefault("drawings", {}).values()
    return any(job.active and not job.task.background for job in jobs)


def press(
    label: str,
    make_task: Callable[[], Task],
    key: str,
    *,
    icon: str = ":material/brush:",
    disabled: bool = False,
) -> None:
    """One button that puts what `make_task` makes in the device's line as the job of a mode.

    While a drawing of this session is under way it waits. What `make_task` or the line refuses is
    said in its place.
    """
    pressed = st.button(
        label, type="primary", icon=icon, disabled=disabled or is_busy(), width="stretch"
    )
    if not pressed:
        return
    try:
        job = sampling_queue.queue_of(cached.device()).submit(make_task())
    except (ValueError, RuntimeError, OSError) as error:
        st.error(sampling_queue.explain(error))
        return
    st.session_state["drawings"][key] = job
    st.rerun()


def say_expected(spec: SamplingSpec, config: RunConfig, evaluations: int) -> None:
    """How long so many evaluations will take, where a drawing like it was made before."""
    queue = sampling_queue.queue_of(cached.device())
    expected = queue.expected_seconds(sampling_queue.pace_key(spec, config), evaluations)
    if expected is not None and not is_busy():
        st.caption(f"Takes about {duration(max(1.0, expected))}, going by the last drawing.")


def watch(job: SamplingJob, show: Callable[[SamplingJob, Snapshot], object]) -> None:
    """`show` the job in a fragment, again and again while it is active; then the whole page."""
    st.session_state.setdefault("watched", []).append(job)

    def look_again(was_active: bool) -> None:
        seen = job.snapshot()
        if was_active and not seen.active:
            st.rerun()  # of the whole page, which stops asking
        show(job, seen)

    st.fragment(look_again, run_every=POLL_SECONDS if job.active else None)(job.active)


@contextmanager
def watching_all(place: DeltaGenerator) -> Iterator[None]:
    """Where the page that the block draws does not watch a drawing that is under way, as after a
    change of mode, `place` shows it: all buttons wait for it, and unseen it would be cancelled."""
    watched: list[SamplingJob] = []
    st.session_state["watched"] = watched
    yield
    for job in st.session_state.setdefault("drawings", {}).values():
        if job.active and not job.task.background and job not in watched:
            with place:
                watch(job, has_result)


def has_result(job: SamplingJob, seen: Snapshot) -> bool:
    """Says what is drawn and, where it has no result, how far it is or why not."""
    st.markdown(f"**{job.task.words}**")
    if seen.active:
        show_progress(job, seen)
    elif seen.state != "done":
        show_ending(seen, job.task.steps)
    return seen.state == "done"


def show_progress(job: SamplingJob, seen: Snapshot, unit: str = "Step") -> None:
    """The bar, the place in the line and the button Cancel, of a drawing that is under way."""
    total = job.task.steps
    if seen.state == "waiting":
        others = "another drawing" if seen.before == 1 else f"{seen.before} other drawings"
        waiting = f"Waiting for {others} on this device." if seen.before else "It is next."
        st.progress(0.0, waiting)
    elif not seen.step:
        st.progress(0.0, f"{unit} 1 of {total:,} …")
    else:
        words = f"{unit} {seen.step:,} of {total:,}"
        if seen.now is not None and not job.task.background:
            words += f", t = {seen.now.timestep:.4g}"
        if seen.seconds_left is not None:
            words += f", about {duration(seen.seconds_left)} left"
        st.progress(min(1.0, seen.step / total), words)
    if seen.sentence:
        st.caption(seen.sentence)
    elif st.button("Cancel", icon=":material/close:", key=f"cancel-{id(job)}"):
        job.cancel()
        st.rerun(scope="fragment")


def show_ending(seen: Snapshot, total: int) -> None:
    """Why a drawing has no result, where it has none."""
    if seen.state == "failed":
        st.error(seen.sentence)
    elif seen.state == "cancelled":
        where = f" It had taken {seen.step:,} of {total:,} steps." if seen.step else ""
        st.warning(f"{seen.sentence}{where}")
