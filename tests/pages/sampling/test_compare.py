"""The mode Compare: which rows there are, what they cost, and what cannot be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from diffusion_core.runs.config import RunConfig
from tests.pages.app import button, buttons, component_data, generate, open_page, words
from tests.tiny_runs import LECTURE, TINY, tiny, write_run


def compare(app: AppTest, label: str) -> list:
    job = generate(app, label, "compare")
    assert job.snapshot().state == "done", job.snapshot().sentence
    return job.result.rows


def test_samplers_and_steps_are_combined_from_the_same_noises_with_their_cost(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare", vs_n="2", label="bus")
    app.multiselect(key="vs_sampler").set_value(["ddim", "heun"]).run()
    assert lists(app) == ["vs_sampler", "vs_spacing"]  # that of Heun is unusual
    button(app, "Add another").click().run()
    app.selectbox(key="by_2").set_value("vs_steps").run()
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
    assert gallery[3]["title"].startswith("heun, 10 steps")
    assert gallery[3]["note"].startswith("19 network evaluations per image · 2 images in ")
    assert "Times are measured on a shared machine" in words(app)
    assert [each.proto.label for each in app.get("download_button")] == ["All rows as PNG"]


def lists(app: AppTest) -> list[str]:
    return [each.key for each in app.multiselect]


def test_the_mode_opens_with_three_samplers_and_takes_a_second_setting(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare")
    assert lists(app) == ["vs_sampler"]
    assert app.multiselect(key="vs_sampler").value == ["dpmpp_2m", "ddim", "ddpm"]
    assert not button(app, "Generate 3 rows").disabled
    button(app, "Add another").click().run()
    assert len(lists(app)) == 2 and "Add another" not in buttons(app)
    assert not button(app, "Generate 6 rows").disabled
    app.selectbox(key="by_1").set_value("vs_seed").run()
    assert lists(app) == ["vs_sampler", "vs_seed"]
    assert app.multiselect(key="vs_seed").value == [0, 1]
    assert app.query_params["vs_sampler"] == ["dpmpp_2m", "ddim", "ddpm"]
    assert app.query_params["vs_seed"] == ["0", "1"]
    app.selectbox(key="by_0").set_value("vs_steps").run()
    assert lists(app) == ["vs_steps", "vs_seed"]
    assert app.multiselect(key="vs_steps").value == [10, 20]
    app.button(key="remove_1").click().run()
    assert lists(app) == ["vs_steps"] and "Remove" not in buttons(app)
    app.multiselect(key="vs_steps").set_value([10]).run()
    assert "Pick at least two values to compare." in words(app)
    assert button(app, "Generate comparison").disabled
    app.multiselect(key="vs_steps").set_value([]).run()
    assert app.multiselect(key="vs_steps").value == []


def test_only_settings_with_something_to_compare_are_offered(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare")
    only = ["Sampler", "Steps", "Guidance scale", "Seed", "Variance of the noise", "Step spacing"]
    assert app.selectbox(key="by_0").options == only
    write_run(runs_dir, "other", 20, 40)
    app = open_page("sampling.py", mode="Compare", run="other", label="any class")
    assert app.selectbox(key="by_0").options == [
        "Run",
        "Checkpoint",
        "Sampler",
        "Steps",
        "Seed",
        "Variance of the noise",
        "Step spacing",
    ]
    app.selectbox(key="by_0").set_value("vs_run").run()
    button(app, "Add another").click().run()
    assert "Checkpoint" not in app.selectbox(key="by_1").options  # each run has its own
    assert "Run" not in app.selectbox(key="by_1").options


def test_a_link_opens_with_the_lists_that_it_has_and_no_others(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare", vs_steps=["5", "7"], vs_seed=["0"])
    assert lists(app) == ["vs_steps", "vs_seed"]
    assert [row.spec.steps for row in compare(app, "Generate 2 rows")] == [5, 7]
    app.segmented_control(key="mode").set_value("Generate").run()
    assert not [key for key in app.query_params if key.startswith("vs_")]
    app.segmented_control(key="mode").set_value("Compare").run()
    assert lists(app) == ["vs_steps", "vs_seed"]
    app.selectbox(key="by_0").set_value("vs_sampler").run()
    assert [key for key in app.query_params if key.startswith("vs_")] == ["vs_seed", "vs_sampler"]


def test_the_time_of_a_comparison_is_estimated_from_the_last_one(runs_dir: Path) -> None:
    # No other test samples by a network of this size.
    write_run(runs_dir, "cars", 20, config=tiny(network_args=TINY.network_args, image_size=24))
    app = open_page("sampling.py", mode="Compare", vs_n="2", vs_steps=["5", "7"])
    assert "estimated from earlier requests" not in words(app)
    compare(app, "Generate 2 rows")
    assert re.search(r"(Less than 1|About [\d.]+) s, estimated from earlier", words(app))


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
    app = open_page("sampling.py", mode="Compare", vs_n="1", steps="2", vs_way=["correct"])
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
    app.selectbox(key="by_0").set_value("vs_step").run()
    assert app.multiselect(key="vs_step").value == ["40", "20"]
    assert [row.spec.step for row in compare(app, "Generate 2 rows")] == [20, 40]
    app.selectbox(key="step").set_value("20")
    app.selectbox(key="by_0").set_value("vs_run").run()
    app.multiselect(key="vs_run").set_value(["one", "two"]).run()
    rows = compare(app, "Generate 2 rows")
    assert [(r.spec.run, r.spec.step) for r in rows] == [("one", 20), ("two", 35)]


def test_a_row_is_sampled_as_its_own_run_is_a_flow_or_not(runs_dir: Path) -> None:
    write_run(runs_dir, "flow", 20, config=TINY.replace(prediction_type="flow_prediction"))
    write_run(runs_dir, "cars", 20)
    where = {"run": "cars", "sampler": "heun", "spacing": "karras", "steps": "2"}
    app = open_page("sampling.py", mode="Compare", vs_n="1", vs_run=["cars", "flow"], **where)
    rows = compare(app, "Generate 2 rows")
    assert [(r.spec.flow, r.spec.spacing) for r in rows] == [
        (False, "karras"),
        (True, "trailing"),
    ]


def test_steps_and_seeds_of_ones_own_are_sampled_where_they_can_be(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20)
    app = open_page("sampling.py", mode="Compare", vs_n="1", vs_steps="5", vs_seed="1")
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
        "plain was trained without classes, so no class can guide it; set the guidance scale to 1 ",
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
