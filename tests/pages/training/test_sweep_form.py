"""The form that starts a sweep, and the list of sweeps with their links."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from dashboard.services import run_deeds
from dashboard.training.form_controls import BY_FIELD
from dashboard.training.launch import Start
from dashboard.training.sweep_form import usual_values
from dashboard.ui import run_wording
from diffusion_core.cli.train import start_settings
from diffusion_core.runs import sweep
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run
from diffusion_core.runs.sweep_file import Plan, read_sweep
from diffusion_core.runs.sweep_plan import combinations, parse_dimension
from tests.pages.app import buttons, open_page, press, words
from tests.tiny_runs import tiny, write_run

BASE = tiny(data="digits:64", steps=40)


def test_a_sweep_is_chosen_started_stopped_and_linked(runs_dir: Path, started) -> None:
    write_run(runs_dir, "base", config=BASE, images_per_second=16.0, host="elsewhere", device="cpu")
    app = open_page("training.py", preset="run base")
    assert "Start sweep" not in buttons(app)
    app.multiselect(key="sweep-varied").set_value(["learning_rate", "optimizer"]).run()
    assert app.text_input(key="sweep-values-learning_rate").value == "0.0005, 0.001, 0.002"
    assert "9 runs." in words(app)
    app.text_input(key="sweep-values-learning_rate").set_value("0.001, x").run()
    assert "learning_rate takes a number, not 'x'." in words(app)
    app.text_input(key="sweep-values-learning_rate").set_value("1e-4..1e-2:log").run()
    assert "A grid needs values of learning_rate" in words(app)
    [method] = [each for each in app.button_group if each.key == "sweep-method"]
    method.set_value("sobol").run()
    app.number_input(key="sweep-runs").set_value(4).run()
    app.text_input(key="sweep-halve").set_value("10, 20").run()
    assert "4 runs." in words(app)
    press(app, "Start sweep")
    made = read_sweep(runs_dir, "sweep-1")
    assert made.runs == tuple(f"sweep-1-0{number}" for number in range(1, 5))
    assert (made.plan.method, made.plan.halve_at) == ("sobol", (10, 20))
    assert [run.name for run in started] == ["sweep-1-01"]
    config = Run(runs_dir / "sweep-1-01").config
    assert config is not None and (config.data, config.pause_at) == ("digits:64", 10)
    assert "sweep-1 Round 1 of 3, until step 10: 0 of 4 runs are there." in words(app)
    [link] = [each for each in app.get("page_link") if each.proto.label == "Review"]
    assert link.proto.query_string == "filter=sweep+%3D+%22sweep-1%22"
    press(app, "Stop sweep")
    assert "sweep-1 It is stopped." in words(app)
    assert "Resume sweep" in buttons(app)


def test_a_viewer_sees_the_sweeps_and_starts_none(
    runs_dir: Path, started, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.start(runs_dir, "lr", BASE, Plan(vary=["batch_size=4,8"]), "cpu")
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_page("training.py")
    assert "lr 0 of 2 runs are there." in words(app)
    assert not {"Stop sweep", "Start sweep"} & set(buttons(app))
    assert not [each for each in app.multiselect if each.key == "sweep-varied"]


def test_more_steps_than_the_installation_allows_are_refused(
    runs_dir: Path, started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_STEPS", "50")
    with pytest.raises(ConfigError, match="This installation allows at most 50 steps"):
        run_deeds.start_sweep("lr", BASE, Plan(vary=["steps=40,60"]))
    assert not list(runs_dir.iterdir())


def test_a_run_says_why_it_is_paused_and_one_like_it_is_in_no_sweep(
    runs_dir: Path, started
) -> None:
    sweep.start(runs_dir, "lr", BASE, Plan(vary=["batch_size=4,8"], halve_at=[10]), "cpu")
    status = runs_dir / "lr-01" / "status.json"

    def says(**changes: object) -> str:
        now = {"state": "paused", "step": 10, "checkpoint_step": 10} | changes
        status.write_text(json.dumps(json.loads(status.read_text()) | now))
        seen = Run(runs_dir / "lr-01").snapshot()
        return run_wording.state_sentence(seen, [seen])

    end = " Resume the run to continue from step 10."
    assert f"is paused. It waits for the other runs of the sweep `lr`.{end}" in says()
    assert f"is paused. Number 2 of 2.{end}" in says(message="Number 2 of 2.")
    assert "is paused. Resume the run" in says(message="", step=9)
    alone = Start(run="lr-01").config(runs_dir)
    assert alone == BASE.replace(batch_size=4)
    given = Namespace(run=runs_dir / "again", like=str(runs_dir / "lr-01"), preset=None)
    assert start_settings(given, {}) == alone


def test_the_values_that_the_form_proposes_are_possible() -> None:
    """Of all settings: each can be varied alone from those of a preset."""
    refused = {}
    for name in BY_FIELD:
        if not (values := usual_values(name, preset("small"))):
            continue
        try:
            combinations([parse_dimension(f"{name}={values}")], "grid")
            sweep.plan_runs("lr", preset("small"), Plan(vary=[f"{name}={values}"]))
        except ConfigError as error:
            refused[name] = str(error)
    assert refused == {}
