"""Real processes that are killed, filled up and interrupted: how they are made and waited for.

`Forks` runs the command line in processes that are forked from one that has PyTorch imported
already, so that a test does not wait for that. What the app itself starts (`jobs.start`) is a
process from scratch, here as everywhere.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import psutil
import pytest

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import state_now
from tests import tiny_runs

T = TypeVar("T")

# How long to wait on a machine that is busy with other things before calling it a failure.
PATIENCE_SECONDS = 90
FOREVER = 1_000_000  # steps of a run that goes on until it is ended
SERVER = multiprocessing.get_context("forkserver")
# torch._dynamo: the optimizer imports it, which takes longer than a tiny run.
SERVER.set_forkserver_preload(["diffusion_core.training.trainer", "torch._dynamo", __name__])


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

    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def said(self) -> str:
        """What it has written to standard output and standard error."""
        return self.log.read_text()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.join(PATIENCE_SECONDS)

    def exit_code(self) -> int:
        """Wait for its end; negative where a signal ended it."""
        self.process.join(PATIENCE_SECONDS)
        if self.process.exitcode is None:
            pytest.fail(f"The process goes on and on:\n{self.said()}")
        return self.process.exitcode


class Forks:
    """The processes of a test; `end` leaves none of them."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        """`folder`: for what they say. `settings`: variables beside those of this process."""
        self.folder = folder
        self.settings = settings or {}
        self.started: list[BaseProcess] = []

    def call(self, function: Callable[..., object], *arguments: object) -> Command:
        """A function of a module in a process of its own; what it returns is the exit code."""
        log = self.folder / f"said-{len(self.started)}.log"
        log.touch()
        environment = {k: v for k, v in os.environ.items() if k.startswith("DIFFUSION_LAB_")}
        environment |= self.settings
        process = SERVER.Process(target=_in_fork, args=(log, environment, function, arguments))
        # A page that was tested before left its script there, and the fork would run it.
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
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
        return self.call(die_at, die, words) if die else self.command(*words)

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.join()


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


def _in_fork(
    log: Path, environment: dict[str, str], function: Callable[..., int], arguments: tuple
) -> None:
    os.setsid()
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.exit(function(*arguments))


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

    os.replace, os.fsync = dying_replace, dying_fsync
    return command_line(words)
