"""What everybody who watches a run sees alike: read and drawn once for all, not by each session.

`recent` is for what is in a folder: read again after LOOK_SECONDS. `once` is for what is made of
it: made again when its key differs. Values are shared, so they must not be changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services.settings import Settings
from diffusion_core.runs.run import Run, RunSnapshot, snapshots

Value = TypeVar("Value")
# Less than the shortest interval, so that one who watches alone waits no longer. Curves cost more.
LOOK_SECONDS, CURVE_SECONDS = 0.5, 0.9
# Up to so many watchers ask again every so many seconds; more of them every SLOWEST.
PACES = ((10, 1.0), (20, 1.5), (40, 2.0), (60, 3.0))
SLOWEST = 5.0
GONE_SECONDS = 15.0  # somebody who has not asked for so long has left
SLACK = 3  # so many must leave before the others ask more often, so that one cannot switch all


class Shared:
    """The newest `most` values by their keys, each made by one thread while the others wait."""

    def __init__(self, most: int, seconds: float = float("inf")) -> None:
        self.most, self.seconds = most, seconds
        self.lock = threading.Lock()
        self.entries: dict[Hashable, _Entry] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` returned for the key within the last `seconds`; errors are not kept."""
        with self.lock:
            entry = self.entries.pop(key, None) or _Entry()
            self.entries[key] = entry  # behind all others
            while len(self.entries) > self.most:
                del self.entries[next(iter(self.entries))]
        with entry.lock:
            if not entry.made <= time.monotonic() < entry.made + self.seconds:
                began = time.monotonic()
                entry.value = make()
                entry.made = began
            return entry.value

    def forget(self) -> None:
        with self.lock:
            self.entries = {}


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made = float("inf")  # not yet
        self.value: Any = None


_looks = Shared(1024, LOOK_SECONDS)
_stamps = Shared(256, CURVE_SECONDS)
_made = Shared(256)
recent, once = _looks.get, _made.get


def look_anew() -> None:
    """Whoever has just done something, or has come to the page, sees what is true now."""
    _looks.forget()
    _stamps.forget()


def runs_of(settings: Settings) -> list[RunSnapshot]:
    """See `snapshots`."""
    return recent(("runs", settings.runs_dir), lambda: snapshots(settings.runs_dir))


def metrics_stamp(run: Run) -> tuple[tuple[int, int], ...]:
    """What differs when the run has written new numbers."""

    def look() -> tuple[tuple[int, int], ...]:
        found = []
        for name in ("metrics.sqlite", "metrics.sqlite-wal"):
            try:
                stat = (run.path / name).stat()
            except OSError:
                continue
            found.append((stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    return _stamps.get(run.path, look)


_seen: dict[str, float] = {}  # when each session has asked last
_seen_lock = threading.Lock()


def pace(now: float | None = None) -> float:
    """The seconds after which this session should ask again; it counts as watching from here on.

    `now`: its pace so far, which it keeps where a few more watchers would have it too.
    """
    context, moment = get_script_run_ctx(suppress_warning=True), time.monotonic()
    with _seen_lock:
        if context is not None:
            _seen[context.session_id] = moment
        for session in [one for one, at in _seen.items() if moment - at > GONE_SECONDS]:
            del _seen[session]
        watchers = len(_seen)
    return kept_pace(watchers, now)


def kept_pace(watchers: int, now: float | None) -> float:
    least = pace_of(watchers)
    return now if now is not None and least <= now <= pace_of(watchers + SLACK) else least


def pace_of(watchers: int) -> float:
    return next((seconds for most, seconds in PACES if watchers <= most), SLOWEST)


def keep_pace(now: float) -> None:
    """In a fragment that is shown every `now` seconds: run the page again if others hold now."""
    if pace(now) != now:
        st.rerun()
