"""Settings that were changed after a run's start: `changes.json` in its folder.

Each entry has the step from which it holds. A run that is killed and resumes from an earlier
checkpoint makes each change at its own step again, so that its losses repeat exactly.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from diffusion_core.files import write_json
from diffusion_core.records import Count, Record, RecordError, read_record_file
from diffusion_core.runs.config import ConfigError, RunConfig
from diffusion_core.runs.status import Moment
from diffusion_core.text import cut, shown, some

# Settings that may change during a run.
CHANGEABLE = (
    "learning_rate",
    "restart_at",
    "matching_share",
    "matching_rate",
    "steps",
    "pause_at",
    "sample_every",
    "checkpoint_every",
    "validate_every",
    "evaluate_every",
    "stop_when_no_better",
    "keep_checkpoints",
    "keep_every",
    "keep_best",
    "report",
)


Name = Annotated[str, Field(max_length=40)]


def _are_numbers(settings: dict[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        # A whole number may be too large for a float; the setting's own range refuses it.
        if not (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
            raise ValueError(f"{cut(name)} is {shown(value)}; it must be a finite number.")
    return settings


ChangedSettings = Annotated[dict[Name, Any], Field(max_length=40), AfterValidator(_are_numbers)]


class Change(Record):
    """Settings that hold from the step `step` on."""

    step: Count
    time: Moment
    settings: ChangedSettings


class ChangesFile(Record):
    """`changes.json`."""

    changes: Annotated[tuple[Change, ...], Field(max_length=10_000)]


def check_changes(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """`config` with these settings; raises ConfigError where one cannot change, or not to that."""
    fixed = sorted(set(settings) - set(CHANGEABLE))
    if fixed:
        raise ConfigError(
            f"{some(fixed)} cannot change in a run; start a new one with it. "
            f"What can: {', '.join(CHANGEABLE)}, and data where the images are the same."
        )
    return config.replace(**settings)


def read_changes(run: Path) -> list[Change]:
    """Oldest first; empty where there is none. Raises ConfigError for a damaged file."""
    try:
        file = read_record_file(ChangesFile, run / "changes.json")
    except RecordError as error:
        raise ConfigError(str(error)) from error
    return list(file.changes) if file is not None else []


def add_change(run: Path, step: int, settings: dict[str, Any]) -> list[Change]:
    """Record that `settings` hold from `step` on; returns all changes. Raises DiskFull."""
    changes = with_change(read_changes(run), step, settings)
    write_json(run / "changes.json", {"changes": [change.model_dump() for change in changes]})
    return changes


def with_change(changes: list[Change], step: int, settings: dict[str, Any]) -> list[Change]:
    """The changes and this one, in order of steps.

    Changes of the same settings at later steps, which a run that went back to a checkpoint would
    meet again, are dropped.
    """
    kept = []
    for old in changes:
        left = {k: v for k, v in old.settings.items() if old.step < step or k not in settings}
        if left:
            kept.append(Change(step=old.step, time=old.time, settings=left))
    new = Change(step=step, time=time.time(), settings=settings)
    return sorted([*kept, new], key=lambda change: change.step)


def with_changes(config: RunConfig, changes: list[Change], step: int | None = None) -> RunConfig:
    """The settings at `step`, or after all changes. Raises ConfigError."""
    for change in changes:
        if step is None or change.step <= step:
            config = check_changes(config, change.settings)
    return config
