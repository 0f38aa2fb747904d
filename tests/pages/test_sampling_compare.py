"""Side by side: which ways are compared, what they cost, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from tests.pages.app import open_page
from tests.tiny_runs import LECTURE, write_run

SOON = 60.0


def words(app: AppTest) -> str:
    return "\n".join(each.value for each in [*app.markdown, *app.caption, *app.info, *app.error])


def button(app: AppTest, label: str):
    [found] = [each for each in app.button if each.label == label]
    return found


def draw(app: AppTest, label: str) -> list:
    button(app, label).click().run()
    assert not app.exception
    job = app.session_state["drawings"]["compare"]
    assert job.wait(SOON)
    app.run()
    assert not app.exception
    assert job.snapshot().state == "done", job.snapshot().sentence
    return job.result


def test_samplers_and_steps_are_combined_from_the_same_noises_with_their_cost(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Side by side", vs_n="2", label="bus")
    assert "So far nothing differs." in words(app)
    assert button(app, "Draw side by side").disabled
    app.multiselect(key="vs_sampler").set_value(["ddim", "heun"]).run()
    app.multiselect(key="vs_steps").set_value([5, 10]).run()
    rows = draw(app, "Draw 4 side by side")
    assert [(r.way.order.sampler, r.way.order.steps) for r in rows] == [
        ("ddim", 5),
        ("ddim", 10),
        ("heun", 5),
        ("heun", 10),
    ]
    assert [row.evaluations for row in rows] == [5, 10, 9, 19]
    assert len({row.pictures.tobytes() for row in rows}) == 4
    shown = words(app)
    assert "**heun, 10 steps**" in shown and "19 evaluations a picture" in shown
    assert len(app.get("image")) == 4 * 2
    assert [each.proto.label for each in app.get("download_button")] == ["All rows as PNG"]


def test_the_lectures_noise_term_stands_against_the_correct_one(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", 25, config=LECTURE)
    app = open_page("sampling.py", mode="Side by side", vs_n="1", steps="6")
    button(app, "The lecture's noise term").click().run()
    correct, lecture = draw(app, "Draw 2 side by side")
    assert (correct.way.order.sampler, correct.way.order.as_lecture) == ("ddpm", False)
    assert lecture.way.order.as_lecture
    assert not np.array_equal(correct.pictures, lecture.pictures)
    assert "**as the lecture does**" in words(app)


def test_runs_are_compared_by_their_newest_checkpoints_and_steps_by_their_own(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "one", 20, 40)
    write_run(runs_dir, "two", 30)
    app = open_page("sampling.py", mode="Side by side", run="one", vs_n="1", steps="2")
    app.multiselect(key="vs_step").set_value(["20", "40"]).run()
    assert [row.way.order.step for row in draw(app, "Draw 2 side by side")] == [20, 40]
    app.multiselect(key="vs_run").set_value(["one", "two"]).run()
    rows = draw(app, "Draw 2 side by side")
    assert [(r.way.order.run, r.way.order.step) for r in rows] == [("one", 40), ("two", 30)]


def test_more_than_six_and_ways_that_cannot_be_are_refused(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Side by side", vs_n="1", steps="2")
    app.multiselect(key="vs_seed").set_value(list(range(7))).run()
    assert "These are 7 combinations; choose at most 6." in words(app)
    app.multiselect(key="vs_seed").set_value([]).run()
    app.multiselect(key="vs_way").set_value(["correct", "as the lecture does"]).run()
    assert "too small for the lecture's BatchNorm" in words(app)
    assert button(app, "Draw side by side").disabled
