"""Everything that computes for a folder of runs has its part of the cores, and nothing more."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffusion_core import cores
from diffusion_core.cores import BEHIND, computing, go_behind, part_of_cores, take_share
from tests.faults.processes import wait_until
from tests.forks.client import Fork, fork

CORES = 5


@pytest.fixture(autouse=True)
def five_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cores, "LOOK_EVERY", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


def hold_share(runs_dir: str, ready: str) -> None:
    """Compute, in a process of its own, until somebody ends it."""
    with computing(Path(runs_dir), cores=CORES):
        Path(ready).touch()
        time.sleep(600)


@pytest.fixture
def another(runs_dir: Path, tmp_path: Path) -> Iterator[Fork]:
    ready = tmp_path / "ready"
    process = fork(hold_share, str(runs_dir), str(ready), output=tmp_path / "said")
    wait_until(ready.exists, "it computes")
    yield process
    process.kill()
    process.wait()


def test_alone_it_has_all_cores_and_gives_the_threads_back(runs_dir: Path) -> None:
    torch.set_num_threads(3)
    assert take_share() == 3
    with computing(runs_dir, cores=2):
        assert take_share() == 2
    assert torch.get_num_threads() == 3


def test_two_processes_have_equal_parts_until_one_is_killed(runs_dir: Path, another: Fork) -> None:
    with computing(runs_dir, cores=CORES):
        assert take_share() == 2  # whoever was there first has what is over
        os.kill(another.pid, signal.SIGKILL)
        another.wait()
        assert take_share() == CORES


def test_more_than_there_are_cores_have_one_thread_each(runs_dir: Path) -> None:
    """Threads of one process share like processes."""
    found: list[int] = []
    all_there = threading.Barrier(CORES + 2)

    def compute() -> None:
        with computing(runs_dir, cores=CORES):
            all_there.wait()
            found.append(take_share())
            all_there.wait()

    threads = [threading.Thread(target=compute) for _ in range(CORES + 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * (CORES + 2)


def test_a_number_of_threads_can_be_fixed_whatever_others_do(runs_dir: Path, another: Fork) -> None:
    with computing(runs_dir, cores=CORES):
        assert take_share(fixed=4) == 4
        assert take_share(fixed=4) == 4


def test_never_more_threads_than_omp_num_threads_asks_for(runs_dir: Path) -> None:
    torch.set_num_threads(1)
    with computing(runs_dir, cores=CORES):
        assert take_share() == 1
        assert part_of_cores() == CORES  # which is for processes


def test_what_computes_on_a_gpu_leaves_the_cores_to_others(runs_dir: Path) -> None:
    with computing(runs_dir, "cuda", cores=1):
        assert take_share() == CORES
        assert not list(runs_dir.iterdir())


def test_a_folder_that_cannot_be_written_to_is_shared_with_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with computing(tmp_path / "file", cores=2):
        assert take_share() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_a_thread_goes_behind_and_never_ahead() -> None:
    found: list[int] = []
    nice = os.getpriority(os.PRIO_PROCESS, 0)

    def work() -> None:
        me = threading.get_native_id()
        go_behind(me)
        found.append(os.getpriority(os.PRIO_PROCESS, me))
        os.setpriority(os.PRIO_PROCESS, me, max(BEHIND + 5, nice))
        go_behind(me)
        found.append(os.getpriority(os.PRIO_PROCESS, me))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [max(BEHIND, nice), max(BEHIND + 5, nice)]
