"""What the server does every few seconds, whether there are visitors or not: starts waiting runs,
deletes series whose time is over, and collects garbage.

Trainers start the next run themselves when they end. This handles what they cannot: a trainer that
was killed, a machine that was restarted. It needs no visitor.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dashboard.services.settings import SettingsError, get_settings

SECONDS = 3.0
EXPIRY_SECONDS = 60.0  # between two looks for series whose time is over


@asynccontextmanager
async def watching(app: object) -> AsyncIterator[None]:
    """Watch from the server's start to its end; the lifespan of `st.App`."""
    over = threading.Event()
    threading.Thread(target=watch, args=(over,), name="queue", daemon=True).start()
    yield
    over.set()


def watch(over: threading.Event, seconds: float = SECONDS) -> None:
    # Here, so that the server answers before PyTorch is imported.
    from dashboard.services import demo, series_jobs
    from diffusion_core.runs import jobs, trash

    reported, expired = "", 0.0
    while not over.wait(seconds):
        gc.collect()  # for all reruns since the last time; see runner.postScriptGC in config.toml
        try:
            settings = get_settings()
            if time.monotonic() >= expired:  # it reads every series
                expired = time.monotonic() + EXPIRY_SECONDS
                series_jobs.remove_expired(settings.runs_dir)
            # Runs that wait were started by an operator, in a terminal or on a page.
            if settings.demo or settings.role != "viewer":
                jobs.start_next(settings.runs_dir)
            if not settings.demo and settings.role != "viewer":
                trash.empty(settings.runs_dir)
            if settings.demo:
                demo.remove_old(settings.runs_dir)
            reported = ""
        except Exception as error:  # whatever it is: without this thread no run would start
            if str(error) != reported:  # once, not every few seconds
                expected = isinstance(error, (SettingsError, jobs.JobError, OSError))
                logging.getLogger(__name__).warning(
                    "The queue cannot be watched: %s", error, exc_info=not expected
                )
            reported = str(error)
