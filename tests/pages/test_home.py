"""Home and the shell around it, by Streamlit's AppTest: what they say about the runs on disk."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.ui.navigation import FOLDER, HOME, SECTIONS
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.results import Result, write_result
from diffusion_core.runs.config import RunConfig
from diffusion_core.sampling.spec import SamplingSpec
from tests.forks.client import ROOT
from tests.pages.app import open_page, press, words


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
    assert "Start a run on the Training page." in words(app)
    press(app, "Start a training run")
    assert app.title[0].value == "Training"


def test_a_viewer_is_told_that_the_operator_starts_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_home()
    assert "Role: viewer." in app.sidebar.caption[-1].value
    assert "The operator of this app can start a run" in words(app)
    assert not app.button


def test_an_operators_sidebar_names_the_device_and_no_role() -> None:
    shown = [caption.value for caption in open_home().sidebar.caption]
    assert shown == ["Device: CPU, 1 thread"]


def test_home_leads_to_every_page() -> None:
    shown = words(open_home())
    assert all(page.summary in shown for pages in SECTIONS.values() for page in pages)


def measure(run: Path, metric: str, value: float, floor: float, ceiling: float) -> None:
    """A result of the run, by one metric."""
    found = [{metric: Estimate(each, each, each, 8, 8)} for each in (value, floor, ceiling)]
    spec = SamplingSpec(run=run.name, step=50, n=8)
    fields: dict[str, Any] = {"device": "", "data": "", "fingerprint": "", "notes": ()}
    fields |= {"evaluations": 20, "seconds": 1.0, "neighbours": (), "near": 0.0, "written": 1.0}
    metrics, real, noise = found
    write_result(run, Result(spec=spec, metrics=metrics, floor=real, ceiling=noise, **fields))


def test_home_shows_a_run_with_its_settings_and_newest_samples(runs_dir: Path) -> None:
    run = write_run(runs_dir, "mine", created=time.time())
    for step in (25, 50):
        Image.new("RGB", (32, 8)).save(run / "samples" / f"step-{step:08d}.png")
    app = open_home()
    assert not app.exception
    assert app.header[0].value == "Finished run"
    assert "mine has finished (50 steps)." in words(app)
    assert "seed 7" in words(app)
    assert "Newest samples of mine, at step 50" in words(app)
    assert len(app.get("image")) == 4  # the strip's images, each by itself


def test_a_run_at_work_comes_before_all_others(runs_dir: Path) -> None:
    alive = {"heartbeat": time.time(), "host": "elsewhere"}
    write_run(runs_dir, "best", created=1.0)
    write_run(runs_dir, "working", created=2.0, state="running", **alive)
    write_run(runs_dir, "waiting", created=3.0, state="queued", **alive)
    write_run(runs_dir, "tried", created=4.0, state="stopped")
    app = open_home()
    assert app.header[0].value == "Training now"
    assert "working is training, step 50 of 200." in words(app)


def test_the_best_of_the_finished_runs_is_the_one_measured_nearest_to_real_images(
    runs_dir: Path,
) -> None:
    # Of other data: 20 lies nearer to its floor, for its ceiling, than 8 does.
    measure(write_run(runs_dir, "near", created=1.0), "frechet", 20, 10, 1000)
    measure(write_run(runs_dir, "far", created=2.0), "sliced_wasserstein", 8, 1, 10)
    write_run(runs_dir, "longest", created=3.0, step=9000)
    write_run(runs_dir, "tried", created=4.0, state="stopped")
    app = open_home()
    assert app.header[0].value == "Best run"
    assert "near has finished (50 steps)." in words(app)
    why = "Out of 3 finished runs: its images were measured nearest to real ones. Preset small"
    assert why in words(app)


def test_the_best_of_finished_runs_without_results_has_the_most_steps(runs_dir: Path) -> None:
    write_run(runs_dir, "longest", created=1.0, step=900)
    write_run(runs_dir, "short", created=2.0)
    app = open_home()
    assert "longest has finished (900 steps)." in words(app)
    assert "it has the most steps, and none has been measured." in words(app)


def test_without_a_finished_run_the_one_with_the_most_steps_is_shown(runs_dir: Path) -> None:
    write_run(runs_dir, "longest", created=1.0, state="stopped", step=90)
    write_run(runs_dir, "tried", created=2.0, state="stopped", step=3)
    app = open_home()
    assert app.header[0].value == "Longest run"
    assert "longest was stopped, step 90 of 200." in words(app)


def test_generate_images_leads_to_sampling_with_the_run(runs_dir: Path) -> None:
    for name in ("lecture", "stopped"):  # of which Sampling would open with the newer one
        shutil.copytree(ROOT / "tests" / "fixtures" / "runs" / name, runs_dir / name)
    app = press(open_home(), "Generate images")
    assert app.title[0].value == "Sampling"
    assert app.selectbox(key="run").value == "lecture"


def test_generate_images_of_a_run_without_a_checkpoint_leads_to_sampling(runs_dir: Path) -> None:
    write_run(runs_dir, "bare", created=1.0)
    app = press(open_home(), "Generate images")
    assert app.title[0].value == "Sampling"
    assert "No run has a checkpoint yet." in words(app)


def test_a_run_whose_process_is_gone_is_called_lost(runs_dir: Path) -> None:
    write_run(runs_dir, "gone", created=1.0, state="running", heartbeat=0.0)
    assert "gone is lost" in words(open_home())


@pytest.mark.parametrize(
    ("state", "sentence"),
    [("finished", "This run has no samples."), ("stopped", "They appear here once it is resumed")],
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
