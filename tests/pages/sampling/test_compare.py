"""The mode Compare: which rows there are, what they cost, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from diffusion_core.runs.config import RunConfig
from tests.pages.app import button, component_data, generate, open_page, words
from tests.tiny_runs import LECTURE, TINY, write_run


def compare(app: AppTest, label: str) -> list:
    job = generate(app, label, "compare")
    assert job.snapshot().state == "done", job.snapshot().sentence
    return job.result.rows


def test_samplers_and_steps_are_combined_from_the_same_noises_with_their_cost(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare", vs_n="2", label="bus")
    assert "Pick at least two values to compare." in words(app)
    assert button(app, "Generate comparison").disabled
    app.multiselect(key="vs_sampler").set_value(["ddim", "heun"]).run()
    app.multiselect(key="vs_steps").set_value([5, 10]).run()
    rows = compare(app, "Generate 4 rows")
    assert [(r.spec.sampler, r.spec.steps) for r in rows] == [
        ("ddim", 5),
        ("ddim", 10),
        ("heun", 5),
        ("heun", 10),
    ]
    assert [row.evaluations for row in rows] == [5, 10, 9, 19]
    assert len({row.images.tobytes() for row in rows}) == 4
    gallery = component_data(app, "gallery")["rows"]
    assert [len(row["tiles"]) for row in gallery] == [2] * 4
    assert gallery[3]["title"] == "heun, 10 steps"
    assert gallery[3]["note"].startswith("19 evaluations per image · ")
    assert [each.proto.label for each in app.get("download_button")] == ["All rows as PNG"]


@pytest.mark.parametrize("config", [LECTURE.replace(schedule={"timesteps": 30}), TINY])
def test_the_noise_terms_are_compared_over_all_steps_and_differ_in_nothing_else(
    runs_dir: Path, config: RunConfig
) -> None:
    write_run(runs_dir, "run", 25, config=config)
    app = open_page("sampling.py", mode="Compare", vs_n="1", seed="3", vs_seed=["1", "2"])
    button(app, "Compare noise terms").click().run()
    rows = compare(app, "Generate 3 rows")
    first = rows[0].spec
    assert (first.sampler, first.as_lecture) == ("ddpm", False)
    assert (first.steps, first.seed) == (config.schedule["timesteps"], 3)
    terms = ("posterior", "large", "lecture")
    assert [row.spec for row in rows] == [first.replace(variance=term) for term in terms]
    assert len({row.images.tobytes() for row in rows}) == 3
    titles = [row["title"] for row in component_data(app, "gallery")["rows"]]
    assert "variance β" in titles[1] and "the lecture's noise term" in titles[2]


def test_the_whole_way_of_the_lecture_is_compared_too(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", 25, config=LECTURE)
    app = open_page("sampling.py", mode="Compare", vs_n="1", steps="2", sampler="ddpm")
    app.multiselect(key="vs_way").set_value(["correct", "lecture"]).run()
    correct, lecture = compare(app, "Generate 2 rows")
    assert not correct.spec.as_lecture and lecture.spec.as_lecture
    assert not np.array_equal(correct.images, lecture.images)
    assert "as the lecture does" in component_data(app, "gallery")["rows"][1]["title"]


def test_runs_are_compared_by_their_newest_checkpoints_but_the_chosen_one_by_its_own(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "one", 20, 40)
    write_run(runs_dir, "two", 30, 35)
    app = open_page("sampling.py", mode="Compare", run="one", vs_n="1", steps="2")
    app.multiselect(key="vs_step").set_value(["20", "40"]).run()
    assert [row.spec.step for row in compare(app, "Generate 2 rows")] == [20, 40]
    app.selectbox(key="step").set_value("20")
    app.multiselect(key="vs_run").set_value(["one", "two"]).run()
    rows = compare(app, "Generate 2 rows")
    assert [(r.spec.run, r.spec.step) for r in rows] == [("one", 20), ("two", 35)]


def test_a_row_is_sampled_as_its_own_run_is_a_flow_or_not(runs_dir: Path) -> None:
    write_run(runs_dir, "flow", 20, config=TINY.replace(prediction_type="flow_prediction"))
    write_run(runs_dir, "cars", 20)
    where = {"run": "cars", "sampler": "heun", "spacing": "karras", "steps": "2"}
    app = open_page("sampling.py", mode="Compare", vs_n="1", **where)
    app.multiselect(key="vs_run").set_value(["cars", "flow"]).run()
    rows = compare(app, "Generate 2 rows")
    assert [(r.spec.flow, r.spec.spacing) for r in rows] == [
        (False, "karras"),
        (True, "trailing"),
    ]


def test_steps_and_seeds_of_ones_own_are_sampled_where_they_can_be(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare", vs_n="1")
    assert app.multiselect(key="vs_steps").options == ["2", "5", "10", "20"]
    app.multiselect(key="vs_steps").set_value([5, "7"])
    app.multiselect(key="vs_seed").set_value(["1234567"]).run()
    rows = compare(app, "Generate 2 rows")
    assert [(r.spec.steps, r.spec.seed) for r in rows] == [(5, 1234567), (7, 1234567)]
    for typed in ("21", "0", "-1", "many", "9" * 5000):
        app.multiselect(key="vs_steps").set_value([5, typed]).run()
        assert not app.exception
        assert "Steps: only whole numbers from 1 to 20 are possible." in words(app)
        assert button(app, "Generate comparison").disabled


NOT = "as the lecture does: that needs the lecture's network and images of more than 16 pixels."
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"label": "bus", "vs_run": ["cars", "plain"], "vs_guidance": ["1.0", "4.0"]},
        "plain was trained without classes, so nothing can guide it; set the guidance scale to 1.",
    ),
    (
        {"label": "any class", "vs_run": ["cars", "nodrop"]},
        "nodrop at step 30 was trained with the class always given; choose a class.",
    ),
    (
        {"label": "bus", "vs_run": ["cars", "nodrop"], "vs_guidance": "4.0"},
        "nodrop at step 30 was trained with the class always given, so it cannot be guided away",
    ),
    ({"vs_way": ["correct", "lecture"]}, f"cars at step 20 cannot be sampled {NOT}"),
    (
        {"run": "lecture", "way": "lecture", "vs_run": ["lecture", "cars"]},
        f"cars at step 20 cannot be sampled {NOT}",
    ),
    (
        {"vs_sampler": ["ddpm", "heun"], "vs_variance": ["posterior", "large"]},
        "variance has no effect with heun; use ddpm.",
    ),
    (
        {"run": "lecture", "vs_way": "lecture", "vs_variance": ["posterior", "large"]},
        "Sampling as the lecture does needs the variance posterior.",
    ),
    (
        {"run": "lecture", "vs_sampler": ["ddpm", "heun"], "vs_way": "lecture"},
        "Two of the rows would be the same: lecture at step 25",
    ),
    ({"vs_seed": list("0123456")}, "These are 7 combinations; choose at most 6."),
]


def test_ways_that_cannot_be_or_mean_nothing_are_refused_with_a_sentence(runs_dir: Path) -> None:
    plain = {"widths": [8], "blocks": 1, "attention_levels": [0]}
    write_run(runs_dir, "cars", 20)
    write_run(runs_dir, "plain", 30, config=TINY.replace(network_args=plain))
    write_run(runs_dir, "nodrop", 30, config=TINY.replace(label_dropout=0.0))
    write_run(runs_dir, "lecture", 25, config=LECTURE)
    for lists, sentence in REFUSED:
        address = {"mode": "Compare", "run": "cars", "steps": 2} | lists
        app = open_page("sampling.py", **address)
        assert sentence in words(app), lists
        assert button(app, "Generate comparison").disabled


def test_the_formula_has_the_noise_term_that_is_chosen(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", sampler="ddpm", variance="lecture")
    [formula] = [each.value for each in app.latex]
    assert r"+ \tilde\beta_t\,z" in formula and r"\sqrt{\tilde\beta_t}" not in formula
