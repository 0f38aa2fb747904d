"""The fork server does what Python does: output, exit codes, signals, and death at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.forks.client import PYTHON, ROOT, SHARED, fork, launcher

PATIENCE_SECONDS = 60


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def launch(*words: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [str(word) for word in (launcher(), *words)]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def say_and_wait(file: Path) -> None:
    file.write_text(str(os.getpid()))
    signal.pause()


def exit_with(code: int) -> int:
    print(sys.executable, threading.active_count())
    return code


def test_a_function_is_run_in_a_fork_and_its_value_is_the_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert fork(exit_with, 7, output=log).wait(PATIENCE_SECONDS) == 7
    assert log.read_text() == f"{launcher()} 1\n"


def test_a_fork_is_waited_for_and_killed_like_any_process(tmp_path: Path) -> None:
    made = fork(say_and_wait, tmp_path / "pid", output=tmp_path / "log")
    wait_until((tmp_path / "pid").exists)
    assert made.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        made.wait(0.01)
    assert psutil.Process(made.pid).cmdline()[:3] == [PYTHON, "-m", "say_and_wait"]
    made.kill()
    assert made.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert not psutil.pid_exists(made.pid)


def test_a_module_says_and_ends_as_with_python() -> None:
    quick = launch("-m", "diffusion_core", "fly")
    true = subprocess.run(
        [PYTHON, "-m", "diffusion_core", "fly"], capture_output=True, text=True, check=False
    )
    assert true.returncode == 2
    assert quick.communicate() == (true.stdout, true.stderr)
    assert quick.returncode == true.returncode


def test_anything_else_is_left_to_python() -> None:
    code = "import sys; print(sys.argv[1:], 'torch' in sys.modules); sys.exit(3)"
    made = launch("-c", code, "-m", "streamlit")
    assert made.communicate() == ("['-m', 'streamlit'] False\n", "")
    assert made.returncode == 3


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        signal.SIGKILL,
    ],
)
def test_the_folder_is_removed_however_the_tests_end(number: int) -> None:
    code = "from tests.forks import client; print(client._start(), flush=True); input()"
    alone = {name: value for name, value in os.environ.items() if name != SHARED}
    tests = subprocess.Popen(
        [PYTHON, "-c", code], cwd=ROOT, env=alone, stdin=-1, stdout=-1, start_new_session=True
    )
    assert tests.stdout is not None
    folder = Path(tests.stdout.readline().decode().strip())
    assert folder.is_dir()
    os.killpg(tests.pid, number)  # as a terminal does
    tests.communicate()
    wait_until(lambda: not folder.exists())


Launched = tuple["subprocess.Popen[str]", psutil.Process]


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Launched]:
    """A trainer by the launcher: the launcher, and the fork, which has its command line."""
    run = str(tmp_path / "run")
    words = ["--steps", "1000000", "--data", "digits:40", "--device", "cpu"]
    made = launch("-m", "diffusion_core", "train", "--run", run, *words)

    def found() -> list[psutil.Process]:
        everybody = psutil.process_iter(["cmdline"])
        return [p for p in everybody if p.pid != made.pid and run in (p.info["cmdline"] or [])]

    wait_until(found)
    [trainer] = found()
    assert trainer.cmdline()[:6] == [str(launcher()), "-m", "diffusion_core", "train", "--run", run]
    wait_until((tmp_path / "run" / "config.json").exists)
    yield made, trainer
    made.kill()
    made.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on(training: Launched, number: int) -> None:
    made, trainer = training
    made.send_signal(number)
    assert made.wait(PATIENCE_SECONDS) == 130  # as a trainer that was stopped
    wait_until(lambda: not trainer.is_running())


def test_whoever_kills_the_launcher_kills_the_fork(training: Launched) -> None:
    made, trainer = training
    made.kill()
    wait_until(lambda: not trainer.is_running())


def test_a_killed_fork_is_a_killed_process(
    training: Launched,
) -> None:
    made, trainer = training
    trainer.kill()
    assert made.wait(PATIENCE_SECONDS) == -signal.SIGKILL
