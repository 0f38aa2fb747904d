"""The series of images that this server samples in the background.

The folders are the truth: every visitor and every later server sees the same series. Only which of
them are in this server's queue is kept here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from pathlib import Path

from dashboard.services import cached, sampling_queue
from dashboard.services.sampling_queue import Load, OnStep, QueueFull, SamplingJob, Task
from dashboard.services.settings import Settings, get_settings
from dashboard.services.visitors import visitor
from diffusion_core.files import os_sentence
from diffusion_core.runs.checkpoint import Checkpoint, CheckpointError
from diffusion_core.runs.jobs import JobError, check_name, free_name
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling import series as series_folder
from diffusion_core.sampling.series import Series, SeriesError
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

AT_ONCE = 4  # active series of this server: the queue has places for others
VIEWERS_IMAGES = 256  # of a series, unless the settings say otherwise
# For the samplings to end with the server: a step, and what is written then.
PATIENCE_SECONDS = 5.0
VIEWERS_SERIES = 20  # of a run, up to which viewers may add some

_log = logging.getLogger(__name__)
_jobs: dict[Path, SamplingJob] = {}  # by the folder of the series
_jobs_lock = threading.Lock()


def most_images(settings: Settings) -> int:
    """The most images of a series."""
    usual = MOST_IMAGES if settings.may_operate else VIEWERS_IMAGES
    return min(settings.max_images or usual, MOST_IMAGES)


def usual_name(run: Run, spec: SamplingSpec) -> str:
    stem = f"{spec.method}-{spec.steps}-seed-{spec.seed}"
    return free_name(run.path / series_folder.FOLDER, stem)


def begin(
    run: Run, checkpoint: Checkpoint, spec: SamplingSpec, name: str, settings: Settings
) -> Series:
    """Make the folder and submit the job. Raises ValueError, QueueFull and OSError."""
    try:
        name = check_name(name or usual_name(run, spec))
    except JobError as error:
        raise SeriesError(
            f"{name!r} is not a name for a series. Use up to 80 letters, digits, '.', '_' and "
            "'-', beginning with a letter or digit."
        ) from error
    check_room(spec, settings)
    made = len(series_folder.list_series(run.path))
    if not settings.may_operate and made >= VIEWERS_SERIES:
        raise SeriesError(
            f"{run.name} already has {made} series, the most that viewers can add. The app's "
            "operator can delete some."
        )
    batch = series_folder.batch_for(spec, checkpoint.config.image_size, cached.device())
    series = series_folder.create(run.path / series_folder.FOLDER / name, spec, checkpoint, batch)
    try:
        submit(series, checkpoint)
    except QueueFull:
        series_folder.remove(series)
        raise
    _log.info("series started", extra={"run": run.name, "series": series.name, "images": spec.n})
    return series


def resume(run: Run, series: Series, spec: SamplingSpec) -> None:
    """Submit the rest of a series. Raises ValueError, QueueFull and OSError."""
    check_room(spec, get_settings())
    try:
        checkpoint = run.checkpoint(spec.step)
    except CheckpointError as error:
        raise SeriesError(f"{series.name} cannot be resumed: {error}") from error
    series_folder.line_up(series, checkpoint)
    submit(series, checkpoint)
    _log.info("series resumed", extra={"run": run.name, "series": series.name})


def cancel(series: Series) -> None:
    """Cancel a series, also one that another process samples or none. Raises OSError."""
    _end(series)
    _log.info("series cancelled", extra={"run": series.path.parents[1].name, "series": series.name})


def _end(series: Series) -> None:
    if (job := job_of(series)) is not None:
        job.cancel()
    series_folder.cancel(series)


def end_all(seconds: float = PATIENCE_SECONDS) -> None:
    """End all sampling of this server, which goes. A series can be resumed from its last batch."""
    with _jobs_lock:
        paths = [path for path, job in _jobs.items() if job.active]
    for path in paths:
        try:
            _end(Series(path))
        except OSError as error:
            _log.warning("%s: %s", path.name, os_sentence(error))
    sampling_queue.end_all(seconds)


def check_room(spec: SamplingSpec, settings: Settings) -> None:
    """Raises SeriesError if this installation accepts no such series now."""
    most = most_images(settings)
    if spec.n > most:
        raise SeriesError(f"A series has at most {most:,} images here, not {spec.n:,}.")
    if len(under_way()) >= AT_ONCE:
        raise SeriesError(f"{AT_ONCE} series are already active; wait until one is done.")


def submit(series: Series, checkpoint: Checkpoint) -> None:
    """Put a queued series in the queue of the device; if that is full, cancel it.

    Raises QueueFull.
    """
    spec, device = series.spec, cached.device()

    def work(load: Load, on_step: OnStep) -> Generator[int, None, Series]:
        return series_folder.generate(
            series, lambda: load(checkpoint, spec.average, spec.exact), str(device), on_step
        )

    task = Task(
        spec,
        f"{series.name}: {spec.describe()}",
        spec.n,
        spec.evaluations(build_schedule(checkpoint.config)),
        sampling_queue.pace_key(spec, checkpoint.config),
        work,
        background=True,
    )
    try:
        job = sampling_queue.queue_of(device).submit(task, visitor())
    except QueueFull:
        series_folder.cancel(series)
        raise
    with _jobs_lock:
        for path in [path for path, old in _jobs.items() if not old.active]:
            del _jobs[path]
        _jobs[series.path] = job


def job_of(series: Series) -> SamplingJob | None:
    """The active job of this server for a series."""
    with _jobs_lock:
        job = _jobs.get(series.path)
    return job if job is not None and job.active else None


def under_way() -> list[SamplingJob]:
    with _jobs_lock:
        return [job for job in _jobs.values() if job.active]
