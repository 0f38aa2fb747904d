"""A process that has PyTorch, accelerate and Streamlit imported, and forks the tests' processes.

To import them takes 2 to 4 seconds of a core, and the tests start more than a hundred processes.
A request, a dictionary written by `marshal`, says what the fork runs: a module as `python -m` does,
or a pickled function. The fork has a session of its own and the arguments, environment, folder,
network namespace and open files of whoever asks; the answer is its process ID and, when it has
ended, how. It is killed when whoever asked is gone, and all are when the server's input ends; so is
the folder of the server, however whoever started it has ended.

Start: `python -m tests.forks.server SOCKET FOLDER PADDING`, with the number of a listening Unix
socket, the folder to remove and an argument as long as those that a fork's command line may show.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import marshal
import os
import pickle
import runpy
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffusion_core.training import loop
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.step import StepOutput

# What `dashboard` registers with Streamlit has to wait for Streamlit's server.
PRELOADED = (
    "diffusion_core.cli.main",
    "diffusion_core.training.trainer",
    "diffusion_core.evaluation.evaluate",
    "diffusion_core.media.animation",
    "torch._dynamo",  # the optimizer imports it
    "torch.distributed.run",
    "torch.utils.serialization.config",
    "streamlit.web.cli",
    "plotly.graph_objects",
    "pandas",
    "tests.faults.processes",
)
STEP_PAUSE = "TESTS_STEP_PAUSE"  # the variable with the seconds that a trainer waits before a step
SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(listening: socket.socket, folder: Path) -> Callable[[], object]:
    """Serve until the input ends. Returns only in a fork: what it is to run."""
    waiting: dict[int, socket.socket] = {}  # who asked, by the process ID of the fork
    selector = selectors.DefaultSelector()
    woken, wake = socket.socketpair()
    for end in (woken, wake, listening):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for readable in (sys.stdin, woken, listening):
        selector.register(readable, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for pid in waiting:
                    os.kill(pid, signal.SIGKILL)
                shutil.rmtree(folder)
                sys.exit()
            elif key.fileobj is woken:
                with suppress(BlockingIOError):
                    woken.recv(4096)
            elif key.fileobj is listening:
                client, _ = listening.accept()
                client.setblocking(True)
                received = receive(client)
                if received is None:
                    client.close()
                    continue
                request, files = received
                if pid := os.fork():
                    for file in files:
                        os.close(file)
                    client.sendall(pid.to_bytes(4, "little"))
                    waiting[pid] = client
                    selector.register(client, selectors.EVENT_READ, pid)
                else:
                    signal.set_wakeup_fd(-1)
                    for number in SIGNALS:
                        signal.signal(number, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    selector.close()
                    for end in (woken, wake, listening, client, *waiting.values()):
                        end.close()
                    return become(request, files)
            elif key.data in waiting:  # whoever asked is gone
                os.kill(key.data, signal.SIGKILL)
                selector.unregister(waiting.pop(key.data)).fileobj.close()  # type: ignore[union-attr]
        reap(waiting, selector)


def receive(client: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A request and the files that came with it; None where whoever asked is gone already."""
    head, files, _, _ = socket.recv_fds(client, 4, 4)
    body = b""
    length = int.from_bytes(head, "little")
    while part := client.recv(length - len(body)):
        body += part
    if len(head) == 4 and len(body) == length:
        return marshal.loads(body), files
    for file in files:
        os.close(file)
    return None


def reap(waiting: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    """Tell whoever asked for a process that it has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if client := waiting.pop(pid, None):
            selector.unregister(client)
            with suppress(OSError), client:
                client.sendall(status.to_bytes(4, "little"))


def become(request: dict[str, Any], files: list[int]) -> Callable[[], object]:
    """Make this fork the process that was asked for; returns what it runs."""
    os.setsid()
    if request["namespace"]:
        enter_network(files.pop())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    show_command_line(request["shown"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # found out again: this environment may name another
    sys.path[0] = request["folder"]
    sys.executable = request["executable"]
    if pause := float(os.environ.get(STEP_PAUSE, 0)):
        slow_down(pause)
    if pickled := request["function"]:
        function, arguments = pickle.loads(pickled)
        return lambda: sys.exit(function(*arguments))
    module, *sys.argv[1:] = request["arguments"]
    return lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)


def slow_down(seconds: float) -> None:
    """A trainer in this fork waits before each step: it leaves the core to what is tested."""
    one_step = loop.one_step

    def slow_step(context: TrainingContext, step: int) -> StepOutput:
        time.sleep(seconds)
        return one_step(context, step)

    loop.one_step = slow_step


def enter_network(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, 0):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(file)


def show_command_line(words: list[str]) -> None:
    """What others read as this process's command line; there is room for what the server had."""
    with open("/proc/self/stat") as file:
        start, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    line = "\0".join(words).encode()[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, line, len(line))


def main() -> Callable[[], object]:
    torch.set_num_threads(1)
    for module in PRELOADED:
        importlib.import_module(module)
    Image.init()  # imports a module for each kind of image file
    gc.collect()
    gc.freeze()  # collections in the forks pass over all this
    assert len(os.listdir("/proc/self/task")) == 1, "A process with threads cannot be forked."
    return serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))


if __name__ == "__main__":
    main()()
