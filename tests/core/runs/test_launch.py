"""How many processes train a run, the words that start them, the devices that they take."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import psutil
import pytest
import torch

from diffusion_core.cli.main import main, make_parser
from diffusion_core.runs import jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.launch import command_here, launch_commands, processes_for
from diffusion_core.runs.run import Run
from diffusion_core.runs.status import StatusRecord, places_of, same_place
from diffusion_core.training.distributed import network_to
from tests.tiny_runs import tiny, write_run

CONFIG = tiny(batch_size=12)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this machine had eight GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


def test_a_run_on_cuda_gets_as_many_processes_as_can_share_its_batch(cards) -> None:
    assert processes_for(CONFIG, "cuda") == 6
    assert processes_for(CONFIG.replace(batch_size=32), "cuda") == 8
    assert processes_for(CONFIG.replace(batch_size=7), "cuda") == 7
    for device in ("cuda:1", "cpu", "mps"):
        assert processes_for(CONFIG, device) == 1


def test_so_many_processes_as_are_wanted_where_they_can_be_had(cards) -> None:
    assert processes_for(CONFIG, "cuda", 4) == 4
    assert processes_for(CONFIG, "cpu", 12) == 12
    assert processes_for(CONFIG, "cuda:1", 1) == 1
    with pytest.raises(ConfigError, match="12 processes need 12 GPUs; this machine has 8"):
        processes_for(CONFIG, "cuda", 12)
    with pytest.raises(ConfigError, match="train on cpu or cuda, not on cuda:1"):
        processes_for(CONFIG, "cuda:1", 2)
    with pytest.raises(ConfigError, match="A batch of 12 cannot be shared evenly by 5 processes"):
        processes_for(CONFIG, "cpu", 5)
    for few in (0, -1):
        with pytest.raises(ConfigError, match=f"{few} processes cannot train; it takes 1 or more"):
            processes_for(CONFIG, "cpu", few)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_words_that_start_a_run_are_those_of_the_command_line(
    tmp_path: Path, processes: int
) -> None:
    words = command_here(tmp_path, "cpu", processes, resume=False)
    given = make_parser().parse_args(words[words.index("diffusion_core") + 1 :])
    assert (given.run, given.device, given.quiet) == (tmp_path, "cpu", True)
    assert ("torch.distributed.run" in words) == (processes > 1)


def test_each_machine_gets_a_command_that_starts_its_share(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    first, second = launch_commands(run, CONFIG, 2, 3, resume=False)
    assert second == first.replace("--node_rank 0", "--node_rank 1")
    words = shlex.split(first)
    assert words[:7] == ["torchrun", "--nnodes", "2", "--node_rank", "0", "--nproc_per_node", "3"]
    given = make_parser().parse_args(words[words.index("diffusion_core") + 1 :])
    assert given.run == run
    assert not given.set and not given.resume
    assert "--resume" in launch_commands(run, CONFIG, 2, 3, resume=True)[0]
    with pytest.raises(ConfigError, match="cannot be shared evenly by 24 processes"):
        launch_commands(run, CONFIG, 3, 8, resume=False)
    with pytest.raises(ConfigError, match="0 machines cannot train"):
        launch_commands(run, CONFIG, 0, 1, resume=False)


def test_only_a_run_that_can_go_on_has_commands(runs_dir: Path) -> None:
    stopped = Run(write_run(runs_dir, "stopped", config=CONFIG, state="stopped"))
    assert "--resume" in jobs.commands_for(stopped, 1, 2)[0]
    finished = Run(write_run(runs_dir, "finished", config=CONFIG))
    with pytest.raises(JobError, match="finished is finished; there is nothing to continue"):
        jobs.commands_for(finished, 1, 2)
    waits = {"state": "queued", "pid": None, "host": socket.gethostname(), "device": "cpu"}
    waiting = Run(write_run(runs_dir, "waiting", config=CONFIG, **waits))
    with pytest.raises(JobError, match="waiting is queued; pause it first"):
        jobs.commands_for(waiting, 1, 2)


def test_the_commands_are_printed_alone_and_what_they_need_beside_them(
    runs_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    write_run(runs_dir, "stopped", config=CONFIG, state="stopped")
    assert main(["command", "stopped", "--machines", "2", "--processes", "3"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == jobs.commands_for(Run(runs_dir / "stopped"), 2, 3)
    assert "with the address of the first machine in place of FIRST_MACHINE" in said.err
    assert main(["command", "stopped", "--machines", "2", "--processes", "5"]) == 2


def test_processes_are_for_a_start_in_the_background(
    runs_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "--run", str(runs_dir / "run"), "--processes", "2"]) == 2
    assert "--processes needs --background" in capsys.readouterr().err


def test_a_run_of_several_processes_takes_all_of_its_cards() -> None:
    here = StatusRecord(host="a")
    several = here.replace(device="cuda", processes=3)
    assert places_of(several) == {"cuda:0", "cuda:1", "cuda:2"}
    assert same_place(several, here.replace(device="cuda:2"))
    assert same_place(here.replace(device="cuda"), several)
    assert not same_place(several, here.replace(device="cuda:3"))
    assert not same_place(several, here.replace(device="cpu", processes=2))
    assert not same_place(several, several.replace(host="b"))


def test_a_card_is_the_same_whatever_the_processes_call_it() -> None:
    """CUDA_VISIBLE_DEVICES gives a process numbers of its own."""
    first = StatusRecord(host="a", device="cuda:0", cards=("GPU-1",))
    second = first.replace(cards=("GPU-2",))
    assert places_of(first) == {"GPU-1"}
    assert not same_place(first, second)
    assert same_place(first, second.replace(cards=("GPU-2", "GPU-1"), device="cuda", processes=2))
    assert same_place(first, second.replace(device="cuda:3", cards=("GPU-1",)))
    # One that waits has no process yet that could tell.
    assert same_place(first, StatusRecord(host="a", device="cuda"))
    assert not same_place(first, StatusRecord(host="a", device="cuda:1"))


def test_a_run_that_needs_several_cards_is_not_overtaken_by_one_that_needs_one(
    runs_dir: Path, cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusion_core.runs import queue as run_queue

    spawned = []
    monkeypatch.setattr(run_queue, "_spawn", lambda run: spawned.append(run.name))
    me = psutil.Process()
    at_work = {
        "state": "running",
        "device": "cuda:1",
        "host": socket.gethostname(),
        "pid": me.pid,
        "process_started": me.create_time(),
    }
    write_run(runs_dir, "busy", config=CONFIG, **at_work)
    for k, (name, device, processes) in enumerate(
        [("several", "cuda", 4), ("one-of-them", "cuda:3", 1), ("another", "cuda:5", 1)]
    ):
        waits = {
            "state": "queued",
            "pid": None,
            "host": socket.gethostname(),
            "queued_at": 10.0 + k,
        }
        write_run(runs_dir, name, config=CONFIG, **waits, device=device, processes=processes)
    jobs.start_next(runs_dir)
    assert spawned == ["another"]


def test_the_network_on_the_way_to_a_machine_is_found_by_its_address() -> None:
    loopback = network_to("127.0.0.1")
    assert loopback in psutil.net_if_addrs()
    assert network_to("localhost") == loopback
    assert network_to("no.such.machine.invalid") is None
