"""Looking after the alerts of a folder of runs: what is news, and sending it.

A server and `diffusion-lab alerts watch` look every few seconds; a trainer says that its run has
begun (`begin`), and looks once more when it has ended (`end`).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from diffusion_core.files import complain, os_sentence
from diffusion_core.runs.alerts import ledger, message, send
from diffusion_core.runs.alerts.ledger import Deed, Entry, Subject
from diffusion_core.runs.alerts.message import ENDS, Event, Message, since_of
from diffusion_core.runs.alerts.settings import AlertsError, AlertSettings, read_alerts
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.run import Run, run_folders
from diffusion_core.runs.status import (
    ACTIVE,
    RunState,
    StatusRecord,
    read_status,
    state_now,
)
from diffusion_core.runs.sweep_file import State, read_sweeps

_log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # between two looks
END_SECONDS = 10.0  # for which a trainer that has ended stays to send its messages
LEAST_SECONDS = 1.0  # of an attempt; with less time left it is another's
USUAL_STEPS = 20  # a run that makes no step for so many of its usual ones may be stalled
NEWS_SECONDS = 86_400.0  # for which the end of a run is news
CLOCKS = 60.0  # seconds by which the clocks of two machines may differ


class _Settled(NamedTuple):
    """A run as it was when nothing was left to do."""

    stamp: tuple[int, int]  # of status.json
    state: RunState
    status: StatusRecord


class Watch:
    """Looks at the runs of a folder again and again, and remembers what it has seen."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.settled: dict[str, _Settled] = {}  # the runs for which nothing is left to do
        self.noted: dict[str, float] = {}  # the runs that are known to be watched, since when
        # What a run changes when it goes on, and since when (monotonic) it has not.
        self.still: dict[str, tuple[object, float]] = {}

    def look(self, settings: AlertSettings, until: float | None = None) -> float | None:
        """Send what is due. Returns the seconds until the next attempt, None where none is left.

        `until` (monotonic): it takes no longer than that, and leaves the rest to others. Raises
        OSError where the runs cannot be written to.
        """
        if not settings.targets:
            return None
        waits, problem = list[float | None](), None
        states: dict[str, tuple[RunState, StatusRecord]] = {}
        for run in run_folders(self.runs_dir):
            if (stamp := _stamp(run.path / "status.json")) is None:
                continue
            try:
                if (known := self.settled.get(run.name)) and known.stamp == stamp:
                    states[run.name] = known.state, known.status
                    continue
                status, state = _now(run.path)
                states[run.name] = state, status
                wait = self._look_at(run, state, status, settings, until)
                waits.append(wait)
                if state not in ACTIVE and wait is None:
                    self.settled[run.name] = _Settled(stamp, state, status)
            except FileNotFoundError:  # deleted meanwhile
                continue
            except OSError as error:  # the others are looked at all the same
                problem = error
        for names in (self.settled, self.noted, self.still):
            for name in names.keys() - states.keys():
                del names[name]
        if Event.QUEUE_EMPTY in settings.alert_events:
            waits.append(self._look_at_queue(states, settings, until))
        if problem is not None:
            raise problem
        return min((wait for wait in waits if wait is not None), default=None)

    def _look_at(
        self,
        run: Run,
        state: RunState,
        status: StatusRecord,
        settings: AlertSettings,
        until: float | None,
    ) -> float | None:
        if state in ACTIVE:
            if self.noted.get(run.name) != _begun(status):
                note(run.path, status)
                self.noted[run.name] = _begun(status)
            return self._look_for_stall(run, state, status, settings, until)
        self.still.pop(run.name, None)
        event, file = ENDS.get(state), run.path / ledger.RUN_FILE
        if event not in settings.alert_events or _never_at_work(state, status):
            return None
        if _is_old(status) or not _is_watched(ledger.read(file), status):
            return None
        template, link = settings.template(event), settings.link(run.name)
        about = message.of_run(run.name, event, status, template, link)
        return deliver(settings, file, Subject(event, since_of(status)), about, until)

    def _look_for_stall(
        self,
        run: Run,
        state: RunState,
        status: StatusRecord,
        settings: AlertSettings,
        until: float | None,
    ) -> float | None:
        if Event.STALLED not in settings.alert_events or state == RunState.QUEUED:
            return None
        # Where it says what it does instead of steps, it is the heartbeat that tells.
        stands = state == RunState.STARTING or status.message
        moves = status.heartbeat if stands else status.step
        now, before = (state, since_of(status), moves), self.still.get(run.name)
        if before is None or before[0] != now:
            self.still[run.name] = now, time.monotonic()
            return None
        idle, file = time.monotonic() - before[1], run.path / ledger.RUN_FILE
        if idle < settings.alert_stall_minutes * 60:
            return None
        subject = Subject(Event.STALLED, since_of(status), status.step)
        if idle < stall_seconds(run, status, settings, ledger.read(file)):
            return None
        template, link = settings.template(Event.STALLED), settings.link(run.name)
        about = message.of_run(run.name, Event.STALLED, status, template, link, idle)
        return deliver(settings, file, subject, about, until)

    def _look_at_queue(
        self,
        states: Mapping[str, tuple[RunState, StatusRecord]],
        settings: AlertSettings,
        until: float | None,
    ) -> float | None:
        file = self.runs_dir / ledger.QUEUE_FILE
        at_work = any(state in ACTIVE for state, _ in states.values())
        # Between two runs of a sweep there may be none at work.
        if at_work or any(each.state == State.RUNNING for each in read_sweeps(self.runs_dir)):
            note_queue(self.runs_dir)
            return None
        entries = ledger.read(file)
        since = _queue_since(entries)
        if since is None or any(e.deed == Deed.NOTHING and e.since == since for e in entries):
            return None
        ended = {
            name: ENDS[state]
            for name, (state, status) in states.items()
            if state in ENDS
            and not _never_at_work(state, status)
            and max(status.heartbeat, since_of(status)) >= since
            and not _is_old(status)
        }
        subject = Subject(Event.QUEUE_EMPTY, since)
        alone = len(ended) == 1 and set(ended.values()) <= set(settings.alert_events)
        if not ended or alone:  # paused, or it would say what the run's own message says
            with ledger.holding(file):
                ledger.write(file, Deed.NOTHING, subject)
            return None
        template = settings.template(Event.QUEUE_EMPTY)
        about = message.of_queue(ended, since, template, socket.gethostname(), settings.link())
        return deliver(settings, file, subject, about, until)


def deliver(
    settings: AlertSettings,
    file: Path,
    subject: Subject,
    about: Message,
    until: float | None = None,
) -> float | None:
    """Make the attempts that are due, of which no other process makes one. Returns the seconds
    until the next, None where none is left. Raises OSError.
    """
    left = send.SECONDS if until is None else min(send.SECONDS, until - time.monotonic())
    if left < LEAST_SECONDS:
        return LEAST_SECONDS
    due = ledger.take(file, subject, list(settings.targets))
    if not due.targets:
        return due.next
    targets = {name: settings.targets[name] for name in due.targets}
    outcomes = send.send_all(targets, about, left)
    run = about.fields.get("run", "")
    for name, outcome in outcomes.items():
        what = {"alert": str(subject.event), "target": name} | ({"run": run} if run else {})
        if outcome.sent:
            _log.info("alert sent", extra=what)
        else:
            _log.warning(
                "The alert %s%s was not sent to %s: %s.",
                subject.event,
                run and f" of {run}",
                name,
                outcome.why,
                extra=what,
            )
    later = ledger.settle(file, subject, outcomes)
    waits = [wait for wait in (due.next, later) if wait is not None]
    return min(waits, default=None)


def stall_seconds(
    run: Run, status: StatusRecord, settings: AlertSettings, entries: tuple[Entry, ...]
) -> float:
    """The time without a step after which a run is stalled.

    Each alert of the same process doubles it, so that one that often pauses is not told of often.
    """
    seconds = settings.alert_stall_minutes * 60
    try:
        config = run.config
    except ConfigError:
        config = None
    if config is not None and status.images_per_second:
        seconds = max(seconds, USUAL_STEPS * config.batch_size / status.images_per_second)
    earlier = {
        entry.step
        for entry in entries
        if (entry.event, entry.since) == (Event.STALLED, since_of(status))
    }
    return seconds * 2 ** min(len(earlier - {status.step}), 20)


# ---------------------------------------------------------------- what a trainer does


def begin(path: Path, status: StatusRecord) -> None:
    """Note that the run in a folder is at work, where alerts are set; what becomes of it is news.

    Never raises: a run trains without alerts too.
    """
    try:
        if not read_alerts(os.environ).targets:
            return
        note(path, status)
        note_queue(path.parent)
    except AlertsError as error:
        complain(f"No alerts will be sent: {error}")
    except OSError as error:
        complain(f"No alerts can be sent: {os_sentence(error)}")


def end(runs_dir: Path, seconds: float = END_SECONDS) -> None:
    """Send what is due now that a run of the folder has ended, for so many seconds at most.

    What is not sent then is left to a server or to `alerts watch`. Never raises.
    """
    try:
        settings = read_alerts(os.environ)
        watch, until = Watch(runs_dir), time.monotonic() + seconds
        while (wait := watch.look(settings, until)) is not None:
            if time.monotonic() + wait + LEAST_SECONDS > until:
                break
            time.sleep(wait)
    except AlertsError:
        return  # `begin` has said so
    except OSError as error:
        complain(f"No alerts can be sent: {os_sentence(error)}")


def note(path: Path, status: StatusRecord) -> None:
    """Note that a run is watched, if that is not known. Raises OSError."""
    file = path / ledger.RUN_FILE
    with ledger.holding(file):
        if not _is_watched(ledger.read(file), status):
            ledger.write(file, Deed.WATCHED)


def note_queue(runs_dir: Path) -> None:
    """Note that a folder of runs has one at work, if that is not known. Raises OSError."""
    file = runs_dir / ledger.QUEUE_FILE
    if _is_noted(ledger.read(file)):
        return
    with ledger.holding(file):
        if not _is_noted(ledger.read(file)):
            ledger.write(file, Deed.WATCHED, since=time.time())


def _queue_since(entries: tuple[Entry, ...]) -> float | None:
    """When the folder was seen to have runs at work, after none was; None: never."""
    begun = [entry.since for entry in entries if entry.deed == Deed.WATCHED]
    return begun[-1] if begun else None


def _is_noted(entries: tuple[Entry, ...]) -> bool:
    """Whether there is a queue whose end has not been told of."""
    since = _queue_since(entries)
    told = any(e.event == Event.QUEUE_EMPTY and e.since == since for e in entries)
    return since is not None and not told


def _now(path: Path) -> tuple[StatusRecord, RunState]:
    status = read_status(path)
    if (state := state_now(status)) == RunState.LOST:
        # Its process may have written its last state and ended since the status was read.
        status = read_status(path)
        state = state_now(status)
    return status, state


def _never_at_work(state: RunState, status: StatusRecord) -> bool:
    """Whether a run was only created, or cancelled in the queue, or left no readable status."""
    return status.state is None or (state == RunState.STOPPED and status.pid is None)


def _begun(status: StatusRecord) -> float:
    """When a run that is at work was queued or, in a terminal, started."""
    queued = status.queued_at
    return queued if queued and (status.pid is None or queued < status.started) else status.started


def _is_old(status: StatusRecord) -> bool:
    """Whether a run ended so long ago that it is no news: other alerts may have been set then."""
    return time.time() - max(status.heartbeat, since_of(status)) > NEWS_SECONDS


def _is_watched(entries: tuple[Entry, ...], status: StatusRecord) -> bool:
    """Whether the run was watched since it was started last."""
    begun = _begun(status) - CLOCKS
    return any(entry.deed == Deed.WATCHED and entry.time >= begun for entry in entries)


def _stamp(file: Path) -> tuple[int, int] | None:
    """What differs when a file has been written; None where there is none to read."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
