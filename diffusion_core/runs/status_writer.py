"""The writer of `status.json` and the listener to `request.json`: a process that works on a run."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import filelock
import psutil

from diffusion_core.files import TEMPORARY, DiskFull, complain, os_sentence
from diffusion_core.runs.request import ENDING, Action, RequestRecord, read_request
from diffusion_core.runs.status import ACTIVE, RunState, StatusRecord, read_status, write_status

HEARTBEAT_SECONDS = 2.0
LETTING_GO = 2.0  # seconds in which a process that has written its last state is gone
# Bytes that a run at work sets aside, so that its status can be written on a disk that is full.
RESERVE = 16_384


class StopRequested(Exception):
    """A stop or pause came while the run waited or prepared, with nothing to keep yet."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action


class Busy(RuntimeError):
    """Another process works on the run; the message says so."""


@contextmanager
def only_trainer(path: Path) -> Iterator[None]:
    """Hold the run at `path` for this process; raises Busy where another one holds it.

    The lock is the operating system's: it is free again when its process is gone.
    """
    lock = filelock.FileLock(path.parent / f".{path.name}.run.lock")
    try:
        held = lock.acquire(timeout=LETTING_GO)
    except filelock.Timeout as error:
        raise Busy(f"Another process is at work on {path.name}; stop it first.") from error
    with held:
        yield


class StatusWriter:
    """Keeps `status.json` up to date while the process lives; receives signals and requests.

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
        processes: int = 1,
        cards: tuple[str, ...] = (),
    ) -> None:
        """`processes`: how many of them train the run on this host, on `cards`.

        Only `lead` writes.
        """
        self.path = path
        self.lead = lead
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.signalled = False
        self.enough = ""  # why the trainer itself stops, as a sentence
        self.request = RequestRecord()  # the last that `poll` took
        self.written = 0.0
        self.complained = False
        self.lasting = ""
        before = read_status(path)
        # A run that was started from the queue keeps its place until it has the device.
        waited = before.state in (RunState.QUEUED, RunState.STARTING)
        self.status = StatusRecord(
            state=RunState.STARTING,
            step=before.step,
            total=total,
            created=before.created or time.time(),
            started=time.time(),
            queued_at=before.queued_at if waited else 0.0,
            checkpoint_step=before.checkpoint_step,
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
            host=socket.gethostname(),
            device=device,
            processes=processes,
            cards=cards,
        )

    def update(self, *, quick: bool = False, **fields: Any) -> None:
        """Change fields and write. `quick`: skip the writing within a second of the last."""
        with self.lock:
            self.status = self.status.replace(**fields)
            if not self.lead or (quick and time.monotonic() - self.written < 1):
                return
            self.status = self.status.replace(heartbeat=time.time())
            try:
                self._write()
                self.complained = False
            except OSError as error:
                # A full disk must not end the training; the old status stays readable.
                if not self.complained:
                    complain(f"status.json cannot be written: {os_sentence(error)}")
                self.complained = True
            self.written = time.monotonic()

    def warn(self, sentence: str = "", *, lasting: bool = False) -> None:
        """Write a warning in place of the last one; empty: none is needed any more.

        `lasting`: it stays, before the others, as long as the process works on the run.
        """
        with self.lock:
            if lasting:
                self.lasting, sentence = f"{self.lasting} {sentence}".strip(), ""
            self.update(warning=f"{self.lasting} {sentence}".strip())

    def _write(self) -> None:
        reserve = self.path / ".reserve"
        try:
            write_status(self.path, self.status)
        except DiskFull:
            reserve.unlink(missing_ok=True)
            write_status(self.path, self.status)
        with suppress(OSError):  # on a full disk it is set aside again once there is space
            if self.status.state not in ACTIVE:
                reserve.unlink(missing_ok=True)
            elif not reserve.exists() or reserve.stat().st_size < RESERVE:
                reserve.unlink(missing_ok=True)
                reserve.write_bytes(os.urandom(RESERVE))

    def poll(self) -> Action | None:
        """The action requested since the last call, or None. A signal is a request to stop.

        `request` is then the whole request, with the settings to change.
        """
        self.request = RequestRecord()
        if self.signalled or self.enough:
            return "stop"
        request = self.path / "request.json"
        if not self.lead or not request.exists():
            return None
        # Renamed before it is read: a file written after this moment is another request.
        taken = self.path / f".taken.{os.getpid()}{TEMPORARY}"
        try:
            os.replace(request, taken)
            self.request = read_request(taken)
            taken.unlink()
        except OSError as error:
            complain(f"request.json: {error}")
            return None
        return self.request.action

    def raise_if_requested(self) -> None:
        """Raise StopRequested for a stop or pause before the first step; the rest waits for it."""
        if self.signalled or read_request(self.path / "request.json").action in ENDING:
            action = self.poll()
            if action and action in ENDING:
                raise StopRequested(action)

    def __enter__(self) -> StatusWriter:
        # A request to an earlier process of this run is not meant for this one.
        request = self.path / "request.json"
        if self.lead and read_request(request).time < _launched():
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


def _launched() -> float:
    """The start time of this process or, where torchrun starts several, of torchrun."""
    process = psutil.Process()
    launcher = process.parent() if "TORCHELASTIC_RUN_ID" in os.environ else None
    return (launcher or process).create_time()
