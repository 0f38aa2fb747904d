"""The server's look after the queue, without a server."""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path

import pytest

from dashboard.services import demo, series_jobs, settings
from dashboard.services.queue_watch import watch, watch_alerts
from diffusion_core.runs import jobs
from diffusion_core.runs.alerts.settings import AlertSettings
from diffusion_core.runs.alerts.watch import Watch


class Rounds(threading.Event):
    """It is over after so many rounds of the watcher."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        return self.left < 0


def look(times: int, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[Path]:
    """Let the watcher go round so many times; returns the folders that it looked after."""
    seen: list[Path] = []
    collected: list[int] = []

    def start_next(runs_dir: Path) -> None:
        seen.append(runs_dir)
        if error is not None:
            raise error

    monkeypatch.setattr(jobs, "start_next", start_next)
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    watch(Rounds(times))
    assert len(collected) == times
    return seen


def test_an_operators_server_looks_after_the_queue(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(3, monkeypatch) == [runs_dir] * 3


def test_a_viewers_server_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    assert look(3, monkeypatch) == []


@pytest.mark.parametrize(
    "error",
    [
        jobs.JobError("No room."),
        OSError(30, "No room."),
        KeyError("room"),
        MemoryError("All gone."),
    ],
)
def test_what_goes_wrong_is_said_once_and_it_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="dashboard.services.queue_watch"):
        assert len(look(5, monkeypatch, error)) == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"The runs cannot be looked after: {error}"
    ]


def test_a_queue_that_cannot_start_its_runs_does_not_keep_what_is_over(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []
    monkeypatch.setenv("DIFFUSION_LAB_DEMO", "1")
    monkeypatch.setattr(demo, "remove_old", removed.append)
    monkeypatch.setattr(series_jobs, "remove_expired", lambda runs_dir: removed.append(runs_dir))
    look(1, monkeypatch, jobs.JobError("No room."))
    assert removed == [runs_dir] * 2


def test_a_setting_that_cannot_be_used_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "king")
    with caplog.at_level(logging.WARNING, logger="dashboard.services.queue_watch"):
        assert look(2, monkeypatch) == []
    assert "DIFFUSION_LAB_ROLE is 'king'" in caplog.text


def test_alerts_are_looked_after_whatever_the_role_and_what_goes_wrong_is_said_once(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[Path, list[str]]] = []

    def look(self: Watch, alerts: AlertSettings) -> None:
        seen.append((self.runs_dir, list(alerts.targets)))
        raise OSError(30, "No room.")

    monkeypatch.setattr(Watch, "look", look)
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    with caplog.at_level(logging.WARNING, logger="dashboard.services.queue_watch"):
        watch_alerts(Rounds(2))
        assert seen == []
        # The file wins, and a list of it is one too.
        monkeypatch.setenv("DIFFUSION_LAB_ALERT_WEBHOOK", "https://example.org/x")
        settings.SECRETS_FILE.write_text(
            'DIFFUSION_LAB_ALERT_WEBHOOK = ["https://hooks.slack.com/x", "teams+https://a.org/y"]\n'
        )
        watch_alerts(Rounds(3))
        assert seen == [(runs_dir, ["slack", "teams"])] * 3
        settings.SECRETS_FILE.write_text('DIFFUSION_LAB_ALERT_WEBHOOK = "http://a.org/secret"\n')
        watch_alerts(Rounds(2))
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "Alerts cannot be sent: [Errno 30] No room."
    assert second.startswith("Alerts cannot be sent: DIFFUSION_LAB_ALERT_WEBHOOK must begin with")
    assert "secret" not in caplog.text
