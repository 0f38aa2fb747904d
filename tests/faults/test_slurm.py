"""A real training as a job of Slurm, which a stand-in plays: time limit, requeue, resume."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from diffusion_core.runs import jobs
from diffusion_core.runs.run import Run
from diffusion_core.runs.slurm import job_script
from tests import tiny_runs
from tests.faults.processes import (
    FOREVER,
    PATIENCE_SECONDS,
    end_processes_of,
    tiny,
    wait_for_step,
)
from tests.slurm import Job


@pytest.mark.long
def test_a_job_at_its_time_limit_loses_no_step_and_goes_on_when_it_is_started_again(
    tmp_path: Path, cache_dir: Path
) -> None:
    config = tiny(steps=FOREVER, checkpoint_every=FOREVER, sample_every=0, validate_every=0)
    run = Run(tmp_path / "runs" / "job")
    tiny_runs.create(run.path, config)
    job = Job(tmp_path, job_script(run.path, config, 1, 2, "cpu"))
    try:
        script = job.submit()
        wait_for_step(run, 3)
        script.send_signal(signal.SIGTERM)
        assert script.wait(PATIENCE_SECONDS) == 0
        assert (run.state, job.requeued()) == ("stopped", ["7"])
        reached = run.status.step
        assert run.latest_checkpoint().step == reached

        script = job.submit()
        wait_for_step(run, reached + 1)
        assert run.status.resumed_from == reached
        jobs.request(run, "stop")
        assert script.wait(PATIENCE_SECONDS) == 0
        assert job.requeued() == ["7"]
        assert "Traceback" not in (run.path / "train.log").read_text()
    finally:
        end_processes_of(tmp_path)
