"""The real dashboard as a process of its own: started, waited for, ended. Knows no browser."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dashboard.services.settings import PREFIX
from tests.forks.client import PYTHON, ROOT, SLOW_STEPS, Fork, fork

# How long to wait on a machine that is busy with other things before calling it a failure.
PATIENCE_SECONDS = 90


@dataclass(frozen=True)
class Server:
    """A running dashboard: where it answers, where its runs are, where its log is."""

    url: str
    runs_dir: Path
    log: Path
    process: Fork | subprocess.Popen[bytes]


@contextmanager
def start_server(
    folder: Path, *, forked: bool = True, script: str = "streamlit_app.py", **settings: str
) -> Iterator[Server]:
    """Start `streamlit run streamlit_app.py` on a free port; end it when the block is left.

    Runs lie in `folder`/runs, the log in `folder`/server.log, secrets in `folder`/secrets.toml.
    `settings` are settings of the app by their names, as in `ROLE="viewer"`. `forked`: from the
    tests' fork server, which has PyTorch imported; else it is a new Python, as for a user.
    `script`: instead of the app's own.
    """
    runs_dir = folder / "runs"
    runs_dir.mkdir(exist_ok=True)
    reserved = _reserve_port()
    port = reserved.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    chosen = {"RUNS_DIR": str(runs_dir), "DEVICE": "cpu"} | settings
    environment |= {PREFIX + name: value for name, value in chosen.items()}
    environment |= {"OMP_NUM_THREADS": "1", **SLOW_STEPS}
    command = ["streamlit", "run", script, "--server.address", "localhost"]
    command += ["--server.port", str(port), "--secrets.files", str(folder / "secrets.toml")]
    log = folder / "server.log"
    process: Fork | subprocess.Popen[bytes]
    if forked:
        process = fork(command, output=log, environment=environment)
    else:
        with log.open("ab") as said:
            process = subprocess.Popen(
                [PYTHON, "-m", *command], cwd=ROOT, env=environment, stdout=said, stderr=said
            )
    server = Server(f"http://localhost:{port}", runs_dir, log, process)
    try:
        _wait_until_healthy(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reserved.close()


def _reserve_port() -> socket.socket:
    """A socket whose port nobody else is given until it is closed; a server may listen on it.

    Both have SO_REUSEADDR, as every server has. A port that is only looked up and let go of may be
    another server's too: the tests of both would then be about the one that came first.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("", 0))
    return holder


def _wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/_stcore/health") as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The dashboard did not start:\n{server.log.read_text()}")
