"""Home and the shell around it, by Streamlit's AppTest: what they say about the runs on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.ui.navigation import FOLDER, HOME, SECTIONS
from diffusion_core.runs.config import RunConfig
from tests.pages.app import open_page, words


def open_home() -> AppTest:
    return open_page("home.py")


def write_run(runs_dir: Path, name: str, created: float, **status: object) -> Path:
    path = runs_dir / name
    (path / "samples").mkdir(parents=True)
    record = {"state": "finished", "step": 50, "total": 200, "created": created} | status
    (path / "status.json").write_text(json.dumps(record))
    (path / "config.json").write_text(RunConfig(seed=7).to_json())
    return path


def test_home_without_runs_says_how_the_first_comes_about() -> None:
    app = open_home()
    assert not app.exception
    assert "There are no runs yet. Start one on the Training page" in words(app)


def test_a_viewer_is_told_that_the_operator_starts_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_home()
    assert "Role: viewer." in app.sidebar.caption[-1].value
    assert "The operator of this app can start one" in words(app)


def test_an_operators_sidebar_names_the_device_and_no_role() -> None:
    shown = [caption.value for caption in open_home().sidebar.caption]
    assert shown == ["Device: CPU, 1 thread"]


def test_home_shows_the_newest_run_with_its_settings_and_newest_samples(runs_dir: Path) -> None:
    write_run(runs_dir, "older", created=time.time() - 100)
    newer = write_run(runs_dir, "newer", created=time.time())
    for step in (25, 50):
        Image.new("RGB", (32, 8)).save(newer / "samples" / f"step-{step:08d}.png")
    app = open_home()
    assert not app.exception
    assert "newer has finished (50 steps)." in words(app)
    assert "seed 7" in words(app)
    assert "older" not in words(app)
    assert "Newest samples of newer, at step 50" in words(app)
    assert len(app.get("image")) == 4  # the strip's images, each by itself


def test_a_run_whose_process_is_gone_is_called_lost(runs_dir: Path) -> None:
    write_run(runs_dir, "gone", created=1.0, state="running", heartbeat=0.0)
    assert "gone is lost" in words(open_home())


@pytest.mark.parametrize(
    ("state", "sentence"),
    [("finished", "This run has no samples."), ("stopped", "The first samples appear here during")],
)
def test_a_run_without_samples_says_whether_some_will_come(
    state: str, sentence: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "bare", created=1.0, state=state)
    assert sentence in words(open_home())


def test_a_broken_sample_image_gets_a_sentence(runs_dir: Path) -> None:
    run = write_run(runs_dir, "cut", created=1.0)
    (run / "samples" / "step-00000025.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    app = open_home()
    assert not app.exception
    assert "The samples in step-00000025.png cannot be read" in words(app)


def test_settings_of_a_run_that_cannot_be_used_get_a_sentence(runs_dir: Path) -> None:
    run = write_run(runs_dir, "odd", created=1.0)
    (run / "config.json").write_text(json.dumps({"loss": "l3"}))
    app = open_home()
    assert not app.exception
    assert "odd cannot be read in full. config.json: loss is 'l3'" in words(app)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ROLE", "admin", "DIFFUSION_LAB_ROLE is 'admin'; it must be operator or viewer."),
        ("MAX_STEPS", "0", "DIFFUSION_LAB_MAX_STEPS is '0'; it must be from 1 to"),
        ("MAX_UPLOAD_MB", "ten", "DIFFUSION_LAB_MAX_UPLOAD_MB is 'ten'; it must be a whole number"),
        ("DEVICE", "abacus", "'abacus' is no device; use auto, cpu, cuda, cuda:N or mps."),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_instead_of_the_page(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DIFFUSION_LAB_{name}", value)
    app = open_home()
    assert not app.exception
    assert not app.title
    [error] = app.error
    assert sentence in error.value


def test_every_page_file_is_in_the_menu_and_every_entry_has_its_file() -> None:
    entries = [HOME, *(entry for section in SECTIONS.values() for entry in section)]
    assert sorted(entry.file for entry in entries) == sorted(p.name for p in FOLDER.glob("*.py"))
