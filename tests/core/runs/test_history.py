"""The history of a run: who did what, in which words it is on disk, and what a broken line does."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import psutil
import pytest
import torch

from diffusion_core.cli.main import main
from diffusion_core.runs import history, jobs, trash
from diffusion_core.runs.history import FILE, Event, read_history, record
from diffusion_core.runs.lines import Lines
from diffusion_core.runs.run import Run, load_run
from diffusion_core.runs.status import ACTIVE
from diffusion_core.training.trainer import train
from tests.tiny_runs import set_running, tiny, write_run

ME = psutil.Process().username()


def deeds(path: Path) -> list[tuple[str, str]]:
    found = read_history(path)
    assert not found.problem
    return [(entry.event, entry.by) for entry in found.entries]


def test_a_run_that_has_no_history_has_an_empty_one(tmp_path: Path) -> None:
    assert read_history(tmp_path) == Lines()


def test_every_deed_of_a_person_is_written_into_the_run(runs_dir: Path) -> None:
    run = jobs.create(runs_dir, "mine", tiny(learning_rate=2e-4), by="ann@lab.org")
    jobs.change(run, {"learning_rate": 1e-4}, by="bob@lab.org")
    set_running(run.path)
    for action in ("sample", "checkpoint", "pause", "stop"):
        (run.path / "request.json").unlink(missing_ok=True)
        jobs.request(run, action, by="ann@lab.org")
    (run.path / "status.json").write_text('{"state": "stopped"}')
    gone = trash.delete(run, by="bob@lab.org")
    back = trash.restore(gone, by="")
    assert deeds(back.path) == [
        ("created", "ann@lab.org"),
        ("changed", "bob@lab.org"),
        ("sample", "ann@lab.org"),
        ("checkpoint", "ann@lab.org"),
        ("pause", "ann@lab.org"),
        ("stop", "ann@lab.org"),
        ("deleted", "bob@lab.org"),
        ("restored", ""),
    ]
    assert read_history(back.path).entries[1].settings == {"learning_rate": (2e-4, 1e-4)}


def test_a_deed_that_is_refused_is_not_in_it(runs_dir: Path) -> None:
    run = Run(write_run(runs_dir, "rests", state="stopped"))
    with pytest.raises(jobs.JobError):
        jobs.request(run, "stop", by="ann@lab.org")
    assert deeds(run.path) == []


def test_commands_write_the_user_of_the_operating_system(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_run(runs_dir, "mine", 40, state="stopped")
    assert main(["change", str(path), "learning_rate=0.0001"]) == 0
    assert main(["export", str(path), "--format", "diffusers"]) == 0
    assert main(["delete", str(path), "--yes"]) == 0
    assert main(["restore", str(path)]) == 0
    done = ["changed", "exported", "deleted", "restored"]
    assert deeds(path) == [(event, ME) for event in done]
    assert read_history(path).entries[1].format == "diffusers"


def test_a_training_in_a_terminal_is_in_it_and_one_from_the_queue_only_once(
    runs_dir: Path, quick_python: None
) -> None:
    path = runs_dir / "here"
    train(path, tiny(steps=2, sample_every=9, validate_every=9), device=torch.device("cpu"))
    jobs.change(load_run(path), {"steps": 3}, by="ann@lab.org")
    train(path, resume=True, device=torch.device("cpu"))
    assert deeds(path) == [("started", ME), ("changed", "ann@lab.org"), ("resumed", ME)]
    run = jobs.start(runs_dir, "queued", tiny(steps=2), "cpu", by="ann@lab.org")
    while (state := run.state) != "finished":
        assert state in ACTIVE, run.status.error
        time.sleep(0.05)
    assert deeds(run.path) == [("started", "ann@lab.org")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"ti', "history.jsonl is not readable JSON."),
        ('{"time": 1, "event": "flew"}', "history.jsonl: event is 'flew'; it must be created, "),
        ('{"time": 1e400, "event": "moved"}', "history.jsonl: time is inf; it must be a finite"),
        (
            '{"time": 1, "event": "changed", "settings": {"steps": [NaN, 1]}}',
            "history.jsonl: steps is nan; it must be text or a number.",
        ),
        (
            '{"time": 1, "event": "changed", "settings": {"steps": [1, 1%s]}}' % ("0" * 400),
            "history.jsonl: steps is 1000",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_count(
    line: str, problem: str, tmp_path: Path
) -> None:
    record(tmp_path, Event.CREATED, "ann@lab.org")
    with (tmp_path / FILE).open("a") as file:
        file.write(line)  # without its end, as a full disk leaves it
    record(tmp_path, Event.RESUMED, "bob@lab.org")
    found = read_history(tmp_path)
    assert [entry.event for entry in found.entries] == ["created", "resumed"]
    assert found.problem.startswith(problem)


def test_of_a_long_history_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_BYTES", 1000)
    for number in range(50):
        record(tmp_path, Event.MOVED, f"person-{number}")
    found = read_history(tmp_path)
    assert found.shortened and not found.problem and 5 < len(found.entries) < 20
    assert found.entries[-1].by == "person-49"


def test_a_history_that_cannot_be_written_stops_no_deed(
    runs_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(write_run(runs_dir, "mine", state="stopped"))
    (run.path / FILE).mkdir()
    with caplog.at_level(logging.WARNING):
        jobs.change(run, {"steps": 90})
    assert run.config.steps == 90
    assert caplog.messages == [
        "The history of mine cannot be written: history.jsonl is not a file."
    ]
    assert read_history(run.path).problem == "history.jsonl cannot be read: Is a directory."
