"""An import that is killed, or finds the disk full, leaves no run and nothing that stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from diffusion_core.runs import archive_import
from diffusion_core.runs.archive import export_archive
from diffusion_core.runs.archive_import import import_archive
from diffusion_core.runs.checkpoint import load_weights
from diffusion_core.runs.jobs import request
from diffusion_core.runs.run import list_runs, load_run
from diffusion_core.training.trainer import train
from tests.faults.disks import Disk, need_mounted
from tests.faults.processes import Forks
from tests.tiny_runs import DEVICE, same, tiny, write_run


def die_while_importing(file: Path, runs_dir: Path, where: str) -> None:
    """kill -9 where everything is unpacked, and where it is about to become the run."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pytest.MonkeyPatch().setattr(archive_import, where, die)
    import_archive(file, runs_dir)


@pytest.mark.parametrize("where", ["_check", "record"])
def test_a_killed_import_leaves_what_the_next_one_removes(
    tmp_path: Path, runs_dir: Path, forks: Forks, where: str
) -> None:
    file, elsewhere = tmp_path / "cars.zip", tmp_path / "elsewhere"
    export_archive(load_run(write_run(runs_dir, "cars", 40)), file)
    killed = forks.call(die_while_importing, file, elsewhere, where)
    assert killed.exit_code() == -signal.SIGKILL
    assert list_runs(elsewhere) == []
    assert len(list(elsewhere.glob(".cars.*.tmp"))) == 1
    import_archive(file, elsewhere)
    assert [path.name for path in sorted(elsewhere.iterdir())] == [".import.lock", "cars"]


def test_an_import_to_a_full_disk_leaves_nothing(
    tmp_path: Path, runs_dir: Path, disk: Disk, forks: Forks
) -> None:
    need_mounted(disk, "a limit on the size of files would not make the disk full")
    file = tmp_path / "cars.zip"
    export_archive(load_run(write_run(runs_dir, "cars", 40)), file)
    imported = forks.command("import", file, "--runs-dir", disk.path)
    assert imported.exit_code() == 1
    assert "and the disk of" in imported.said()
    assert [path.name for path in disk.path.iterdir()] == [".import.lock"]


@pytest.mark.long
def test_an_imported_run_goes_on_to_the_last_bit(tmp_path: Path, runs_dir: Path) -> None:
    config = tiny(threads=1)
    assert train(runs_dir / "whole", config, device=DEVICE) == "finished"

    def stop(done: int, steps: int, loss: float | None) -> None:
        if done == 4:
            request(load_run(runs_dir / "cut"), "stop")

    assert train(runs_dir / "cut", config, device=DEVICE, on_step=stop) == "stopped"
    export_archive(load_run(runs_dir / "cut"), tmp_path / "cut.zip", "none", with_state=True)
    run = import_archive(tmp_path / "cut.zip", tmp_path / "elsewhere")
    assert train(run.path, resume=True, device=DEVICE) == "finished"
    whole, resumed = (
        load_weights(load_run(path).checkpoint(8)) for path in (runs_dir / "whole", run.path)
    )
    assert all(same(whole[name], resumed[name]) for name in whole)
    assert run.curve("loss")["step"].tolist() == list(range(1, 9))
