"""The tab Quality of the Training page, by Streamlit's AppTest, and its figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import quality_view
from dashboard.figures_quality import cost_figure, over_training, training_figure
from diffusion_core import sliced
from diffusion_core.intervals import Estimate
from diffusion_core.order import Order
from diffusion_core.pictures import png
from diffusion_core.quality_results import (
    Estimates,
    Neighbour,
    Result,
    read_results,
    result_path,
    write_result,
)
from tests.pages.app import open_page
from tests.tiny_runs import tiny, write_checkpoint, write_run


def found(value: float) -> Estimates:
    return {
        "frechet": Estimate(value, value - 1, value + 1, 64, 64),
        "precision": Estimate(0.5, 0.4, 0.6, 64, 64),
    }


def a_result(run: str, step: int, steps: int, value: float, **settings: object) -> Result:
    return Result(
        order=Order(run, step, n=64, sampler="ddim", steps=steps, **settings),
        metrics=found(value) | {"copies": Estimate(0.08, 0.03, 0.15, 64, 64)},
        floor=found(2.0),
        ceiling=found(300.0),
        evaluations=steps,
        seconds=1.0,
        device="CPU, 1 thread",
        data="cars",
        fingerprint="f",
        checkpoint_time=0.0,
        neighbours=(Neighbour(3, 17, 4.5, ""), Neighbour(5, 18, 6.25, "")),
        near=5.0,
        notes=("Only a note.",),
        written=float(step + steps),
    )


def open_quality(**settings: object) -> AppTest:
    return open_page("training.py", more="Quality", **settings)


def words(app: AppTest) -> str:
    shown = [*app.caption, *app.markdown, *app.info, *app.error, *app.warning]
    return " ".join(element.value for element in shown)


@pytest.fixture
def measured(runs_dir: Path) -> Path:
    run = write_run(runs_dir, "cars-run", 40, config=tiny())
    sheet = png(np.zeros((32, 32, 3), np.uint8))
    for step, steps, value in ((20, 10, 40.0), (40, 5, 30.0), (40, 10, 20.0)):
        write_result(run, a_result("cars-run", step, steps, value), sheet)
    return run


def test_without_results_the_tab_says_how_to_get_them(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(runs_dir, "fresh", 40, config=tiny())
    app = open_quality()
    assert "Nothing was measured of this run yet. Press Measure above" in words(app)
    assert "Measure" in [button.label for button in app.button]
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_quality()
    assert "When the operator measures it" in words(app)
    assert "Measure" not in [button.label for button in app.button]


def test_a_run_without_a_checkpoint_cannot_be_measured_yet(runs_dir: Path) -> None:
    write_run(runs_dir, "early", config=tiny())
    app = open_quality()
    assert "as soon as there is a checkpoint" in words(app)
    assert "Measure" not in [button.label for button in app.button]


def test_the_table_has_the_results_between_real_pictures_and_noise(measured: Path) -> None:
    table = open_quality().dataframe[0].value
    assert table["Drawn by"].tolist() == [
        "Held-out real pictures",
        "ddim, 10 steps",
        "ddim, 5 steps",
        "ddim, 10 steps",
        "Noise",
    ]
    assert table["Fréchet distance"].tolist() == [
        "2.00 (1.00 to 3.00)",
        "40.0 (39.0 to 41.0)",
        "30.0 (29.0 to 31.0)",
        "20.0 (19.0 to 21.0)",
        "300 (299 to 301)",
    ]
    assert table["Precision"][1] == "50.0 % (40.0 to 60.0 %)"


def test_notes_copies_and_meanings_are_in_words(measured: Path) -> None:
    app = open_quality()
    said = words(app)
    assert said.count("Only a note.") == 1
    assert "8.0 % of the samples are nearer than 5.0" in said
    assert "**Precision** (higher is better)" in said
    assert "FID" not in [line.split("**")[1] for line in said.split("- ") if "**" in line]


def test_a_broken_result_is_named_and_the_others_are_shown(measured: Path) -> None:
    path = result_path(measured, a_result("", 40, 5, 0).order)
    path.write_text("{")
    app = open_quality()
    assert f"{path.name} is damaged" in words(app)
    assert len(app.dataframe[0].value) == 4


def test_a_missing_picture_of_neighbours_is_named(measured: Path) -> None:
    for sheet in (measured / "quality").glob("*.png"):
        sheet.unlink()
    assert "missing or cannot be read" in words(open_quality())


def test_runs_to_compare_with_stand_in_the_table(measured: Path, runs_dir: Path) -> None:
    other = write_run(runs_dir, "other", 40, config=tiny())
    write_result(other, a_result("other", 40, 10, 25.0))
    table = open_quality(run="cars-run", compare="other").dataframe[0].value
    assert table["Run"].dropna().tolist() == ["cars-run"] * 3 + ["other"]


def test_measure_draws_in_the_background_and_the_result_appears(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sliced, "DESCRIPTORS", 2**10)
    run = write_run(runs_dir, "to-measure", 20, 40, config=tiny())
    app = open_quality()
    app.number_input(key="quality_n").set_value(16)
    app.multiselect(key="quality_steps").set_value(["5", "10"]).run()
    assert "240 evaluations of the network" in words(app)
    next(button for button in app.button if button.label == "Measure").click().run()
    assert not app.exception
    job = quality_view.measurings()[str(run)]
    assert job.task.background
    assert job.wait(60)
    app.run()
    assert not app.exception
    assert job.snapshot().state == "done"
    assert [result.order.steps for result in read_results(run)[0]] == [5, 10]
    assert app.dataframe[0].value["Drawn by"].tolist()[1:3] == [
        "dpmpp_2m, 5 steps",
        "dpmpp_2m, 10 steps",
    ]


def test_a_cancelled_measuring_says_that_the_rest_is_kept(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    run = write_run(runs_dir, "to-cancel", 40, config=tiny())
    app = open_quality()
    app.multiselect(key="quality_steps").set_value(["10"]).run()
    next(button for button in app.button if button.label == "Measure").click().run()
    job = quality_view.measurings()[str(run)]
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    assert "Cancel" not in [button.label for button in open_quality().button]
    monkeypatch.delenv("DIFFUSION_LAB_ROLE")
    job.cancel()
    assert job.wait(60)
    app.run()
    assert "What was measured until then is kept." in words(app)


def test_a_network_of_nan_ends_the_measuring_with_a_sentence(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    run = write_run(runs_dir, "broken", config=tiny())
    write_checkpoint(run, 40, tiny(), mean=float("nan"))
    app = open_quality()
    app.number_input(key="quality_n").set_value(16)
    app.multiselect(key="quality_steps").set_value(["5"]).run()
    next(button for button in app.button if button.label == "Measure").click().run()
    assert quality_view.measurings()[str(run)].wait(60)
    app.run()
    assert [error.value for error in app.error] == [
        "The network of broken at step 40 answers with NaN or infinity; choose another checkpoint."
    ]
    assert read_results(run) == ([], [])


def test_no_number_of_steps_is_nothing_to_measure(runs_dir: Path) -> None:
    write_run(runs_dir, "no-steps", 40, config=tiny())
    app = open_quality()
    app.multiselect(key="quality_steps").set_value([]).run()
    assert "Choose at least one number of steps." in words(app)


# ------------------------------------------------------------------------------ figures


def lines(figure: object) -> dict[str, list[tuple[float, float]]]:
    return {
        trace.name: list(zip(trace.x, trace.y, strict=True))
        for trace in figure.data
        if trace.name != "held-out real pictures"
    }


def test_the_cost_figure_shows_the_newest_measured_step_of_each_run() -> None:
    results = [
        a_result("a", 20, 5, 9.0),
        a_result("a", 40, 10, 20.0),
        a_result("a", 40, 5, 30.0),
        a_result("b", 10, 5, 50.0),
    ]
    figure = cost_figure(results, "frechet")
    assert lines(figure) == {"a: ddim": [(5, 30.0), (10, 20.0)], "b: ddim": [(5, 50.0)]}
    assert figure.layout.xaxis.type == "log"
    assert figure.data[0].error_y.array == (1.0, 1.0)
    assert figure.layout.shapes[0].y0 == 2.0  # the floor


def test_the_training_figure_has_a_line_for_each_way_to_draw() -> None:
    results = [a_result("a", step, steps, step) for step in (20, 40) for steps in (5, 10)]
    assert lines(training_figure(results, "frechet")) == {
        "ddim, 5 steps": [(20, 20.0), (40, 40.0)],
        "ddim, 10 steps": [(20, 20.0), (40, 40.0)],
    }


def test_only_what_was_measured_at_several_steps_is_drawn_over_the_training() -> None:
    twice = [a_result("a", step, 5, step) for step in (20, 40)]
    assert over_training([*twice, a_result("a", 40, 10, 1.0), a_result("b", 20, 5, 1.0)]) == twice


def test_results_of_different_counts_are_no_line() -> None:
    first = a_result("a", 40, 5, 30.0)
    second = replace(first, order=replace(first.order, n=128, steps=10), evaluations=10)
    assert set(lines(cost_figure([first, second], "precision"))) == {
        "ddim, 64 pictures",
        "ddim, 128 pictures",
    }
