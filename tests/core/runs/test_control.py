"""The commands that control runs: what they do to the folders, what they print, how they end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.cli.main import main
from diffusion_core.runs import queue as run_queue
from diffusion_core.runs.changes import read_changes
from diffusion_core.runs.presets import preset
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, RunSnapshot, list_runs
from diffusion_core.runs.status import write_status
from tests.tiny_runs import set_running, tiny, write_run

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """`say("stop", "run")` runs that command; returns what it printed. `code`: how it must end."""

    def run_command(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        ended = main(list(words))
        printed = capsys.readouterr()
        assert ended == code, printed
        return printed.err if code else printed.out

    return run_command


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs whose processes would have been started."""
    names: list[str] = []

    def spawn(run: RunSnapshot) -> None:
        names.append(run.name)
        write_status(run.path, run.status.replace(state="starting", heartbeat=time.time()))

    monkeypatch.setattr(run_queue, "_spawn", spawn)
    return names


@pytest.fixture
def queued(runs_dir: Path) -> list[str]:
    """Two runs that wait behind one that this process trains."""
    set_running(write_run(runs_dir, "busy", heartbeat=time.time()))
    for number, name in enumerate(("a", "b")):
        place: dict[str, Any] = {
            "host": os.uname().nodename,
            "device": "cpu",
            "queued_at": float(number),
        }
        write_run(runs_dir, name, state="queued", **place)
    return ["a", "b"]


def names(runs_dir: Path) -> list[str]:
    return [run.name for run in read_queue(runs_dir)]


def test_the_queue_is_a_table_and_can_be_moved_and_cancelled(
    runs_dir: Path, queued, say: Say, started
) -> None:
    lines = say("queue").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "a", "cpu"], ["2", "b", "cpu"]]
    assert " 1 b" in say("queue", "up", "b")
    assert names(runs_dir) == ["b", "a"]
    say("queue", "down", "b")
    assert names(runs_dir) == ["a", "b"]
    say("queue", "cancel", "a")
    assert Run(runs_dir / "a").state == "stopped"
    assert "b is stopped." in say("stop", "b")
    assert "No runs are waiting" in say("queue")
    assert "busy is running; it is not in the queue." in say("queue", "up", "busy", code=1)
    assert "busy is running; it is not in the queue." in say("queue", "cancel", "busy", code=1)
    (runs_dir / "busy" / "status.json").write_text('{"state": "failed", "created": 1.0}')
    assert "busy has failed; it is not in the queue." in say("queue", "cancel", "busy", code=1)
    assert "busy has failed; there is nothing to pause." in say("pause", "busy", code=1)
    assert "Which run? Write: queue up RUN." in say("queue", "up", code=2)
    assert not started


@pytest.mark.parametrize("word", ["queue", "runs"])
def test_a_look_at_the_runs_starts_what_can_start(
    word: str, runs_dir: Path, queued, say: Say, started
) -> None:
    say(word)
    assert not started
    (runs_dir / "busy" / "status.json").write_text('{"state": "finished"}')
    say(word)
    say(word)
    assert started == ["a"]


def test_a_run_at_work_is_asked_for_what_it_can_do(runs_dir: Path, queued, say: Say) -> None:
    request = runs_dir / "busy" / "request.json"
    assert "busy takes learning_rate=1e-4 at its next step." in say(
        "change", "busy", "learning_rate=1e-4"
    )
    assert json.loads(request.read_text())["settings"] == {"learning_rate": 1e-4}
    for word, action in (("sample-now", "sample"), ("checkpoint-now", "checkpoint")):
        request.unlink()
        assert "at its next step." in say(word, "busy")
        assert json.loads(request.read_text())["action"] == action
    assert "busy will pause at its next step." in say("pause", "busy")


def test_settings_that_cannot_change_end_with_2(runs_dir: Path, queued, say: Say) -> None:
    assert "seed cannot change in a run" in say("change", "busy", "seed=1", code=2)
    assert "takes a number, not 'x'" in say("change", "busy", "learning_rate=x", code=2)
    assert "in all" not in say("resume", "a", "--steps", "9", code=1)


def test_a_run_goes_on_with_more_steps_and_other_settings(
    runs_dir: Path, say: Say, started
) -> None:
    run = Run(write_run(runs_dir, "run", 40))
    (run.path / "state").mkdir()
    (run.path / "state" / "step-00000040.pt").touch()
    words = ("--steps", "80", "--set", "learning_rate=1e-4", "sample_every=5")
    assert "run runs in the background" in say("resume", "run", *words)
    assert started == ["run"]
    [change] = read_changes(run.path)
    assert change.settings == {"steps": 80, "learning_rate": 1e-4, "sample_every": 5}
    assert change.step == 41


def test_a_run_like_another_has_all_its_settings_but_those_that_are_named(
    runs_dir: Path, say: Say, started
) -> None:
    config = tiny(loss="huber", ema_decays={"long": 0.99}, schedule={"timesteps": 30})
    write_run(runs_dir, "first", config=config)
    path = str(runs_dir / "second")
    words = ("--like", "first", "--seed", "9", "--background")
    assert "second runs in the background" in say("train", "--run", path, *words)
    assert Run(runs_dir / "second").config == config.replace(seed=9)
    assert "choose one" in say("train", "--run", path, "--preset", "base", "--like", "x", code=2)
    third = ("train", "--run", str(runs_dir / "third"), "--background")
    assert "third is queued; it starts when the device is free." in say(*third, "--data", "digits")
    assert Run(runs_dir / "third").config == preset("small").replace(data="digits")
    assert started == ["second"]


def test_a_deleted_run_is_asked_about_and_can_be_restored(
    runs_dir: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "run")
    answers = iter(["n", "", "y"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    for _ in range(2):
        say("delete", "run", code=1)
    assert [run.name for run in list_runs(runs_dir)] == ["run"]
    assert "python -m diffusion_core restore run" in say("delete", "run")
    assert list_runs(runs_dir) == []
    assert "no deleted run called other. Deleted runs: run." in say("restore", "other", code=1)
    assert "run is restored as" in say("restore", "run")
    say("delete", "run", "--yes")
    assert list_runs(runs_dir) == []


def test_a_deletion_that_nobody_can_confirm_does_not_happen(
    runs_dir: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "run")

    def nobody(question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    say("delete", "run", code=1)
    assert [run.name for run in list_runs(runs_dir)] == ["run"]
