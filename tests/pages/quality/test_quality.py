"""The tab Quality of the Training page, by Streamlit's AppTest, and its figures."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.figures.quality import cost_figure, over_cost, over_training, training_figure
from dashboard.quality import view as quality_view
from dashboard.ui.images import read_strip
from diffusion_core.data.decode import ImageError
from diffusion_core.evaluation import sliced
from diffusion_core.evaluation.intervals import Estimate
from diffusion_core.evaluation.results import (
    Estimates,
    Neighbour,
    Result,
    read_results,
    result_path,
    write_result,
)
from diffusion_core.media.images import png
from diffusion_core.sampling.spec import SamplingSpec
from tests.pages.app import open_page
from tests.tiny_runs import tiny, write_checkpoint, write_run


def found(value: float) -> Estimates:
    return {
        "frechet": Estimate(value, value - 1, value + 1, 64, 64),
        "precision": Estimate(0.5, 0.4, 0.6, 64, 64),
    }


def a_result(run: str, step: int, steps: int, value: float, **settings: object) -> Result:
    return Result(
        spec=SamplingSpec(run=run, step=step, n=64, sampler="ddim", steps=steps, **settings),
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


def of_n(n: int, result: Result) -> Result:
    return replace(result, spec=result.spec.replace(n=n))


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


def test_the_table_has_the_results_between_real_images_and_noise(measured: Path) -> None:
    table = open_quality().dataframe[0].value
    assert table["Drawn by"].tolist() == [
        "Held-out real images",
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
    assert table["Step"].dropna().tolist() == [20, 40, 40]  # numbers, which can be sorted by
    assert table["Precision"][1] == "50.0 % (40.0 to 60.0 %)"


def test_notes_copies_and_meanings_are_in_words(measured: Path) -> None:
    app = open_quality()
    said = words(app)
    assert said.count("Only a note.") == 1
    assert "8.0 % of the samples are nearer than 5.0" in said
    assert "**Precision** (higher is better)" in said
    assert "FID" not in [line.split("**")[1] for line in said.split("- ") if "**" in line]


def test_a_broken_result_is_named_and_the_others_are_shown(measured: Path) -> None:
    path = result_path(measured, a_result("x", 40, 5, 0).spec)
    path.write_text("{")
    app = open_quality()
    assert f"{path.name} is damaged" in words(app)
    assert len(app.dataframe[0].value) == 4


def with_header(image: bytes, width: int, height: int) -> bytes:
    """The PNG, saying that it has another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + image[24:29]
    return image[:12] + header + struct.pack(">I", zlib.crc32(header)) + image[33:]


def test_an_image_of_neighbours_that_cannot_be_used_is_named(measured: Path) -> None:
    sheets = list((measured / "quality").glob("*.png"))
    whole = sheets[0].read_bytes()
    app = open_quality()
    assert "missing or cannot be read" not in words(app)
    for bad in (
        with_header(whole, 30_000, 30_000),
        whole[:45] + b"no chunk" + whole[53:],
        png(np.zeros((1, 32, 3), np.uint8)),  # not two rows
        png(np.zeros((32, 8, 3), np.uint8)),  # not one column
        None,
    ):
        for sheet in sheets:
            sheet.unlink() if bad is None else sheet.write_bytes(bad)
        app.run()
        assert not app.exception
        assert "missing or cannot be read" in words(app), bad
        with pytest.raises(ImageError):
            read_strip(sheets[0], rows=2)


def test_more_images_of_neighbours_than_the_result_names_are_left_out(measured: Path) -> None:
    sheet = png(np.zeros((32, 80, 3), np.uint8))
    for path in (measured / "quality").glob("*.png"):
        path.write_bytes(sheet)
    assert "the 2 that are nearest" in words(open_quality())


def test_the_yardsticks_of_several_counts_name_theirs(measured: Path, runs_dir: Path) -> None:
    assert "“Held-out real images”: what real" in words(open_quality())
    write_result(measured, of_n(128, a_result("cars-run", 40, 10, 21.0)))
    app = open_quality()
    drawn_by = app.dataframe[0].value["Drawn by"].tolist()
    for name in ("Held-out real images", "Noise"):
        assert {f"{name}, for 64 drawn", f"{name}, for 128 drawn"} <= set(drawn_by)
    assert "Hold a result against the rows for its own number of images." in words(app)
    other = write_run(runs_dir, "other", 40, config=tiny())
    write_result(other, replace(a_result("other", 40, 10, 25.0), data="digits"))
    table = open_quality(run="cars-run", compare="other").dataframe[0].value
    assert {"Noise, digits, for 64 drawn", "Noise, cars, for 64 drawn"} <= set(table["Drawn by"])


def test_yardsticks_of_the_same_data_are_told_apart_where_its_images_differ(
    measured: Path, runs_dir: Path
) -> None:
    newer = a_result("cars-run", 40, 20, 15.0)
    write_result(measured, replace(newer, fingerprint="changed"))
    drawn_by = open_quality().dataframe[0].value["Drawn by"].tolist()
    assert {"Noise", "Noise, before the data changed"} <= set(drawn_by)
    result_path(measured, newer.spec).unlink()
    other = write_run(runs_dir, "other", 40, config=tiny())
    write_result(other, replace(a_result("other", 40, 10, 25.0), fingerprint="larger"))
    table = open_quality(run="cars-run", compare="other").dataframe[0].value
    assert {"Noise, as in cars-run", "Noise, as in other"} <= set(table["Drawn by"])


def test_without_held_out_images_the_words_name_noise_alone(runs_dir: Path) -> None:
    run = write_run(runs_dir, "few", 40, config=tiny())
    write_result(run, replace(a_result("few", 40, 10, 25.0), floor={}))
    app = open_quality()
    assert app.dataframe[0].value["Drawn by"].tolist() == ["ddim, 10 steps", "Noise"]
    assert "“Noise”: what pure noise gets." in words(app)
    assert "what real images get" not in words(app)


def test_a_note_that_not_all_compared_runs_have_says_whose_it_is(
    measured: Path, runs_dir: Path
) -> None:
    other = write_run(runs_dir, "other", 40, config=tiny())
    both = ("Only a note.", "It is of other.")
    write_result(other, replace(a_result("other", 40, 10, 25.0), notes=both))
    captions = [c.value for c in open_quality(run="cars-run", compare="other").caption]
    notes = [said for said in captions if said.startswith(":material/info:")]
    assert notes == [
        ":material/info: Only a note.",
        ":material/info: other: It is of other.",
    ]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_guidance_is_offered_where_the_network_learned_any_class(
    dropout: float, runs_dir: Path
) -> None:
    network = tiny().network_args | {"num_classes": 3}
    write_run(runs_dir, "r", 40, config=tiny(network_args=network, label_dropout=dropout))
    sliders = [slider.label for slider in open_quality().slider]
    assert ("Guidance scale" in sliders) == (dropout > 0)


def test_one_cost_is_no_curve_against_the_cost(measured: Path) -> None:
    """Though a second one was measured with another number of images."""
    for path in (measured / "quality").glob("step-00000040-*"):
        path.unlink()
    assert "A curve stands here as soon as" in words(open_quality())
    write_result(measured, a_result("cars-run", 40, 10, 20.0))
    write_result(measured, of_n(128, a_result("cars-run", 40, 5, 30.0)))
    said = words(open_quality())
    assert "**Over the training**" in said
    assert "Against what an image costs" not in said


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
    assert [result.spec.steps for result in read_results(run)[0]] == [5, 10]
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
        if not trace.name.startswith("held-out real images")
    }


def test_the_cost_figure_shows_a_step_of_each_run() -> None:
    results = [
        a_result("a", 20, 5, 9.0),
        a_result("a", 40, 10, 20.0),
        a_result("a", 40, 5, 30.0),
        a_result("b", 10, 5, 50.0),
    ]
    figure = cost_figure(results, "frechet")
    assert lines(figure) == {
        "a: ddim, step 40": [(5, 30.0), (10, 20.0)],
        "b: ddim, step 10": [(5, 50.0)],
    }
    assert figure.layout.xaxis.type == "log"
    assert figure.data[0].error_y.array == (1.0, 1.0)
    assert figure.layout.shapes[0].y0 == 2.0  # the floor


def test_the_curve_against_the_cost_stays_while_later_steps_are_measured_at_one() -> None:
    curve = [a_result("a", 20, steps, 100.0 / steps) for steps in (5, 10)]
    one = a_result("a", 40, 20, 4.0)
    other_way = a_result("a", 40, 5, 4.0, seed=1)
    other_count = [of_n(128, a_result("a", 60, 50, 3.0))]
    figure = cost_figure([*curve, one, other_way, *other_count], "frechet")
    assert lines(figure) == {"ddim, step 20, 64 images": [(5, 20.0), (10, 10.0)]}
    assert figure.layout.xaxis.tickvals == (5, 10)
    newer = a_result("a", 40, 10, 5.0)
    assert over_cost([*curve, one, newer]) == [one, newer]


def test_without_a_curve_different_ways_of_the_newest_step_are_held_against_their_cost() -> None:
    old, one = a_result("a", 20, 5, 9.0), a_result("a", 40, 20, 4.0)
    other = a_result("a", 40, 10, 5.0, seed=1)
    assert over_cost([old, one, other]) == [one, other]
    assert over_cost([old, one]) == over_cost([one]) == []


def test_a_metric_has_a_curve_of_those_results_alone_that_have_it() -> None:
    results = [a_result("a", 20, steps, 30.0) for steps in (5, 10)]
    later = [a_result("a", 40, steps, 20.0) for steps in (5, 10)]
    without = [replace(result, metrics={"precision": found(1.0)["precision"]}) for result in later]
    assert set(lines(cost_figure([*results, *without], "frechet"))) == {"ddim, step 20"}
    assert set(lines(cost_figure([*results, *without], "precision"))) == {"ddim, step 40"}
    assert cost_figure(without, "frechet") is None
    assert training_figure([*results, *without], "frechet") is None


def test_a_line_says_its_run_where_several_could_be_drawn() -> None:
    results = [a_result("a", step, 5, 9.0) for step in (20, 40)]
    figure = training_figure([*results, a_result("b", 20, 5, 9.0)], "frechet")
    assert set(lines(figure)) == {"a: ddim, 5 steps"}
    assert figure.layout.xaxis.tickformat == ",~r"


def test_each_count_of_images_has_a_line_and_a_floor_of_its_own() -> None:
    first = [a_result("a", 40, steps, 30.0) for steps in (5, 10)]
    second = [replace(of_n(128, result), floor=found(1.0)) for result in first]
    figure = cost_figure([*first, *second], "frechet")
    assert set(lines(figure)) == {
        "ddim, step 40, 64 images",
        "ddim, step 40, 128 images",
    }
    floors = {t.name: t.line.dash for t in figure.data if t.name.startswith("held-out")}
    assert set(floors) == {f"held-out real images, for {n} drawn" for n in (64, 128)}
    assert {(shape.y0, shape.line.dash) for shape in figure.layout.shapes} == {
        (2.0, floors["held-out real images, for 64 drawn"]),
        (1.0, floors["held-out real images, for 128 drawn"]),
    }
    assert len(set(floors.values())) == 2


def test_the_training_figure_has_a_line_for_each_way_to_draw() -> None:
    results = [a_result("a", step, steps, step) for step in (20, 40) for steps in (5, 10)]
    assert lines(training_figure(results, "frechet")) == {
        "ddim, 5 steps": [(20, 20.0), (40, 40.0)],
        "ddim, 10 steps": [(20, 20.0), (40, 40.0)],
    }


def test_only_what_was_measured_at_several_steps_is_drawn_over_the_training() -> None:
    twice = [a_result("a", step, 5, step) for step in (20, 40)]
    assert over_training([*twice, a_result("a", 40, 10, 1.0), a_result("b", 20, 5, 1.0)]) == twice
