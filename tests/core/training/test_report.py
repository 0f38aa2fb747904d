"""The report of a run that is refreshed while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.cli.main import main
from diffusion_core.runs.run import load_run
from diffusion_core.training.checkpoint_writer import refresh_report
from diffusion_core.training.trainer import train
from tests.tiny_runs import DEVICE, tiny, write_run

QUICK = {"network_args": {"widths": [8], "blocks": 1, "attention_levels": [0]}, "sample_every": 0}


def test_report_follows_the_checkpoints_of_runs_that_want_one(tmp_path: Path) -> None:
    states = []

    def note(run: Path) -> None:
        states.append((load_run(run).status.checkpoint_step, str(load_run(run).status.state)))

    train(tmp_path / "one", tiny(**QUICK, report=True), device=DEVICE, write_report=note)
    assert states[0] in ((4, "running"), (8, "running"))  # the second may be sooner
    assert states[-1] == (8, "finished") and len(states) == 3
    refresh_report(write_run(tmp_path, "two"), note)
    assert len(states) == 3


def test_report_that_fails_never_fails_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: Path) -> None:
        raise RuntimeError("what nobody has foreseen")

    run = tmp_path / "one"
    assert train(run, tiny(**QUICK, report=True), device=DEVICE, write_report=fail) == "finished"
    assert capsys.readouterr().err.count("The report cannot be written.") == 3
    assert "what nobody has foreseen" in (run / "train.log").read_text()
    assert load_run(run).latest_checkpoint().step == 8


def test_command_line_writes_it_into_the_run_folder(tmp_path: Path) -> None:
    run, config = tmp_path / "one", tiny(**QUICK, report=True)
    words = [f"{name}={value}" for name, value in (("steps", 2), ("report", "true"))]
    (tmp_path / "like").mkdir()
    (tmp_path / "like" / "config.json").write_text(config.to_json())
    arguments = ["--run", str(run), "--like", str(tmp_path / "like"), "--device", str(DEVICE)]
    assert main(["train", *arguments, "--quiet", "--set", *words]) == 0
    report = (run / "report.html").read_text()
    assert "Run report: one" in report and "finished" in report
