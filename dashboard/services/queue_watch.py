"""What the server does every few seconds, with or without visitors: it starts waiting runs, goes on
with sweeps, deletes runs and series whose time is over, sends alerts and collects garbage.

Trainers start the next run themselves when they end, unless they are killed or the machine is
restarted.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dashboard.services.garbage import give_back
from dashboard.services.settings import SettingsError, get_alerts, get_settings

SECONDS = 3.0
EXPIRY_SECONDS = 60.0  # between two looks for series whose time is over, and returns of memory


class Attempts:
    """Calls actions; an error is logged, and the others are done all the same."""

    def __init__(self, problem: str, expected: tuple[type[Exception], ...]) -> None:
        """`problem`: the beginning of what is logged. `expected`: errors that need no traceback."""
        self.problem, self.expected = problem, expected
        self.said: dict[object, str] = {}  # the error of each action, until it succeeds again

    def __call__(self, action: Callable[..., Any], *given: object) -> Any:
        """What the action returns; None after an error."""
        try:
            found = action(*given)
        except Exception as error:  # whatever it is: without this thread no run would start
            if self.said.get(action) != str(error):  # once, not every few seconds
                expected = isinstance(error, self.expected)
                logging.getLogger(__name__).warning(
                    "%s: %s", self.problem, error, exc_info=not expected
                )
            self.said[action] = str(error)
            return None
        self.said.pop(action, None)
        return found


@asynccontextmanager
async def watching(app: object) -> AsyncIterator[None]:
    """Watch from the server's start to its end; the lifespan of `st.App`."""
    over = threading.Event()
    threading.Thread(target=watch, args=(over,), name="queue", daemon=True).start()
    # Apart, so that a service that does not answer keeps no run waiting.
    threading.Thread(target=watch_alerts, args=(over,), name="alerts", daemon=True).start()
    yield
    over.set()


def watch(over: threading.Event, seconds: float = SECONDS) -> None:
    # Here, so that the server answers before PyTorch is imported.
    from dashboard.services import demo, series_jobs
    from diffusion_core.runs import jobs, sweep_rounds, trash

    attempt = Attempts("The runs cannot be looked after", (SettingsError, jobs.JobError, OSError))
    expired = 0.0
    while not over.wait(seconds):
        gc.collect()  # for all reruns since the last time; see runner.postScriptGC in config.toml
        if (settings := attempt(get_settings)) is None:
            continue
        # Runs that wait were started by an operator, in a terminal or on a page.
        if settings.demo or settings.role != "viewer":
            attempt(sweep_rounds.advance, settings.runs_dir)
            attempt(jobs.start_next, settings.runs_dir)
        if settings.demo:
            attempt(demo.remove_old, settings.runs_dir)
        elif settings.role != "viewer":
            attempt(trash.empty, settings.runs_dir)
        if time.monotonic() >= expired:  # it reads every series
            expired = time.monotonic() + EXPIRY_SECONDS
            attempt(series_jobs.remove_expired, settings.runs_dir)
            give_back()


def watch_alerts(over: threading.Event) -> None:
    """Send what is due of the alerts, where any are set, whatever the role of the visitors."""
    from diffusion_core.runs.alerts.settings import AlertsError
    from diffusion_core.runs.alerts.watch import LOOK_SECONDS, Watch

    attempt = Attempts("Alerts cannot be sent", (SettingsError, AlertsError, OSError))
    looks: Watch | None = None

    def look() -> None:
        nonlocal looks
        if not (alerts := get_alerts()).targets:
            return
        runs_dir = get_settings().runs_dir
        if looks is None or looks.runs_dir != runs_dir:
            looks = Watch(runs_dir)
        looks.look(alerts)

    while not over.wait(LOOK_SECONDS):
        attempt(look)
