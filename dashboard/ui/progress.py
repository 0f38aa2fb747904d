"""The button that starts a sampling job, and the job's progress: the same in every mode."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from dashboard.services import budgets, cached, queued, sampling_queue
from dashboard.services.budgets import Budget, OverBudget
from dashboard.services.roles import Deed, refusal
from dashboard.services.sampling_job import SamplingJob, Snapshot, explain
from dashboard.services.sampling_queue import QueueFull
from dashboard.services.sampling_tasks import PaceKey, Task, pace_key
from dashboard.services.settings import get_settings
from dashboard.services.visitors import visitor
from dashboard.ui import keys
from dashboard.ui.outside import plain
from dashboard.ui.run_wording import count, duration
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.spec import SamplingSpec

POLL_SECONDS = 0.7  # between two looks at a running job


def session_jobs() -> dict[str, SamplingJob]:
    """This session's newest job of each mode."""
    return st.session_state.setdefault(keys.JOBS, {})


def session_job(mode: str) -> SamplingJob | None:
    return session_jobs().get(mode)


def is_busy() -> bool:
    """Whether a job of this session is active that does not run in the background."""
    return any(job.active and not job.task.background for job in session_jobs().values())


def press(
    label: str,
    make_task: Callable[[], Task],
    mode: str,
    *,
    icon: str = ":material/brush:",
    disabled: bool = False,
) -> None:
    """The button that submits the task of `make_task` to the device's queue as the job of a mode.

    It is disabled while a job of this session is active. An error of `make_task` or the queue is
    shown below it.
    """
    disabled = disabled or is_busy()
    if not st.button(label, type="primary", icon=icon, disabled=disabled):
        return
    try:
        job = sampling_queue.submit(make_task(), cached.device())
    except (ValueError, RuntimeError, OSError) as error:
        st.error(plain(explain(error)))
        return
    session_jobs()[mode] = job
    st.rerun()


def show_budget() -> None:
    """How much this visitor may still sample, where that is limited."""
    if sentence := budgets.evaluations_sentence(visitor(), get_settings()):
        st.caption(sentence)


def show_expected(spec: SamplingSpec, config: RunConfig, evaluations: int) -> None:
    """How long a spec with so many evaluations will take; see `show_seconds`."""
    show_seconds(pace_key(spec, config), evaluations)


def show_seconds(key: PaceKey, evaluations: int) -> None:
    """How long so many evaluations will take, if a similar job has run before, and whether they are
    more than this visitor may use."""
    who, settings = visitor(), get_settings()
    if sentence := budgets.refusal(Budget.EVALUATIONS, who, evaluations, settings):
        st.warning(sentence)
    queue = sampling_queue.queue_of(cached.device())
    expected = queue.expected_seconds(key, evaluations)
    if expected is not None and not is_busy():
        about = "Less than 1 s" if expected < 1 else f"About {precise(expected)}"
        st.caption(f"{about}, estimated from earlier requests.")


def watch(job: SamplingJob, show: Callable[[SamplingJob, Snapshot], object]) -> None:
    """`show` the job in a fragment, repeatedly while it is active; then rerun the page."""

    def look_again(was_active: bool) -> None:
        seen = job.snapshot()
        if was_active and not seen.active:
            st.rerun()  # the whole page, which stops polling
        show(job, seen)

    st.fragment(look_again, run_every=POLL_SECONDS if job.active else None)(job.active)


def answer_of(key: Hashable, make_task: Callable[[], Task]) -> Any:
    """The result of a short task, made once for all who ask with this key; see `queued.ask`.

    None while there is none, and the page says why.
    """
    try:
        job = queued.ask(key, make_task)
    except (OverBudget, QueueFull) as error:
        st.warning(plain(error))
        return None
    seen = job.snapshot()
    if seen.active:
        watch(job, show_progress)
    elif seen.state != "done":
        st.error(plain(seen.sentence))
        st.button("Try again", on_click=queued.forget, args=(key,), key=f"again-{hash(key)}")
    return job.result


def show_running() -> None:
    """The progress of this session's active job, whatever its mode, with its button Cancel.

    All buttons wait for it, and a job that no page polls would be cancelled.
    """
    for job in session_jobs().values():
        if job.active and not job.task.background:
            watch(job, show_progress)


def show_state(job: SamplingJob, seen: Snapshot) -> bool:
    """Show the task and its error; return whether there is a result. `show_running` shows its
    progress."""
    st.markdown(plain(job.task.text))
    if seen.state == "failed":
        st.error(plain(seen.sentence))
    elif seen.state == "cancelled":
        where = f" {seen.step:,} of {job.task.steps:,} steps were done." if seen.step else ""
        st.warning(f"{plain(seen.sentence)}{where}")
    return seen.state == "done"


def show_progress(
    job: SamplingJob, seen: Snapshot, unit: str = "Step", deed: Deed | None = None
) -> None:
    """The bar, the place in the queue and the button Cancel of an active job.

    `deed`: what cancelling asks leave for; a visitor's own sampling needs none.
    """
    total = job.task.steps
    share = min(1.0, seen.step / total)
    if seen.state == "waiting":
        share = 0.0
        about = f", about {duration(seen.wait)}" if seen.wait >= 1 else ""
        others = f"Waiting for {count(seen.before, 'other job')} on this device{about}."
        text = others if seen.before else "Next in the queue."
    elif seen.state == "loading":
        text = "Loading the checkpoint …"
    elif not seen.step:
        text = f"{unit} 1 of {total:,} …"
    else:
        text = f"{unit} {seen.step:,} of {total:,}"
        if seen.now is not None and not job.task.background:
            text += f", t = {seen.now.timestep:.4g}"
        if seen.seconds_left is not None:
            text += f", about {duration(seen.seconds_left)} left"
        if seen.before:
            text += f", in turns with {count(seen.before, 'other job')}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.progress(share, text)
        cancel = not seen.sentence and st.button(
            "Cancel", icon=":material/close:", key=f"cancel-{id(job)}"
        )
    if seen.sentence:
        st.caption(plain(seen.sentence))
    if cancel:
        if deed is not None and (why := refusal(deed)):
            st.error(plain(why))
            return
        job.cancel()
        st.rerun(scope="fragment")


def show_cost(job: SamplingJob, seen: Snapshot) -> None:
    """The time and the evaluations of a job that is done."""
    st.caption(f"{precise(seen.seconds)}, {job.task.evaluations:,} network evaluations.")


def precise(seconds: float) -> str:
    """0.42 s, 4.2 s, then as `duration`."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.{1 if seconds >= 1 else 2}f} s"
