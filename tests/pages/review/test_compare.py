"""The view "Compare" without a browser: what it says of runs, and of those that it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.figures.review import Axis, parallel_figure
from dashboard.review.compare import one_of_each
from diffusion_core.evaluation.results import read_results
from diffusion_core.runs.cost import ENERGY
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.run import load_run
from tests.pages.app import component_data, open_page, words
from tests.tiny_runs import TINY, write_run

DEMO = Path(__file__).parents[3] / "checkpoints" / "demo-cars"


def make_run(
    runs_dir: Path, name: str, frechet: float | None = None, joules: float = 0.0, **settings: Any
) -> Path:
    """A finished run with curves and, with a Fréchet distance, the results of the demo's."""
    config = TINY.replace(**settings)
    run = write_run(runs_dir, name, config=config, images_per_second=20.0)
    writer = MetricsWriter(run / "metrics.sqlite")
    writer.add((step, "loss", 1 / step, 90.0 * step) for step in range(1, 42))
    if joules:
        writer.add([(40, ENERGY, joules, 0.0)])
    writer.close()
    if frechet is not None:
        shutil.copytree(DEMO / "quality", run / "quality")
        for path in (run / "quality").glob("*.json"):
            values = json.loads(path.read_text())
            found = values["metrics"]["frechet"]
            shift = frechet - found["value"]
            found |= {name: found[name] + shift for name in ("value", "low", "high")}
            path.write_text(json.dumps(values))
    return run


def open_compare(*runs: str, **settings: object) -> AppTest:
    return open_page("review.py", view="Compare", runs=list(runs), **settings)


def cells(app: AppTest, part: str) -> dict[str, list[str]]:
    parts = {each["title"]: each["lines"] for each in component_data(app, "comparison")["parts"]}
    return {line["name"]: line["cells"] for line in parts[part]}


def chart(app: AppTest, key: str) -> dict[str, Any]:
    return json.loads(component_data(app, "chart", key)["figure"])


def test_runs_beside_each_other(runs_dir: Path) -> None:
    make_run(runs_dir, "slow", 31.2, joules=7.2e6, learning_rate=1e-3)
    make_run(runs_dir, "fast", 24.6, learning_rate=3e-4)
    make_run(runs_dir, "again", 26.0, learning_rate=3e-4, seed=1)
    app = open_compare("slow", "fast")
    assert cells(app, "Settings that differ") == {"learning_rate": ["0.001", "0.0003"]}
    assert cells(app, "Cost") == {
        "Images seen": ["1,280", "1,280"],
        "Training time": ["1 h 0 min", "1 h 0 min"],
        "Energy": ["2 kWh", "not readable"],
    }
    quality = cells(app, "Quality")
    assert quality["Fréchet distance"][0].startswith("31.2 (")
    [(step, _)] = load_run(DEMO).weights()
    assert quality["Measured"][0].startswith(f"step {step:,}, ")
    smooth = [each for each in chart(app, "loss-slow")["data"] if each.get("hovertemplate")]
    assert "learning_rate 0.001" in smooth[0]["hovertemplate"]
    dots = [each for each in chart(app, "intervals")["data"] if "error_x" in each]
    assert [each["x"][0] for each in dots] == pytest.approx([31.2, 24.6])
    [axes] = chart(app, "parallel")["data"]
    assert [each["label"] for each in axes["dimensions"]] == [
        "seed",
        "learning_rate",
        "Fréchet distance",
    ]
    pairs = app.dataframe[-1].value
    assert list(pairs["What became better"]) == [
        "learning_rate 0.001 → 0.0003: Fréchet distance 31.2 → 24.6"
    ]
    assert list(pairs["Notes"]) == [
        "intervals do not overlap; no more than the seed changes"  # of two runs: little is known
    ]
    assert "(2 runs that differ in the seed alone)" in words(app)
    app = open_compare("slow", "fast", among="the chosen runs", curve="nothing")
    assert "No two of these runs differ in seed alone" in words(app)


def test_fewer_than_two_runs_leave_what_all_runs_say(runs_dir: Path) -> None:
    app = open_compare()
    assert not app.get("bidi_component")
    make_run(runs_dir, "a")
    app = open_compare("a")
    assert "Select one more run in the table to compare them." in words(app)
    assert "This needs two runs in the table with a result." in words(app)
    make_run(runs_dir, "b", batch_size=8)
    app = open_compare(outcome="Images per second")
    assert "Select two to eight runs in the table" in words(app)
    assert chart(app, "parallel")["data"][0]["dimensions"][0]["label"] == "batch_size"


def test_runs_that_cannot_be_read_are_named_and_the_others_compared(runs_dir: Path) -> None:
    for name, seed in (("whole", 0), ("other", 1)):
        make_run(runs_dir, name, seed=seed)
    damaged = make_run(runs_dir, "damaged", 9.0)
    (damaged / "config.json").write_text("{")
    (damaged / "metrics.sqlite").write_bytes(b"nothing" * 99)
    write_run(runs_dir, "no curves")
    app = open_compare("damaged", "whole", "other", "no curves")
    assert "damaged cannot be read in full." in words(app)
    assert "The curves of damaged cannot be shown" in words(app)
    assert "Without this curve: no curves." in words(app)
    table = component_data(app, "comparison")
    assert table["names"] == ["whole", "other", "no curves", "damaged"]
    assert cells(app, "Settings that differ")["seed"] == ["0", "1", "0", "not readable"]
    assert cells(app, "Cost")["Images seen"][-1] == "not readable"


def test_one_result_of_each_run_is_that_whose_way_most_share(runs_dir: Path) -> None:
    one, other = (read_results(make_run(runs_dir, name, 9.0))[0] for name in ("a", "b"))
    found = one_of_each([one[-1], *other])
    assert [result.spec.run for result in found] == ["a", "b"]
    assert found[0].way() == found[1].way()


def test_axes_of_words_numbers_and_decades() -> None:
    figure = parallel_figure(
        [
            Axis("schedule.kind", ["linear", None, "cosine"]),
            Axis("learning_rate", [1e-5, 1e-3, 1e-3]),
            Axis("network_args.attention_levels", [True, False, True]),
            Axis("seed", [3, 3, 3]),
        ],
        Axis("Fréchet <distance>", list(np.linspace(5.0, 7.0, 3))),
    )
    kind, rate, levels, seed, result = figure.data[0].dimensions
    assert (kind.ticktext, kind["values"]) == (("cosine", "linear", "none"), (1.0, 2.0, 0.0))
    assert rate["values"] == pytest.approx([-5, -3, -3])
    assert rate.ticktext == ("1e-05", "0.001")
    assert levels.label == "attention_levels"
    assert levels.ticktext == ("off", "on")
    assert list(seed.range) == [2, 4]
    assert result.label == "Fréchet &#60;distance&#62;"
