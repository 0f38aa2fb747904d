"""What a press of a button does to a run or to the queue: each asks first whether it is allowed.

The settings are read when the button is pressed, not when it was shown. The run's history gets the
name of who is signed in. All but `export` raise NotAllowed and SettingsError besides the errors of
`runs.jobs` and `runs.trash`.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dashboard.services import users
from dashboard.services.garbage import COMPILER, import_and_spare
from dashboard.services.roles import Deed, check
from dashboard.services.settings import get_settings
from diffusion_core.runs import jobs, sweep, trash
from diffusion_core.runs.archive import pack, plan_archive
from diffusion_core.runs.archive_import import import_archive
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.export import metrics_table
from diffusion_core.runs.export_onnx import write_onnx
from diffusion_core.runs.history import Event, record
from diffusion_core.runs.run import Run
from diffusion_core.runs.sweep_file import Plan, Sweep
from diffusion_core.zips import CHUNK

REQUESTS = {
    "pause": Deed.PAUSE,
    "stop": Deed.STOP,
    "sample": Deed.SAMPLE_NOW,
    "checkpoint": Deed.CHECKPOINT_NOW,
}


def start(name: str, config: RunConfig) -> None:
    check(Deed.START)
    settings = get_settings()
    check_steps(config.steps, settings.max_steps)
    import_and_spare(COMPILER)
    jobs.start(settings.runs_dir, name, config, settings.device, by=users.name())


def create(name: str, config: RunConfig) -> None:
    """Only the folder, to be started elsewhere."""
    check(Deed.CREATE)
    settings = get_settings()
    check_steps(config.steps, settings.max_steps)
    import_and_spare(COMPILER)
    jobs.create(settings.runs_dir, name, config, users.name())


def start_sweep(name: str, base: RunConfig, plan: Plan) -> Sweep:
    check(Deed.START)
    settings = get_settings()
    for config in sweep.plan_runs(name, base, plan).values():
        check_steps(config.steps, settings.max_steps)
    import_and_spare(COMPILER)
    return sweep.start(settings.runs_dir, name, base, plan, settings.device, users.name())


def stop_sweep(name: str) -> None:
    check(Deed.STOP)
    sweep.stop(get_settings().runs_dir, name, users.name())


def resume_sweep(name: str) -> None:
    check(Deed.RESUME)
    sweep.resume(get_settings().runs_dir, name)


def resume(run: Run, changes: dict[str, Any] | None = None) -> None:
    check(Deed.RESUME)
    settings = get_settings()
    check_steps((changes or {}).get("steps", 0), settings.max_steps)
    jobs.resume(run, settings.device, changes, by=users.name())


def request(run: Run, action: str) -> None:
    check(REQUESTS[action])
    jobs.request(run, action, users.name())


def change(run: Run, changes: dict[str, Any]) -> None:
    check(Deed.CHANGE)
    check_steps(changes.get("steps", 0), get_settings().max_steps)
    if changes:
        jobs.change(run, changes, users.name())


def move(run: Run, places: int) -> None:
    check(Deed.REORDER)
    jobs.move(run, places, users.name())


def delete(run: Run) -> trash.Deleted:
    check(Deed.DELETE)
    return trash.delete(run, users.name())


def restore(gone: trash.Deleted) -> Run:
    check(Deed.RESTORE)
    return trash.restore(gone, users.name())


def carry(run: Run, weights: str, with_state: bool, by: str) -> Iterator[bytes]:
    """A run as an archive, in parts. Whether that is allowed is asked by `downloads`.

    Raises ArchiveError, ConfigError, CheckpointError, MetricsError.
    """
    plan = plan_archive(run, weights, with_state)

    def parts() -> Iterator[bytes]:
        yield from pack(plan, [])
        record(run.path, Event.EXPORTED, by, format="archive")

    return parts()


def carry_onnx(run: Run, step: int, by: str) -> Iterator[bytes]:
    """A checkpoint as ONNX in a zip file, in parts, as `carry`; written before the first is sent.

    Raises ExportError, CheckpointError, DiskFull.
    """
    place = tempfile.TemporaryDirectory()
    folder, archive = Path(place.name, "onnx"), Path(place.name, "onnx.zip")
    write_onnx(run, run.checkpoint(step), folder)
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in sorted(folder.iterdir()):
            zipped.write(file, f"{run.name}-onnx/{file.name}")

    def parts() -> Iterator[bytes]:
        with place, open(archive, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        record(run.path, Event.EXPORTED, by, format="onnx")

    return parts()


def import_run(archive: IO[bytes], name: str) -> Run:
    """`name`: empty for that of the archive. Raises ArchiveError too."""
    check(Deed.IMPORT)
    return import_archive(archive, get_settings().runs_dir, name or None, users.name())


def export(run: Run, format: str, by: str | None) -> bytes:
    """The metrics as a file, which viewers may have too. `by`: for the history; None: not in it.

    Made by a thread of no visitor, so the page says who it is.
    """
    table = metrics_table(run, format)
    if by is not None:
        record(run.path, Event.EXPORTED, by, format=format)
    return table


def check_steps(steps: int, max_steps: int | None) -> None:
    """Raises ConfigError for more steps than this installation allows."""
    if max_steps is not None and steps > max_steps:
        raise ConfigError(f"This installation allows at most {max_steps:,} steps.")
