"""The job script for Slurm, run by bash with stand-ins for `srun`, `scontrol` and the trainer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_core.cli.main import main
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.slurm import job_script
from tests.slurm import Job
from tests.tiny_runs import tiny, write_run

CONFIG = tiny(batch_size=12)
# The trainer goes on until `stop` is called, or for no time at all, and says what it was given.
TRAINER = """\
#!/bin/bash
cd "$(dirname "$0")"
case "$*" in
*"diffusion_core stop"*) [ -e refuses ] && exit 1; touch stop ;;
*) echo "$@" >>trained
   trap 'touch terminated; exit 1' TERM
   until [ -e stop ] || [ -e at-once ]; do sleep 0.02; done
   exit "$(cat code 2>/dev/null || echo 0)" ;;
esac
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (runs := tmp_path / "the runs").mkdir()
    return write_run(runs, "it's", config=CONFIG, state="stopped")


@pytest.fixture
def job(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The script of the run, whose Python is the stand-in for the trainer."""
    (python := tmp_path / "python").write_text(TRAINER)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return Job(tmp_path, job_script(run, CONFIG, 2, 3, "cuda"))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} is not there"
        time.sleep(0.02)


def test_before_the_time_limit_the_run_is_stopped_and_the_job_is_queued_again(
    job: Job, tmp_path: Path
) -> None:
    script = job.submit()
    wait_for(tmp_path / "trained")
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 0
    assert (tmp_path / "stop").exists() and not (tmp_path / "terminated").exists()
    assert job.requeued() == ["7"]


def test_a_run_that_takes_no_request_yet_is_ended_with_the_steps_of_the_job(
    job: Job, tmp_path: Path
) -> None:
    (tmp_path / "refuses").touch()
    script = job.submit()
    wait_for(tmp_path / "trained")
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 1
    assert (tmp_path / "terminated").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_a_run_that_ends_by_itself_is_not_queued_again(job: Job, tmp_path: Path, code: int) -> None:
    (tmp_path / "at-once").touch()
    (tmp_path / "code").write_text(str(code))
    assert job.submit().wait(60) == code
    assert job.requeued() == []


def test_each_machine_gets_its_number_and_the_address_of_the_first(
    job: Job, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "at-once").touch()
    assert job.submit().wait(60) == 0
    assert (tmp_path / "trained").read_text() == (
        "-m torch.distributed.run --nnodes 2 --node_rank 0 --master_addr node-1 "
        "--master_port 29500 --nproc_per_node 3 --log_dir /dev/null -m diffusion_core train "
        f"--folder {run} --device cuda --resume\n"
    )


def test_gpus_are_asked_for_unless_it_is_a_cpu_run(run: Path) -> None:
    assert "#SBATCH --gpus-per-node=3\n" in job_script(run, CONFIG, 2, 3, "cuda")
    assert "--gpus" not in job_script(run, CONFIG, 1, 1, "cpu")
    with pytest.raises(ConfigError, match="cannot be shared evenly by 24 processes"):
        job_script(run, CONFIG, 3, 8, "cuda")


def test_the_command_line_prints_a_script_that_bash_can_read(
    runs_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    write_run(runs_dir, "stopped", config=CONFIG, state="stopped")
    assert main(["command", "stopped", "--slurm", "--machines", "2", "--processes", "3"]) == 0
    script = capsys.readouterr().out
    assert script == job_script(runs_dir / "stopped", CONFIG, 2, 3, "cuda")
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert main(["command", "stopped", "--device", "cpu"]) == 2
    assert "--device needs --slurm" in capsys.readouterr().err
