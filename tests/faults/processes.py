"""Real processes that are killed, filled up and interrupted: how they are made and waited for.

`Forks` runs the command line in processes that are forked from one that has PyTorch imported
already, so that a test does not wait for that. What the app itself starts (`jobs.start`) is such a
process too, except in tests that ask for the fixture `true_python`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import state_now
from tests import tiny_runs
from tests.forks.client import SLOW_STEPS, Fork, fork

T = TypeVar("T")

# How long to wait on a machine that is busy with other things before calling it a failure.
PATIENCE_SECONDS = 90
FOREVER = 1_000_000  # steps of a run that goes on until it is ended


def wait_until(true: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Ask again and again until the answer is true; returns it. Fails the test after a while."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} seconds.")
        time.sleep(0.05)
    return answer


def wait_for_state(run: Run, *states: str) -> None:
    """Wait until the run is in one of the states; a state that it cannot leave ends the waiting."""

    def there() -> bool:
        status = run.status  # empty until the process has written its first
        state = state_now(status) if status.state else None
        if state in ("failed", "lost", "stopped", "finished") and state not in states:
            pytest.fail(f"{run.name} is {state}, not {' or '.join(states)}: {status}")
        return state in states

    wait_until(there, f"{run.name} is {' or '.join(states)}")


def wait_for_step(run: Run, step: int) -> None:
    wait_until(lambda: run.status.step >= step, f"{run.name} is at step {step}")


def wait_for_progress(run: Run) -> None:
    """Wait until the run has made steps that it had not made when this was called."""
    wait_for_step(run, run.status.step + 1)


def tiny(**changes: Any) -> RunConfig:
    """A tiny run that writes something at every second step."""
    often = {"checkpoint_every": 2, "sample_every": 2, "validate_every": 2}
    return tiny_runs.tiny(**(often | changes))


@dataclass(frozen=True)
class Command:
    """A command of `python -m diffusion_core` at work in a process of its own."""

    process: Fork
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        """What it has written to standard output and standard error."""
        return self.log.read_text()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def exit_code(self) -> int:
        """Wait for its end; negative where a signal ended it."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"The process goes on and on:\n{self.said()}")


class Forks:
    """The processes of a test; `end` leaves none of them."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        """`folder`: for what they say. `settings`: variables beside those of this process."""
        self.folder = folder
        self.settings = settings or {}
        self.started: list[Fork] = []

    def call(
        self, function: Callable[..., object], *arguments: object, slow: bool = False
    ) -> Command:
        """A function of a module in a process of its own; what it returns is the exit code.

        `slow`: a trainer leaves time between its steps.
        """
        log = self.folder / f"said-{len(self.started)}.log"
        environment = os.environ | self.settings | (SLOW_STEPS if slow else {})
        process = fork(function, *arguments, output=log, environment=environment)
        self.started.append(process)
        return Command(process, log)

    def command(self, *words: object) -> Command:
        """`python -m diffusion_core WORDS`."""
        return self.call(command_line, [str(word) for word in words])

    def train(self, run: Run, config: RunConfig | None = None, die: str = "") -> Command:
        """Train a new run, or resume it where no settings are given. `die`: see `die_at`."""
        words = ["train", "--run", str(run.path), "--quiet"]
        if config is None:
            words.append("--resume")
        else:
            tiny_runs.create(run.path, config)
        if die:
            return self.call(die_at, die, words)
        endless = config is not None and config.steps == FOREVER
        return self.call(command_line, words, slow=endless)

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()


def end_processes_of(folder: Path) -> None:
    """Kill what was started on something in `folder`, which is the test's own."""
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()):
                process.kill()
                wait_until_dead(process)
        except psutil.Error:  # gone, or another user's
            continue


def wait_until_dead(process: psutil.Process) -> None:
    """One whose parent has not asked for it yet stays as a zombie. Raises psutil.Error for one that
    is not there at all."""
    wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE, f"{process.pid} is dead")


def command_line(words: list[str]) -> int:
    from diffusion_core.cli.main import main

    return main(words)


def die_at(moment: str, words: list[str]) -> int:
    """The command line, killed by -9 at a moment of writing a file.

    "before NAME": it is written under its temporary name; "half NAME": half of it is;
    "after NAME": it has just got its name.
    """
    when, _, name = moment.partition(" ")
    replace, fsync = os.replace, os.fsync

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_replace(source: Path, target: Path) -> None:
        if when == "before" and Path(target).name == name:
            die()
        replace(source, target)
        if when == "after" and Path(target).name == name:
            die()

    def dying_fsync(file: int) -> None:
        if when == "half" and Path(os.readlink(f"/proc/self/fd/{file}")).name.startswith(
            f".{name}."
        ):
            os.ftruncate(file, os.fstat(file).st_size // 2)
            die()
        fsync(file)

    os.replace, os.fsync = dying_replace, dying_fsync  # type: ignore[assignment]
    return command_line(words)
