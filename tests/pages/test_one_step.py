"""The One step page: a prediction, its sweep, a pixel, the ways to step, odd runs and links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.app import component_data, open_page, words
from tests.tiny_runs import LECTURE, tiny, write_checkpoint, write_run

SCHEDULES: dict[str, dict[str, Any]] = {
    "v_prediction": {"kind": "cosine", "timesteps": 20},
    "epsilon": {"kind": "linear", "timesteps": 20},
    "x_0": {"kind": "linear", "timesteps": 20},
    "flow_prediction": {"timesteps": 20},
    "flow_x_0": {"timesteps": 20},
}
OWN = {
    "v_prediction": "Velocity",
    "epsilon": "Noise",
    "x_0": "Image",
    "flow_prediction": "Direction of the flow",
    "flow_x_0": "Image",
}


def open_one_step(runs_dir: Path, prediction_type: str = "v_prediction", **link: Any) -> AppTest:
    config = tiny(prediction_type=prediction_type, schedule=SCHEDULES[prediction_type])
    write_run(runs_dir, "tiny", 20, config=config)
    return open_page("one_step.py", **link)


@pytest.mark.parametrize("prediction_type", SCHEDULES)
def test_a_prediction_stands_beside_the_truth_with_its_loss(
    runs_dir: Path, prediction_type: str
) -> None:
    app = open_one_step(runs_dir, prediction_type, t=10)
    rows = component_data(app, "gallery")["rows"]
    [own] = [row["title"] for row in rows if row["title"].endswith("which this network answers")]
    assert own.split(",")[0] == OWN[prediction_type]
    truths = [row["tiles"][-3]["name"] for row in rows]
    assert truths == ["x₀", "ε", "ε − x₀" if prediction_type.startswith("flow") else "v"]
    assert [each.label for each in app.metric] == [
        "Loss",
        "Weight in training",
        "Loss × weight",
        "Error of x₀ (RMS)",
    ]
    assert float(app.metric[0].value) > 0
    assert "A network that always answers 0 would have" in words(app)


@pytest.mark.parametrize(
    ("prediction_type", "ways"),
    [
        ("epsilon", ["xₜ", "DDPM", "DDIM", "the lecture's step"]),
        ("flow_prediction", ["xₜ", "Euler"]),
    ],
)
def test_every_way_to_step_starts_from_the_same_point(
    runs_dir: Path, prediction_type: str, ways: list[str]
) -> None:
    app = open_one_step(runs_dir, prediction_type, t=10, tab="One step back", row=3, column=12)
    first, *more = component_data(app, "gallery")["rows"]
    assert [tile["name"] for tile in first["tiles"]] == ways
    said = words(app)
    if prediction_type == "flow_prediction":
        assert not more and "A flow has no noise in its steps" in said
        return
    differences, means = more
    assert [tile["name"].split(":")[0] for tile in differences["tiles"]] == ways[2:]
    assert [tile["name"] for tile in means["tiles"][:2]] == ["for predicted x₀", "for x₀"]
    assert component_data(app, "pixel")["at"] == [3, 12]
    assert "the posterior" in said


def test_the_last_step_adds_no_noise(runs_dir: Path) -> None:
    app = open_one_step(runs_dir, "epsilon", t=0, tab="One step back")
    assert "adds no noise" in words(app)


def test_the_sweep_goes_over_all_timesteps(runs_dir: Path) -> None:
    app = open_one_step(runs_dir, t=10, tab="Over t")
    book = component_data(app, "flipbook")
    assert book["captions"][0] == "t = 0" and book["captions"][-1] == "t = 19"
    assert book["timesteps"] == list(range(20))


def test_a_pixel_is_chosen_by_number_and_in_the_link(runs_dir: Path) -> None:
    app = open_one_step(runs_dir, t=10, tab="One pixel", row=3, column=12)
    data = component_data(app, "pixel")
    assert data["at"] == [3, 12]
    assert [panel["title"] for panel in data["panels"]][1:] == ["Gradient", "Gradient, logarithmic"]


def test_at_pure_noise_the_velocity_still_says_something_of_the_image(runs_dir: Path) -> None:
    schedule = {"kind": "linear", "timesteps": 20, "rescale_zero_terminal_snr": True}
    config = tiny(prediction_type="v_prediction", schedule=schedule)
    write_run(runs_dir, "zero", 20, config=config)
    app = open_page("one_step.py", t=19)
    assert app.metric[3].value != "not finite" and not app.error


@pytest.mark.parametrize("tab", ["Prediction", "One pixel", "One step back"])
def test_a_run_that_has_diverged_gets_a_sentence(runs_dir: Path, tab: str) -> None:
    write_checkpoint(write_run(runs_dir, "diverged"), 20, tiny(), mean=float("nan"))
    app = open_page("one_step.py", t=5, tab=tab)
    assert "its training has diverged" in words(app)


@pytest.mark.long
@pytest.mark.parametrize("tab", ["Prediction", "Over t", "One pixel", "One step back"])
def test_classes_grey_images_and_the_lectures_network(runs_dir: Path, tab: str) -> None:
    classes = tiny(network_args=dict(tiny().network_args) | {"num_classes": 3}, label_dropout=0.1)
    write_run(runs_dir, "classes", 20, config=classes)
    app = open_page("one_step.py", tab=tab, label="bus", guidance=2.0)
    assert not app.error and "is left out" not in words(app)
    grey = tiny(network_args=dict(tiny().network_args) | {"channels": 1}, data="digits", channels=1)
    write_run(runs_dir, "grey", 20, config=grey)
    assert not open_page("one_step.py", tab=tab, run="grey").error
    write_run(runs_dir, "lecture", 20, config=LECTURE)
    assert not open_page("one_step.py", tab=tab, run="lecture", t=3).error


def test_without_a_checkpoint_the_page_says_what_is_missing(runs_dir: Path) -> None:
    assert "No run has a checkpoint yet." in words(open_page("one_step.py"))
