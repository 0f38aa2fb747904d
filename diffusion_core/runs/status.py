"""The trainer's side of the run folder's small files: `status.json`, `request.json`, the turn.

Written by the process that trains; everybody else reads through `runs.py` and asks through
`jobs.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import filelock
import psutil
import torch

from diffusion_core.files import TEMPORARY, DiskFull, complain, read_json, write_json
from diffusion_core.runs.run import ACTIVE, at_work, places_of, queued_before

HEARTBEAT_SECONDS = 2.0
ACTIONS = ("pause", "stop", "sample", "checkpoint", "change")
ENDING = ("pause", "stop")
# Bytes that a run at work sets aside, so that its status can be written on a disk that is full.
RESERVE = 16_384


class StopRequested(Exception):
    """A stop or pause came while the run waited or prepared, with nothing to keep yet."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action


class Busy(RuntimeError):
    """Another process trains the run; the message says so in a sentence."""


@contextmanager
def only_trainer(path: Path) -> Iterator[None]:
    """Hold the run at `path` for this process; raises Busy where another one holds it.

    Two of them would write each other's files. The lock is the operating system's, as below.
    """
    lock = filelock.FileLock(path.parent / f".{path.name}.run.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise Busy(f"Another process is at work on {path.name}; stop it first.") from error
    try:
        yield
    finally:
        lock.release()


class RunStatus:
    """Keeps `status.json` true while the process lives; hears signals and requests.

    A context manager: inside it a thread writes the heartbeat, and SIGTERM or SIGINT count as a
    request to stop (a second SIGINT interrupts at once).
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        total: int,
        lead: bool = True,
        arguments: list[str] | None = None,
        processes: int = 1,
    ) -> None:
        """`arguments`: the settings as words of the command line, where the run is a new one.

        `processes`: how many of them train the run on this host.
        """
        self.path = path
        self.lead = lead
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.signalled = False
        self.asked: dict[str, Any] = {}  # the whole request that `poll` took last
        self.written = 0.0
        self.complained = False
        before = read_json(path / "status.json") or {}
        self.fields: dict[str, Any] = {
            "state": "starting",
            "step": before.get("step", 0),
            "total": total,
            "created": before.get("created", time.time()),
            "started": time.time(),
            "checkpoint_step": before.get("checkpoint_step"),
            "arguments": arguments or before.get("arguments"),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "host": socket.gethostname(),
            "device": device,
            "processes": processes,
            "error": None,
            "warning": None,
            "message": "",
        }
        # A run that was started from the queue keeps its place until it has the device.
        if before.get("state") in ("queued", "starting") and "queued_at" in before:
            self.fields["queued_at"] = before["queued_at"]

    def update(self, *, quick: bool = False, **fields: Any) -> None:
        """Change fields and write. `quick`: skip the writing within a second of the last."""
        with self.lock:
            self.fields.update(fields)
            if not self.lead or (quick and time.monotonic() - self.written < 1):
                return
            self.fields["heartbeat"] = time.time()
            try:
                self._write()
                self.complained = False
            except OSError as error:
                # A full disk must not end the training; the old status stays readable.
                if not self.complained:
                    complain(f"status.json cannot be written: {error}")
                self.complained = True
            self.written = time.monotonic()

    def _write(self) -> None:
        reserve = self.path / ".reserve"
        try:
            write_json(self.path / "status.json", self.fields)
        except DiskFull:
            reserve.unlink(missing_ok=True)
            write_json(self.path / "status.json", self.fields)
        with suppress(OSError):  # on a full disk it is set aside again once there is space
            if self.fields["state"] not in ACTIVE:
                reserve.unlink(missing_ok=True)
            elif not reserve.exists() or reserve.stat().st_size < RESERVE:
                reserve.write_bytes(os.urandom(RESERVE))

    def poll(self) -> str | None:
        """What was asked since the last call: one of ACTIONS, or None. A signal says "stop".

        `asked` is the request itself then, empty where there was none. Its "settings" are those
        to change; a stop or pause that came after a change has them too.
        """
        self.asked = {}
        if self.signalled:
            return "stop"
        request = self.path / "request.json"
        if not self.lead or not request.exists():
            return None
        # Taken away before it is read: what is written after this moment is another request.
        taken = self.path / f".taken.{os.getpid()}{TEMPORARY}"
        try:
            os.replace(request, taken)
            asked = read_json(taken) or {}
            taken.unlink()
        except OSError as error:
            complain(f"request.json: {error}")
            return None
        action = asked.get("action")
        settings = asked.setdefault("settings", {})
        if action not in ACTIONS or not isinstance(settings, dict):
            return None
        self.asked = asked
        return action

    def raise_if_asked(self) -> None:
        """Before the first step: raise Asked for a stop or pause; the others wait for the step."""
        asked = (read_json(self.path / "request.json") or {}).get("action")
        if (self.signalled or asked in ENDING) and (action := self.poll()) in ENDING:
            raise StopRequested(action)

    def __enter__(self) -> RunStatus:
        # What was asked of an earlier process of this run is not meant for this one.
        request = self.path / "request.json"
        asked_at = (read_json(request) or {}).get("time")
        meant = isinstance(asked_at, float) and asked_at >= _launched()
        if self.lead and not meant:
            request.unlink(missing_ok=True)
        self.update()
        self.old_handlers = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.old_handlers[number] = signal.signal(number, self._on_signal)
        self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self.thread.join()
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signalled and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second: without waiting for more than a file
        self.signalled = True

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT_SECONDS):
            self.update()


@contextmanager
def device_turn(status: RunStatus, runs_dir: Path, device: torch.device) -> Iterator[None]:
    """Wait until no other run of this folder uses the device on this host, in the queue's order.

    A run of several processes on CUDA waits for all of their cards. The lock is the operating
    system's: it is free again whenever its process is gone. Raises Asked where the run is stopped
    or paused while it waits.
    """
    if not status.lead:
        yield
        return
    host = socket.gethostname()
    locks = [
        filelock.FileLock(runs_dir / f".{host}-{place.replace(':', '-')}.lock")
        for place in sorted(places_of(status.fields))
    ]
    status.update(state="queued", queued_at=status.fields.get("queued_at", time.time()))
    while True:
        # Another that is starting from the queue has its turn, though not the lock yet.
        others = queued_before(status.path, status.fields) or at_work(status.path, status.fields)
        if not others and _acquire(locks):
            break
        status.update(message="Waiting for the device: another run is on it.", quick=True)
        status.raise_if_asked()
        status.over.wait(0.5)
    try:
        yield
    finally:
        for lock in locks:
            lock.release()


def _acquire(locks: Sequence[filelock.BaseFileLock]) -> bool:
    """All of them at once, or none: where a run is on one whose status was not there to read."""
    for number, lock in enumerate(locks):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            for held in locks[:number]:
                held.release()
            return False
    return True


def _launched() -> float:
    """When this process was started or, where torchrun starts several, when torchrun was."""
    process = psutil.Process()
    launcher = process.parent() if "TORCHELASTIC_RUN_ID" in os.environ else None
    return (launcher or process).create_time()
