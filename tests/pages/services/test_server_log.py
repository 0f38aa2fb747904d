"""The server's log: lines of JSON in a file that is rotated, and never a reason not to start."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard.services import errors, server_log
from diffusion_core import __version__
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.run import Run
from tests.tiny_runs import write_run

Read = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in server_log.LOGGERS]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def read(runs_dir: Path) -> Read:
    """What is in the log now."""
    file = runs_dir / ".logs" / f"server-{socket.gethostname()}-8501.jsonl"
    return lambda: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_first_line_says_what_has_started(read: Read, runs_dir: Path) -> None:
    server_log.begin(8501)
    [line] = read()
    assert line["event"] == "server started" and line["level"] == "info"
    assert (line["version"], line["role"], line["port"]) == (__version__, "operator", 8501)
    assert line["runs_dir"] == str(runs_dir)


def test_a_deed_has_its_run_and_what_was_done(read: Read, runs_dir: Path) -> None:
    server_log.begin(8501)
    run = Run(write_run(runs_dir, "mine"))
    with pytest.raises(jobs.JobError):
        jobs.request(run, "stop")  # it is not at work
    trash.delete(run)
    _, line = read()  # what was refused was not done
    assert (line["event"], line["run"]) == ("run deleted", "mine")


def test_an_error_has_its_number_and_traceback_in_one_line(
    read: Read, capsys: pytest.CaptureFixture
) -> None:
    server_log.begin(8501)
    try:
        raise KeyError("line\nbreak")
    except KeyError as error:
        sentence = errors.report(error)
    line = read()[-1]
    assert line["level"] == "error" and f"error {line['error']}" in sentence
    assert line["traceback"].startswith("Traceback") and "test_server_log.py" in line["traceback"]
    # The terminal has it too.
    assert f"Error {line['error']}\nTraceback" in capsys.readouterr().err


def test_the_files_are_rotated_and_the_oldest_goes(
    read: Read, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_log, "BYTES", 500)
    server_log.begin(8501)
    for number in range(100):
        logging.getLogger("dashboard").info("event %d", number)
    files = list((runs_dir / ".logs").iterdir())
    assert len(files) == server_log.FILES
    assert all(file.stat().st_size <= 500 for file in files)
    assert read()[-1]["event"] == "event 99"


def test_another_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_LOG_DIR", str(tmp_path / "a" / "log"))
    server_log.begin(8501)
    assert [file.suffix for file in (tmp_path / "a" / "log").iterdir()] == [".jsonl"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOG_DIR", "{file}/log", "The log of the server cannot be written: "),
        ("ROLE", "king", "DIFFUSION_LAB_ROLE is 'king'"),
    ],
)
def test_a_server_without_a_log_starts_and_says_why(
    name: str,
    value: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(f"DIFFUSION_LAB_{name}", value.format(file=tmp_path / "file"))
    server_log.begin(8501)
    assert said in capsys.readouterr().err
