"""Files that are cut short, a folder that cannot be written, a path that is no folder."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from diffusion_core.runs import checkpoint, jobs
from diffusion_core.runs.checkpoint import state_path, weights_path
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.run import Run
from tests.faults.disks import Disk, need_mounted
from tests.faults.processes import Forks, tiny
from tests.pages.app import open_page


@pytest.fixture(scope="module")
def made(module_forks: Forks) -> Path:
    """A run that has the checkpoints 2, 4 and 6 and was killed by -9 before its seventh step."""
    run = Run(module_forks.folder / "run")
    trainer = module_forks.train(run, tiny(steps=8), die="after step-00000006.safetensors")
    assert trainer.exit_code() == -signal.SIGKILL
    return run.path


@pytest.fixture
def run(made: Path, runs_dir: Path) -> Run:
    shutil.copytree(made, runs_dir / "run")
    return Run(runs_dir / "run")


def cut(path: Path, share: float = 0.6) -> None:
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.6, 0.999])
def test_newest_weights_that_are_cut_short_are_skipped_and_named(run: Run, share: float) -> None:
    cut(weights_path(run.path, 6), share)
    good, broken = run.checkpoints()
    assert [found.step for found in good] == [2, 4]
    [sentence] = broken
    assert sentence.startswith("step-00000006.safetensors is damaged or cut short")
    assert run.latest_checkpoint().step == 4


def test_the_command_line_draws_from_the_one_before_and_names_the_broken_one(
    run: Run, forks: Forks, tmp_path: Path
) -> None:
    cut(weights_path(run.path, 6))
    out = tmp_path / "grid.png"
    words = ["--run", run.path, "--n", 4, "--steps", 2, "--device", "cpu", "--out", out]
    drawn = forks.command("sample", *words)
    assert drawn.exit_code() == 0
    assert "Skipped: step-00000006.safetensors is damaged or cut short" in drawn.said()
    assert "4 images of run, step 4:" in drawn.said()
    Image.open(out).load()
    named = forks.command("sample", "--step", 6, *words)
    assert named.exit_code() == 1
    assert "step-00000006.safetensors is damaged or cut short" in named.said()


@pytest.mark.parametrize("broken", [weights_path, state_path])
def test_a_resume_goes_on_from_the_newest_step_of_which_all_is_whole(
    broken: Callable[[Path, int], Path], run: Run, forks: Forks
) -> None:
    cut(broken(run.path, 6))
    resumed = forks.train(run)
    assert resumed.exit_code() == 0
    assert run.status.resumed_from == 4
    assert "Step 6 cannot be resumed: step-00000006." in resumed.said()
    assert run.curve("loss")["step"].tolist() == list(range(1, 9))
    # The steps that were made again wrote the broken files again.
    assert [found.step for found in run.checkpoints()[0]] == [2, 4, 6, 8]
    assert run.checkpoints()[1] == []
    assert checkpoint.load_state(run.path, 8)["step"] == 8


def test_a_run_without_one_whole_checkpoint_says_so_and_is_not_begun_again(
    run: Run, forks: Forks
) -> None:
    shutil.rmtree(run.path / "state")
    before = run.curve("loss")["step"].tolist()
    resumed = forks.train(run)
    assert resumed.exit_code() == 1
    assert "None of the checkpoints can be resumed. Step 6" in resumed.said()
    assert resumed.said().count("Step 6 cannot be resumed") == 1
    assert run.state == "failed"
    assert run.status.error.startswith("None of the checkpoints can be resumed.")
    assert run.curve("loss")["step"].tolist() == before
    assert run.latest_checkpoint().step == 6


def test_a_killed_run_on_a_read_only_disk_is_shown_and_drawn_from_but_not_resumed(
    made: Path, disk: Disk, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        need_mounted(disk, "no folder is read-only to root here.")
    run = Run(shutil.copytree(made, disk.path / "run"))
    # As a copy has it that leaves out what only a process at work needs.
    for left_out in run.path.glob("metrics.sqlite-shm"):
        left_out.unlink()
    disk.make_read_only()

    assert run.state == "lost"
    assert run.latest_checkpoint().step == 6
    assert run.curve("loss")["step"].size > 0
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(disk.path))
    home = open_page("home.py")
    assert "`run` is lost" in "\n".join(element.value for element in home.markdown)

    with pytest.raises(JobError, match=r"(started|written to): (Read-only|Permission denied)"):
        jobs.resume(run)
    terminal = forks.train(run)
    assert terminal.exit_code() == 1
    assert terminal.said() == f"{disk.path} cannot be written to; training writes there.\n"


def test_a_new_run_on_a_read_only_disk_gets_one_sentence(disk: Disk, forks: Forks) -> None:
    disk.make_read_only()
    # Where nothing could be mounted nothing is read-only to root but what the kernel shows.
    bound = disk.mounted or os.geteuid() != 0
    runs = disk.path if bound else Path("/sys/kernel")
    assert_one_sentence(forks, runs, f"{runs / 'run'} cannot be made: ")
    assert not (runs / "run").exists()


def test_runs_in_a_file_instead_of_a_folder_get_one_sentence(tmp_path: Path, forks: Forks) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert_one_sentence(forks, file, "")
    assert file.read_text() == "not a folder"
    listed = forks.command("runs", "--runs-dir", file)
    assert listed.exit_code() == 1
    assert listed.said() == f"{file} is a file; the runs need a folder.\n"


def assert_one_sentence(forks: Forks, runs: Path, beginning: str) -> None:
    """From the terminal with exit code 1, and from the app."""
    words = ["train", "--run", runs / "run", "--quiet", "--preset", "small"]
    terminal = forks.command(*words)
    assert terminal.exit_code() == 1
    [line] = terminal.said().splitlines()
    assert line.startswith(beginning)
    assert str(runs) in line
    assert line.endswith(".")
    with pytest.raises(JobError) as refused:
        jobs.start(runs, "run", tiny(), "cpu")
    assert str(refused.value).startswith(beginning)
    assert str(runs) in str(refused.value)
