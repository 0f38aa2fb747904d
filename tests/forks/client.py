"""Asks the fork server, which starts with the first request and ends with this process.

Processes that pytest-xdist starts share the one of the process that starts them.
"""

from __future__ import annotations

import atexit
import functools
import marshal
import os
import pickle
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

PYTHON = sys.executable  # the true one
ROOT = Path(__file__).resolve().parents[2]
LONGEST_COMMAND_LINE = 4000
SHARED = "TESTS_FORK_SERVER"  # the variable with the folder of a server that others may ask too
# For a trainer that goes on until it is ended: without it each would take a whole core meanwhile.
SLOW_STEPS = {"TESTS_STEP_PAUSE": "0.02"}
# Else PyTorch has one for each core, and Arrow one for its memory.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Fork:
    """A process that the fork server has made. Much like `subprocess.Popen`."""

    def __init__(self, server: socket.socket, pid: int) -> None:
        self.server = server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative where a signal ended it."""
        if self.returncode is None:
            self.server.settimeout(timeout)
            try:
                answer = self.server.recv(4)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            self.server.close()
            if not answer:
                raise RuntimeError("The fork server is gone.")
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(answer, "little"))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(
    target: Callable[..., object] | list[str],
    *arguments: object,
    output: Path,
    environment: Mapping[str, str] | None = None,
) -> Fork:
    """A function in a process of its own, which exits with what it returns; or, where `target` is a
    list, a module with its arguments as `python -m` takes them.

    `output` gets what it writes; its environment is this process's where none is given.
    """
    words = target if isinstance(target, list) else [target.__name__]
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(_start() / "socket"))
    request = {
        "arguments": words,
        "function": b"" if isinstance(target, list) else pickle.dumps((target, arguments)),
        "shown": [PYTHON, "-m", *words],
        "environment": dict(os.environ if environment is None else environment),
        "folder": str(ROOT),
        "executable": str(launcher()),
        "namespace": False,
    }
    body = marshal.dumps(request)
    with output.open("ab") as said, open(os.devnull) as nothing:
        files = [nothing.fileno(), said.fileno(), said.fileno()]
        socket.send_fds(server, [len(body).to_bytes(4, "little")], files)
    server.sendall(body)
    return Fork(server, int.from_bytes(server.recv(4), "little"))


def launcher() -> Path:
    """What may stand for `sys.executable`; `torchrun` lies beside it."""
    return _start() / "python"


def share() -> None:
    """Start the fork server for all processes that this one will start."""
    os.environ[SHARED] = str(_start())


@functools.cache
def _start() -> Path:
    if shared := os.environ.get(SHARED):
        return Path(shared)
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    python = folder / "python"
    words = [PYTHON, "-IS", Path(__file__).with_name("launcher.py"), folder / "socket", PYTHON]
    start = shlex.join(map(str, [*words, python]))
    python.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    torchrun = folder / "torchrun"
    torchrun.write_text(f'#!/bin/sh\nexec {start} -m torch.distributed.run "$@"\n')
    for script in (python, torchrun):
        script.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(100)
        number = listening.fileno()
        command = [PYTHON, "-m", "tests.forks.server", str(number), str(folder)]
        server = subprocess.Popen(
            [*command, "x" * LONGEST_COMMAND_LINE],
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            pass_fds=[number],
            start_new_session=True,  # ^C in the terminal ends it through its input, like any end
        )
    atexit.register(_end, server)
    return folder


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
