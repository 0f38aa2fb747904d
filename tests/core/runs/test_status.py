"""The trainer's side of the requests: what it takes up, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_core.runs import jobs
from diffusion_core.runs.request import RequestRecord
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import write_status
from diffusion_core.runs.status_writer import StatusWriter
from tests.tiny_runs import set_running, write_run


@pytest.fixture
def run(runs_dir: Path) -> Run:
    path = write_run(runs_dir, "run")
    set_running(path)
    return Run(path)


def test_a_change_is_taken_with_its_settings(run: Run) -> None:
    status = StatusWriter(run.path, device="cpu", total=40)
    assert status.poll() is None
    jobs.change(run, {"learning_rate": 1e-4})
    assert status.poll() == "change"
    assert status.request.settings == {"learning_rate": 1e-4}
    assert status.poll() is None
    assert status.request == RequestRecord()
    jobs.request(run, "sample")
    assert status.poll() == "sample"
    assert status.request.settings == {}


def test_a_signal_brings_no_settings_of_an_earlier_request(run: Run) -> None:
    status = StatusWriter(run.path, device="cpu", total=40)
    jobs.change(run, {"learning_rate": 1e-4})
    assert status.poll() == "change"
    status.signalled = True
    assert status.poll() == "stop"
    assert status.request == RequestRecord()


def test_a_stop_that_comes_after_a_change_brings_its_settings(run: Run) -> None:
    jobs.change(run, {"learning_rate": 1e-4})
    jobs.request(run, "stop")
    status = StatusWriter(run.path, device="cpu", total=40)
    assert status.poll() == "stop"
    assert status.request.settings == {"learning_rate": 1e-4}


@pytest.mark.parametrize("settings", ["fast", [1], 3, None])
def test_a_change_of_something_that_is_no_settings_is_ignored(settings, run: Run) -> None:
    asked = {"action": "change", "settings": settings}
    (run.path / "request.json").write_text(json.dumps(asked))
    assert StatusWriter(run.path, device="cpu", total=40).poll() is None
    assert not (run.path / "request.json").exists()


def test_a_run_that_was_started_from_the_queue_keeps_its_place(run: Run) -> None:
    for state, kept in (("starting", 5.0), ("queued", 5.0), ("running", 0), ("stopped", 0)):
        write_status(run.path, run.status.replace(state=state, queued_at=5.0))
        status = StatusWriter(run.path, device="cpu", total=40)
        assert status.status.queued_at == kept
