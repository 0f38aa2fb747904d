"""The series of images that this server samples in the background.

The folders are the truth: every visitor and every later server sees the same series. Only which of
them are in this server's queue is kept here.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Generator
from pathlib import Path

from dashboard.services import budgets, cached, roles, sampling_queue
from dashboard.services.budgets import HOUR, OverBudget
from dashboard.services.sampling_job import SamplingJob
from dashboard.services.sampling_queue import QueueFull
from dashboard.services.sampling_tasks import Load, OnStep, Task, load_guide, pace_key
from dashboard.services.settings import Settings, get_settings
from dashboard.services.visitors import visitor
from diffusion_core.files import os_sentence
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.jobs import JobError, check_name, free_name
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status import ACTIVE
from diffusion_core.sampling import series as series_folder
from diffusion_core.sampling.series import Series, SeriesError
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

AT_ONCE = 4  # active series of this server: the queue has places for others
VIEWERS_IMAGES = 256  # of a series, unless the settings say otherwise
VIEWERS_SERIES = 20  # of a run, of all viewers together
# For the samplings to end with the server: a step, and what is written then.
PATIENCE_SECONDS = 5.0

_log = logging.getLogger(__name__)
_jobs: dict[Path, SamplingJob] = {}  # by the folder of the series
_made: dict[Path, str] = {}  # the visitor who made a series, where they may have only so many
# Also while a series begins: two at once must not both be the last that is allowed.
_lock = threading.RLock()


def most_images() -> int:
    """The most images of a series of this visitor."""
    usual = MOST_IMAGES if roles.may_operate() else VIEWERS_IMAGES
    return min(get_settings().max_images or usual, MOST_IMAGES)


def usual_name(run: Run, spec: SamplingSpec) -> str:
    stem = f"{spec.method}-{spec.steps}-seed-{spec.seed}"
    return free_name(run.path / series_folder.FOLDER, stem)


def begin(run: Run, checkpoint: Checkpoint, spec: SamplingSpec, name: str) -> Series:
    """Make the folder and submit the job. Raises ValueError, QueueFull and OSError."""
    try:
        name = check_name(name or usual_name(run, spec))
    except JobError as error:
        raise SeriesError(
            f"{name!r} is not a name for a series. Use up to 80 letters, digits, '.', '_' and "
            "'-', beginning with a letter or digit."
        ) from error
    settings = get_settings()
    limits, path = budgets.limits(settings), run.path / series_folder.FOLDER / name
    batch = series_folder.batch_for(spec, checkpoint.config.image_size, cached.device())
    expires = None if limits.series_hours is None else time.time() + limits.series_hours * HOUR
    with _lock:
        check_room(spec)
        check_number(run, settings)
        series = series_folder.create(path, spec, checkpoint, batch, expires)
        try:
            submit(series, checkpoint)
        except (QueueFull, OverBudget):
            series_folder.remove(series)
            raise
        if limits.series is not None:
            _made[series.path] = visitor()
    _log.info("series started", extra={"run": run.name, "series": series.name, "images": spec.n})
    return series


def check_number(run: Run, settings: Settings) -> None:
    """Raises SeriesError if the visitor or all viewers together have as many series as they may."""
    most, own = budgets.limits(settings).series, own_series(visitor())
    if most is not None and len(own) >= most:
        until = min((end for each in own if (end := each.expires) is not None), default=None)
        hours = None if until is None else max(1, math.ceil((until - time.time()) / HOUR))
        renewed = f" The oldest is deleted within {hours} h." if hours is not None else ""
        raise SeriesError(f"You have {len(own)} series, the limit for a visitor here.{renewed}")
    if roles.operates(settings):
        return
    made = sum(each.expires is not None for each in series_folder.list_series(run.path))
    if made >= VIEWERS_SERIES:
        raise SeriesError(
            f"{run.name} already has {made} series from viewers, which is the limit. Choose another"
            " run, or try again later."
        )


def own_series(who: str) -> list[Series]:
    """The series of a visitor that still exist, since the start of this server."""
    with _lock:
        for path in [path for path in _made if not path.is_dir()]:
            del _made[path]
        return [Series(path) for path, maker in _made.items() if maker == who]


def budget_sentence(settings: Settings) -> str:
    """What is said beside the button that begins a series; empty without limits."""
    limits = budgets.limits(settings)
    parts = []
    if limits.series is not None:
        free = max(0, limits.series - len(own_series(visitor())))
        parts.append(f"Series left: {free} of {limits.series}.")
    if limits.series_hours is not None:
        parts.append(f"Each is deleted after {limits.series_hours:,} h.")
    return " ".join(parts)


def remove_expired(runs_dir: Path) -> None:
    """Delete the series whose time is over; one that is active is cancelled, and deleted when it
    has stopped. One that cannot be deleted is named in the log."""
    now = time.time()
    for run in list_runs(runs_dir):
        for series in series_folder.list_series(run.path):
            expires = series.expires
            if expires is None or expires > now:
                continue
            try:
                if series.state in ACTIVE:
                    _end(series)
                if series.state not in ACTIVE:
                    series_folder.remove(series)
            except (SeriesError, OSError) as error:
                _log.warning("%s", error)


def resume(run: Run, series: Series, spec: SamplingSpec, own: bool) -> None:
    """Submit the rest of a series; `own`: the visitor's. Raises ValueError, QueueFull, OSError."""
    roles.check(roles.Deed.CHANGE_SERIES, own)
    try:
        checkpoint = run.checkpoint(spec.step)
    except CheckpointError as error:
        raise SeriesError(f"{series.name} cannot be resumed: {error}") from error
    with _lock:
        check_room(spec)
        series_folder.line_up(series, checkpoint)
        submit(series, checkpoint)
    _log.info("series resumed", extra={"run": run.name, "series": series.name})


def cancel(series: Series, own: bool) -> None:
    """Cancel a series, also one that another process samples or none.

    `own`: the visitor's. Raises NotAllowed, OSError.
    """
    roles.check(roles.Deed.CHANGE_SERIES, own)
    _end(series)
    _log.info("series cancelled", extra={"run": series.path.parents[1].name, "series": series.name})


def _end(series: Series) -> None:
    if (job := job_of(series)) is not None:
        job.cancel()
    series_folder.cancel(series)


def remove(series: Series) -> None:
    """Delete a series and its images. Raises NotAllowed, OSError and ValueError."""
    roles.check(roles.Deed.DELETE_SERIES)
    series_folder.remove(series)
    _log.info("series deleted", extra={"run": series.path.parents[1].name, "series": series.name})


def end_all(seconds: float = PATIENCE_SECONDS) -> None:
    """End all sampling of this server, which goes. A series can be resumed from its last batch."""
    with _lock:
        paths = [path for path, job in _jobs.items() if job.active]
    for path in paths:
        try:
            _end(Series(path))
        except OSError as error:
            _log.warning("%s: %s", path.name, os_sentence(error))
    sampling_queue.end_all(seconds)


def check_room(spec: SamplingSpec) -> None:
    """Raises SeriesError if this installation accepts no such series now."""
    most = most_images()
    if spec.n > most:
        raise SeriesError(f"A series has at most {most:,} images here, not {spec.n:,}.")
    if len(under_way()) >= AT_ONCE:
        raise SeriesError(f"{AT_ONCE} series are already active; wait until one is done.")


def submit(series: Series, checkpoint: Checkpoint) -> None:
    """Put a queued series in the queue of the device; if that is full, cancel it.

    Raises QueueFull, OverBudget.
    """
    spec, device = series.spec, cached.device()

    def work(load: Load, on_step: OnStep) -> Generator[int, None, Series]:
        return series_folder.generate(
            series,
            lambda: load(checkpoint, spec.average, spec.exact),
            str(device),
            on_step,
            lambda: load_guide(load, spec, checkpoint),
        )

    missing = 1 - len(series.numbers()) / spec.n
    task = Task(
        spec,
        f"{series.name}: {spec.describe()}",
        spec.n,
        max(1, math.ceil(missing * spec.evaluations(build_schedule(checkpoint.config)))),
        pace_key(spec, checkpoint.config, series.record.batch),
        work,
        background=True,
    )
    try:
        job = sampling_queue.submit(task, device)
    except (QueueFull, OverBudget):
        series_folder.cancel(series)
        raise
    with _lock:
        for path in [path for path, old in _jobs.items() if not old.active]:
            del _jobs[path]
        _jobs[series.path] = job


def job_of(series: Series) -> SamplingJob | None:
    """The active job of this server for a series."""
    with _lock:
        job = _jobs.get(series.path)
    return job if job is not None and job.active else None


def under_way() -> list[SamplingJob]:
    with _lock:
        return [job for job in _jobs.values() if job.active]
