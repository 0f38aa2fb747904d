"""Twenty people vote at once, and processes are killed: no vote that was cast is lost."""

from __future__ import annotations

import os
import signal
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from diffusion_core.files import DiskFull
from diffusion_core.runs import lines
from diffusion_core.runs.votes import FILE, Vote, cast, read_votes
from tests.faults.disks import Disk
from tests.faults.processes import Command, Forks, wait_until

VOTERS = 20
EACH = 25  # votes of each voter who is not killed


def vote(runs: list[Path], person: int, number: int, chosen: str = "A") -> Vote:
    return cast(runs, "wheels", f"seed {number}", ["A", "B"], chosen, f"person {person}")


def vote_often(runs: list[Path], person: int, times: int | None) -> int:
    """Say the id of each vote once it is cast."""
    for number in count() if times is None else range(times):
        os.write(1, f"{vote(runs, person, number).id}\n".encode())
    return 0


def die_while_voting(runs: list[Path], share: float) -> None:
    """kill -9 when a part of the line is in the file."""
    write = os.write

    def part(file: int, data: bytes) -> int:
        write(file, data[: int(share * len(data))])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("It is dead.")

    pytest.MonkeyPatch().setattr(lines.os, "write", part)
    vote(runs, 99, 0)


def told(voter: Command) -> set[str]:
    """The ids of the votes that a voter was told to be cast; the last may be cut off."""
    return {line for line in voter.said().split("\n")[:-1] if line}


def has_told(voter: Command, votes: int) -> bool:
    return len(told(voter)) >= votes


@pytest.mark.long
def test_no_vote_is_lost_when_twenty_vote_at_once(runs_dir: Path, forks: Forks) -> None:
    runs = [runs_dir / name for name in ("one", "two")]
    for path in runs:
        path.mkdir()
    voters = [forks.call(vote_often, runs, person, EACH) for person in range(VOTERS)]
    assert [voter.exit_code() for voter in voters] == [0] * VOTERS
    cast_ids = set[str]().union(*map(told, voters))
    assert len(cast_ids) == VOTERS * EACH
    for folders in (runs[:1], runs[1:], runs):
        found = read_votes(folders)
        assert not found.problem
        assert {vote.id for vote in found.entries} == cast_ids
    assert (runs[0] / FILE).read_bytes().count(b"\n{") == VOTERS * EACH


def test_no_vote_that_was_cast_is_lost_when_processes_are_killed(
    runs_dir: Path, forks: Forks
) -> None:
    runs = [runs_dir / "one"]
    runs[0].mkdir()
    voters = [forks.call(vote_often, runs, person, None) for person in range(VOTERS)]
    for number, voter in enumerate(voters):
        wait_until(partial(has_told, voter, number + 1), f"voter {number} has voted")
        voter.kill()  # in the middle of whatever it does
    assert [voter.exit_code() for voter in voters] == [-signal.SIGKILL] * VOTERS
    after = vote(runs, VOTERS, 0)
    cast_ids = set[str]().union(*map(told, voters)) | {after.id}
    assert len(cast_ids) > VOTERS
    assert cast_ids <= {vote.id for vote in read_votes(runs).entries}


def test_a_vote_that_was_cut_off_takes_no_other_with_it(runs_dir: Path, forks: Forks) -> None:
    runs = [runs_dir / "one"]
    runs[0].mkdir()
    kept = [vote(runs, 0, 0)]
    for number, share in enumerate((0.0, 0.01, 0.5, 0.98), 1):
        killed = forks.call(die_while_voting, runs, share)
        assert killed.exit_code() == -signal.SIGKILL
        kept.append(vote(runs, 0, number))
    found = read_votes(runs)
    assert list(found.entries) == kept
    assert found.problem == f"one: {FILE} is not readable JSON."


def vote_until_the_disk_is_full(disk: Disk) -> None:
    runs = [disk.path / "one"]
    runs[0].mkdir()
    kept = [vote(runs, 0, 0)]
    disk.fill(os.getpid())
    with pytest.raises(DiskFull, match=r"^The disk is full: "):
        for number in range(1, 1000):  # as many as the last block of the file takes
            kept.append(vote(runs, 0, number))
    disk.free(os.getpid())
    kept.append(vote(runs, 0, 1000))
    assert list(read_votes(runs).entries) == kept


def test_a_vote_for_which_there_is_no_room_is_refused(disk: Disk, forks: Forks) -> None:
    said = forks.call(vote_until_the_disk_is_full, disk)
    assert said.exit_code() == 0, said.said()
