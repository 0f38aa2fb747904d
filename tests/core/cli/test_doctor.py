"""`diffusion-lab doctor`, and devices that are not there."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from diffusion_core.cli import doctor
from diffusion_core.cli.main import main
from tests.core.cli.commands import one_line


def test_the_doctor_names_device_versions_and_the_runs_folder(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "seconds_per_image", lambda name, device: 0.0125)
    assert main(["doctor", "--runs-dir", str(tmp_path / "new"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "CPU, 1 thread" in printed
    assert torch.__version__.split("+")[0] in printed
    assert "is writable" in printed
    assert "12.5 ms per image (forward pass)" in printed
    (tmp_path / "file").write_text("in the way")
    words = ["doctor", "--runs-dir", str(tmp_path / "file" / "runs"), "--device", "cpu"]
    assert main(words) == doctor.NO_RUNS
    assert "is not writable" in capsys.readouterr().out


def test_the_doctor_says_the_same_as_a_record_and_its_code_says_what_is_wrong(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "seconds_per_image", lambda name, device: 0.0125)
    runs = tmp_path / "new"
    assert main(["doctor", "--json", "--runs-dir", str(runs), "--device", "cpu"]) == 0
    found = doctor.Findings.model_validate_json(capsys.readouterr().out)
    assert found == doctor.findings(runs, torch.device("cpu")).model_copy(
        update={"free_bytes": found.free_bytes}
    )
    assert found.free_bytes is not None and found.free_bytes > 0
    assert found.packages["torch"] == version("torch")
    assert found.ms_per_image["small"] == 12.5
    assert (found.problems, found.not_writable, found.network_disk) == ([], "", False)

    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert main(["doctor", "--json", "--runs-dir", str(runs), "--device", "cpu"]) == 3
    missing = json.loads(capsys.readouterr().out)
    assert missing["packages"]["no-such-package"] is None
    assert missing["problems"] == [
        "no-such-package is missing: pip install -r requirements.txt",
    ]
    (tmp_path / "file").write_text("in the way")
    assert main(["doctor", "--json", "--runs-dir", str(tmp_path / "file"), "--device", "cpu"]) == 1
    both = json.loads(capsys.readouterr().out)
    assert both["free_bytes"] is None and both["not_writable"] == "File exists"
    assert len(both["problems"]) == 2


def test_the_doctor_times_a_real_forward_pass() -> None:
    seconds = doctor.seconds_per_image("small", torch.device("cpu"), batch=1, times=1)
    assert 1e-4 < seconds < 60


def test_a_device_that_is_not_there_gets_one_line(capsys) -> None:
    assert main(["doctor", "--device", "abacus"]) == 1
    assert "'abacus' is no device; use auto, cpu, cuda" in one_line(capsys.readouterr().err)
