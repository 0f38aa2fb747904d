"""What the button *Notify me* says of the runs that a visitor waits for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dashboard.training import notify
from diffusion_core.runs.run import snapshots
from tests.tiny_runs import set_running, write_run


def test_a_run_that_has_ended_is_told_of_and_a_deleted_one_is_not(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_running(write_run(runs_dir, "busy", created=2.0))
    write_run(runs_dir, "broken", state="failed", step=1200, created=1.0)
    offered: list[str] = []
    said: list[str | None] = []

    def show_notify(shown: str, end_of: Callable[[str], str | None], key: str) -> None:
        offered.append(shown)
        said.extend(end_of(name) for name in ("busy", "broken", "gone"))

    monkeypatch.setattr(notify, "show_notify", show_notify)
    runs = snapshots(runs_dir)
    for run in runs:
        notify.show_notify_button(run, runs)
    assert offered == ["busy", ""]
    assert said[:3] == [None, "broken has failed, step 1,200 of 40.", ""]
