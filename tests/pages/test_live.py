"""The Live page: which runs it offers, what the browser is told, and what links set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from diffusion_core.runs.config import RunConfig
from tests.pages.app import component_data, open_page, words
from tests.tiny_runs import CLASSES, LECTURE, TINY, tiny, write_run


def live(app: AppTest) -> dict[str, Any]:
    return component_data(app, "live")


def test_without_a_run_that_fits_the_page_says_what_to_do(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", 4, config=LECTURE)
    app = open_page("live.py")
    assert "Start one with the preset tiny on the Training page" in words(app)
    assert "lecture: The engine in the browser does not have the layers" in words(app)
    assert not app.get("bidi_component")


def test_the_browser_is_told_the_model_and_what_it_can_be_asked(runs_dir: Path) -> None:
    write_run(runs_dir, "tiny", 4)
    write_run(runs_dir, "lecture", 4, config=LECTURE)
    app = open_page("live.py")
    data = live(app)
    assert data["address"].startswith("models/")
    assert data["classes"] == {"any class": None} | {name: k for k, name in enumerate(CLASSES)}
    assert data["samplers"]["dpmpp_2m"] == "DPM-Solver++ 2M"
    assert data["steps"] == [1, 2, 3, 4, 5, 8, 10, 15, 20]  # of 20 timesteps
    assert data["settings"] == {
        "label": "any class",
        "seed": 0,
        "other": 1,
        "angle": 0,
        "sampler": "dpmpp_2m",
        "steps": 20,
        "guidance": 1.0,
        "engine": "fastest",
    }
    assert app.selectbox(key="run").options == ["tiny"]
    assert "lecture: The engine in the browser" in words(app)


def test_a_link_sets_everything(runs_dir: Path) -> None:
    write_run(runs_dir, "tiny", 4)
    app = open_page(
        "live.py",
        label="bus",
        seed=7,
        other=9,
        angle=120,
        sampler="ddim",
        steps=5,
        guidance=2.5,
        engine="WebGL2",
    )
    assert live(app)["settings"] == {
        "label": "bus",
        "seed": 7,
        "other": 9,
        "angle": 120,
        "sampler": "ddim",
        "steps": 5,
        "guidance": 2.5,
        "engine": "graphics",
    }


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ({"seed": -1}, "Seed is -1; it must be from 0"),
        ({"sampler": "euler"}, "Sampler is 'euler'; it must be one of"),
        ({"steps": 50}, "Steps is '50'; it must be one of"),
        ({"label": "tram"}, "Class is 'tram'; it must be one of"),
        ({"angle": 1e9}, "Angle is 1000000000; it must be from 0 to 360"),
        ({"guidance": "nan"}, "Guidance scale is 'nan'; it must be a number from 0 to 8"),
    ],
)
def test_what_a_link_cannot_set_is_left_out(
    link: dict[str, object], sentence: str, runs_dir: Path
) -> None:
    write_run(runs_dir, "tiny", 4)
    app = open_page("live.py", **link)
    assert sentence in words(app)
    [name] = link
    assert live(app)["settings"][name] == live(open_page("live.py"))["settings"][name]


def test_a_distilled_run_begins_with_its_sampler_and_two_steps(runs_dir: Path) -> None:
    config = TINY.replace(objective="consistency", init_from="teacher", min_snr_gamma=0.0)
    write_run(runs_dir, "quick", 4, config=config)
    data = live(open_page("live.py"))
    assert data["samplers"] == {"consistency": "Consistency"}
    assert (data["settings"]["sampler"], data["settings"]["steps"]) == ("consistency", 2)


@pytest.mark.parametrize(
    ("config", "classes", "guides"),
    [
        (tiny(), [], False),
        (tiny(network_args=TINY.network_args, label_dropout=0.0), list(CLASSES), False),
    ],
    ids=["no classes", "always a class"],
)
def test_only_what_the_network_has_learned_is_offered(
    config: RunConfig, classes: list[str], guides: bool, runs_dir: Path
) -> None:
    write_run(runs_dir, "tiny", 4, config=config)
    data = live(open_page("live.py"))
    assert list(data["classes"]) == classes
    assert data["guides"] is guides
