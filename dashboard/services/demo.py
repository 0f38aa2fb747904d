"""The public demo: visitors train small runs of the app's own naming, which are removed in time.

`CAPS` is all that they may. Whoever starts a run asks it here, whatever the page has shown.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import filelock
from pydantic import Field

from dashboard.services.garbage import COMPILER, import_and_spare
from dashboard.services.settings import get_settings
from diffusion_core.data.sources import SOURCES
from diffusion_core.files import os_sentence, write_json
from diffusion_core.records import Record, RecordError, read_record_file
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.config import ConfigError, RunConfig, with_settings
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run, list_runs
from diffusion_core.runs.status import ACTIVE

MARK = "demo.json"  # in the folder of a demo run
BUILDING = ".demo"  # where a run is until it has its mark, so that none is ever without
NOBODY = ""  # in its history: visitors of a demo have no names


class Caps(Record):
    """What a visitor of a demo may train."""

    preset: str = "tiny"
    steps: int = 400
    # What is trained on for each choice; more cars would take minutes to draw on a small host.
    data: Mapping[str, str] = {"digits": "digits", "cars": "cars:2000"}
    image_size: int = 32
    at_once: int = 1  # of all visitors
    kept: int = 30  # of all visitors
    minutes: int = 60  # then a run is removed

    def sentence(self) -> str:
        """The caps as a visitor reads them."""
        return (
            f"Demo: a run has the preset {self.preset}, at most {self.steps:,} steps and images of "
            f"{self.image_size}×{self.image_size} pixels ({' or '.join(self.data)}). One run "
            f"trains at a time, at most {self.kept} are kept, and each is removed "
            f"{self.minutes} minutes after its start."
        )

    def config(self, data: str, steps: int) -> RunConfig:
        """The settings of a run; raises ConfigError where these are not allowed."""
        if data not in self.data:
            choices = " or ".join(self.data)
            raise ConfigError(f"The demo trains on {choices} only; choose one of them.")
        if not 1 <= steps <= self.steps:
            raise ConfigError(f"The demo trains 1 to {self.steps:,} steps; choose fewer.")
        changes = {"data": self.data[data], "steps": steps, "image_size": self.image_size}
        changes["random_flip"] = data != "digits"  # a mirrored digit is none
        changes["channels"] = SOURCES[data].channels
        # Little memory while the images are drawn, little disk afterwards.
        changes |= {"num_workers": 0, "keep_checkpoints": 2, "keep_best": False}
        return with_settings(preset(self.preset), changes)


CAPS = Caps()


class Mark(Record):
    """`demo.json`: that a visitor started the run of this name, and when (seconds since 1970)."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    started: Annotated[float, Field(ge=0, le=10**12)]


def start(data: str, steps: int) -> Run:
    """Start a demo run. Raises JobError or ConfigError where that is not allowed now."""
    settings = get_settings()
    if not settings.demo:
        raise jobs.JobError("This installation is no demo; only its operator starts runs.")
    config = CAPS.config(data, steps)
    runs_dir = settings.runs_dir
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(runs_dir / ".demo.lock", timeout=10):
            _check_room(demo_runs(runs_dir))
            name = jobs.free_name(runs_dir, f"visitor-{data}-{time.strftime('%H%M%S')}")
            import_and_spare(COMPILER)
            shutil.rmtree(runs_dir / BUILDING, ignore_errors=True)  # of a server that was killed
            run = jobs.create(runs_dir / BUILDING, name, config, NOBODY)
            mark = Mark(name=name, started=time.time())
            write_json(run.path / MARK, mark.model_dump())
            run = Run(run.path.rename(runs_dir / name))
            try:
                jobs.resume(run, settings.device, by=NOBODY)
            except (OSError, jobs.JobError, ConfigError):
                shutil.rmtree(run.path, ignore_errors=True)
                raise
    except filelock.Timeout as error:
        raise jobs.JobError("Another visitor is starting a run; try again in a moment.") from error
    except OSError as error:
        raise jobs.JobError(f"The run cannot be created: {os_sentence(error)}") from error
    return run


def demo_runs(runs_dir: Path) -> dict[str, float]:
    """When each demo run was started, by its name."""
    found = {run.name: _started(run.path, run.name) for run in list_runs(runs_dir)}
    return {name: started for name, started in found.items() if started is not None}


def remove_old(runs_dir: Path) -> None:
    """Remove the demo runs whose time is over; one that trains is stopped first, and removed at a
    later call. Other runs are never touched, nor a demo run that was renamed or copied."""
    now, refused = time.time(), list[jobs.JobError]()
    for name, started in demo_runs(runs_dir).items():
        if now - started < 60 * CAPS.minutes:
            continue
        try:
            _remove(Run(runs_dir / name))
        except jobs.JobError as error:  # the others are removed all the same
            refused.append(error)
    for gone in trash.deleted(runs_dir):  # also what an end of the server left there
        if _started(gone.path, gone.name) is not None:
            shutil.rmtree(gone.path, ignore_errors=True)
    if refused:
        raise refused[0]


def _remove(run: Run) -> None:
    seen = run.snapshot()
    if seen.state not in ACTIVE:
        trash.delete(run, NOBODY)
        (run.path.parent / f".{run.name}.run.lock").unlink(missing_ok=True)
    elif seen.pending != "stop":
        jobs.request(run, "stop", NOBODY)


def _check_room(runs: Mapping[str, float]) -> None:
    """Raise JobError where a further run would be one too many."""
    runs_dir = get_settings().runs_dir
    active = [name for name in runs if Run(runs_dir / name).state in ACTIVE]
    if len(active) >= CAPS.at_once:
        raise jobs.JobError(f"{active[0]} is training; start a run when it has finished.")
    if len(runs) >= CAPS.kept:
        left = 60 * CAPS.minutes - (time.time() - min(runs.values()))
        raise jobs.JobError(
            f"The demo keeps at most {CAPS.kept} runs; the oldest is removed in "
            f"{max(1, round(left / 60))} min."
        )


def _started(path: Path, name: str) -> float | None:
    """When the demo run at `path` was started; None for a run that is not one of the demo's."""
    try:
        mark = read_record_file(Mark, path / MARK)
    except RecordError:
        return None
    return mark.started if mark is not None and mark.name == name else None
