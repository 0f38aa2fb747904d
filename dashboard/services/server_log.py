"""The server's log: a file of JSON, one line an event, for people who run the server.

What this project logs (`logging`, the loggers `dashboard` and `diffusion_core`) goes there from the
level INFO on, warnings and errors also to standard error. A line has the time, the level, the event
and, where there is one, the run, the session, the order (a sampling job), the user and the error
with its traceback. `extra=` of a logging call adds fields.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import socket
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.services import users
from dashboard.services.settings import Settings, SettingsError, get_settings
from diffusion_core import __version__
from diffusion_core.files import os_sentence

FOLDER = ".logs"  # beside the runs
BYTES, FILES = 5 * 2**20, 5  # of a file, and how many of them are kept
LOGGERS = ("dashboard", "diffusion_core")
LONGEST_TEXT = 20_000  # characters of a field

# The attributes that every record has; the others are fields of ours.
USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **who(),
            **{name: value for name, value in vars(record).items() if name not in USUAL},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: _plain(value) for name, value in fields.items()})


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[-LONGEST_TEXT:]  # of a traceback the end tells more


def who() -> dict[str, str]:
    """The session that this thread works for, and its user where there is a login."""
    context = get_script_run_ctx(suppress_warning=True)
    if context is None:
        return {}
    # Not Streamlit's own name of it, with which another could take up the session.
    found = {"session": hashlib.sha256(context.session_id.encode()).hexdigest()[:8]}
    if name := users.name():
        found["user"] = name
    return found


def begin(port: int) -> None:
    """Start the log of this server and write its first line."""
    try:
        settings: Settings | None = get_settings()
        problem = ""
    except SettingsError as error:
        settings, problem = None, str(error)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setLevel(logging.WARNING)
    if settings is not None:
        try:
            handlers.append(_open(settings.log_dir or settings.runs_dir / FOLDER, port))
        except OSError as error:
            problem = f"The log of the server cannot be written: {os_sentence(error)}"
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    log = logging.getLogger(__name__)
    if settings is not None:
        log.info(
            "server started",
            extra={
                "version": __version__,
                "role": settings.role
                or ("by sign-in" if settings.auth else "by the visitor's address"),
                "runs_dir": settings.runs_dir,
                "device": settings.device or "auto",
                "python": platform.python_version(),
                "host": socket.gethostname(),
                "port": port,
                "pid": os.getpid(),
            },
        )
    if problem:
        log.warning(problem)


def _open(folder: Path, port: int) -> logging.Handler:
    """The file of this server; several may share the folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())
    handler = RotatingFileHandler(
        folder / f"server-{host}-{port}.jsonl",
        maxBytes=BYTES,
        backupCount=FILES - 1,
        encoding="utf-8",
    )
    handler.setFormatter(Lines())
    return handler
