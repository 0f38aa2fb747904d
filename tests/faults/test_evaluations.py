"""Quality measured beside the training by a process of its own: kill -9 and the end of the run."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from diffusion_core.cli.options import STOPPED
from diffusion_core.cores import LAST
from diffusion_core.evaluation.results import read_results
from diffusion_core.runs import jobs
from diffusion_core.runs.run import Run
from tests.faults.processes import FOREVER, Forks, tiny, wait_until

FRECHET = "evaluation.frechet_distance"
CONFIG = tiny(evaluate_every=4, evaluate_images=64, evaluate_steps=10, evaluate_share=1)


def measuring(run: Run) -> psutil.Process | None:
    """The process that measures a checkpoint of the run."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(run.path) in words and any("beside" in word for word in words):
            return process
    return None


@pytest.mark.long
def test_a_trainer_that_is_killed_takes_its_measurement_along_and_leaves_no_half_of_it(
    runs_dir: Path, forks: Forks, true_python: None
) -> None:
    run = Run(runs_dir / "run")
    trainer = forks.train(run, CONFIG.replace(steps=FOREVER))
    process = wait_until(lambda: measuring(run), "a measurement is under way")
    wait_until(lambda: process.nice() == LAST, "it goes behind everything else")
    trainer.kill()
    process.wait(30)  # it ends by itself
    results, broken = read_results(run.path)
    assert broken == []

    resumed = forks.train(run)
    wait_until(lambda: len(read_results(run.path)[0]) > len(results), "another step is measured")
    jobs.request(run, "stop")
    assert resumed.exit_code() == STOPPED and run.state == "stopped"
    assert measuring(run) is None
    results, broken = read_results(run.path)
    assert broken == [] and not list(run.path.rglob("*.tmp"))
    assert run.curve(FRECHET)["step"].tolist() == [result.spec.step for result in results]
