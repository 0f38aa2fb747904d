"""The trainer's side of the run folder's small files: `status.json`, `request.json`, the turn.

Written by the process that trains; everybody else reads through `runs.py` and asks through
`jobs.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import filelock
import psutil
import torch

from diffusion_core.files import read_json, write_json
from diffusion_core.runs import queued_before

HEARTBEAT_SECONDS = 2.0
ACTIONS = ("pause", "stop", "sample", "checkpoint")


class Asked(Exception):
    """A stop or pause came while the run waited or prepared, with nothing to keep yet."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action


class RunStatus:
    """Keeps `status.json` true while the process lives; hears signals and requests.

    A context manager: inside it a thread writes the heartbeat, and SIGTERM or SIGINT count as a
    request to stop (a second SIGINT interrupts at once).
    """

    def __init__(self, path: Path, *, device: str, total: int, lead: bool = True) -> None:
        self.path = path
        self.lead = lead
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.signalled = False
        self.written = 0.0
        before = read_json(path / "status.json") or {}
        self.fields: dict[str, Any] = {
            "state": "starting",
            "step": before.get("step", 0),
            "total": total,
            "created": before.get("created", time.time()),
            "started": time.time(),
            "checkpoint_step": before.get("checkpoint_step"),
            "arguments": before.get("arguments"),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "host": socket.gethostname(),
            "device": device,
            "error": None,
            "warning": None,
            "message": "",
        }

    def update(self, *, quick: bool = False, **fields: Any) -> None:
        """Change fields and write. `quick`: skip the writing within a second of the last."""
        with self.lock:
            self.fields.update(fields)
            if not self.lead or (quick and time.monotonic() - self.written < 1):
                return
            self.fields["heartbeat"] = time.time()
            try:
                write_json(self.path / "status.json", self.fields)
            except OSError as error:
                # A full disk must not end the training; the old status stays readable.
                print(f"status.json: {error}", file=sys.stderr, flush=True)
            self.written = time.monotonic()

    def poll(self) -> str | None:
        """What was asked since the last call: one of ACTIONS, or None."""
        if self.signalled:
            self.signalled = False
            return "stop"
        request = self.path / "request.json"
        if not self.lead or not request.exists():
            return None
        action = (read_json(request) or {}).get("action")
        request.unlink(missing_ok=True)
        return action if action in ACTIONS else None

    def raise_if_asked(self) -> None:
        action = self.poll()
        if action in ("stop", "pause"):
            raise Asked(action)

    def __enter__(self) -> RunStatus:
        # What was asked of an earlier process of this run is not meant for this one.
        if self.lead:
            (self.path / "request.json").unlink(missing_ok=True)
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
            raise KeyboardInterrupt
        self.signalled = True

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT_SECONDS):
            self.update()


@contextmanager
def device_turn(status: RunStatus, runs_dir: Path, device: torch.device) -> Iterator[None]:
    """Wait until no other run of this folder uses the device on this host, first come first.

    The lock is the operating system's: it is free again whenever its process is gone. Raises
    Asked where the run is stopped or paused while it waits.
    """
    if not status.lead:
        yield
        return
    lock = filelock.FileLock(runs_dir / f".{socket.gethostname()}-{device.type}.lock")
    status.update(state="queued", queued_at=time.time())
    while True:
        if not queued_before(status.path, status.fields):
            try:
                lock.acquire(timeout=0)
                break
            except filelock.Timeout:
                status.update(message="Waiting for the device: another run is on it.", quick=True)
        status.raise_if_asked()
        status.over.wait(0.5)
    try:
        yield
    finally:
        lock.release()
