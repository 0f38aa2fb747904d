"""The settings that were changed during a run, as text."""

from __future__ import annotations

from typing import Any

from diffusion_core.runs.changes import check_changes
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.text import value_text


def events(run: RunSnapshot) -> list[tuple[int, str]]:
    """(120, "learning rate 0.001 → 0.0001") of every change, by its step, oldest first.

    Raises ConfigError where the run's settings or its changes cannot be read.
    """
    if run.config is None and run.problem:
        raise ConfigError(run.problem)
    if (config := run.start) is None:
        return []
    found = []
    for change in run.changes:
        edits = [
            edit(name, getattr(config, name, None), value)
            for name, value in change.settings.items()
        ]
        config = check_changes(config, change.settings)
        found.append((change.step, ", ".join(edits)))
    return found


def edit(name: str, before: Any, after: Any) -> str:
    """ "learning rate 0.001 → 0.0001"."""
    return f"{name.replace('_', ' ')} {value_text(before)} → {value_text(after)}"
