"""The button *Notify me* of a run: the browser says when it has ended."""

from __future__ import annotations

from collections.abc import Sequence

from dashboard.components.notify.notify import show_notify
from dashboard.ui import keys, run_wording
from dashboard.ui.outside import readable
from diffusion_core.runs.run import RunSnapshot
from diffusion_core.runs.status import ACTIVE


def show_notify_button(shown: RunSnapshot, runs: Sequence[RunSnapshot]) -> None:
    """For a run that is active; the visitor may wait for others of `runs` at the same time."""
    by_name = {run.name: run for run in runs}

    def end_of(name: str) -> str | None:
        if (run := by_name.get(name)) is None:  # deleted
            return ""
        if run.state in ACTIVE:
            return None
        status = run.status
        return (
            f"{readable(name)} {run_wording.state_predicate(run)}, step {status.step:,} of "
            f"{status.total:,}."
        )

    show_notify(shown.name if shown.state in ACTIVE else "", end_of, keys.NOTIFY)
