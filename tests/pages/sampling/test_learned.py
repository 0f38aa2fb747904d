"""Learned timesteps on the Sampling page, and what is suggested from measured results."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.sampling import controls
from dashboard.sampling.sharing import link
from diffusion_core.runs.run import Run
from diffusion_core.sampling.learned import LearnedTimesteps, learned_path, write_learned
from tests.pages.app import buttons, figures, generate, open_page, press, words
from tests.pages.sampling.test_restore import SPEC, drop, image_of
from tests.tiny_runs import write_run

TIMESTEPS = (18.5, 9.25, 2.0)
OTHERS = (17.0, 8.125, 1.5)
FROM_ELSEWHERE = "The timesteps come from the link or the file, not from this run."


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


@pytest.fixture
def learned(run: Path) -> LearnedTimesteps:
    """Of dpmpp_2m in 3 steps."""
    checkpoint = Run(run).checkpoint(20)
    found = LearnedTimesteps(
        step=20,
        checkpoint_time=checkpoint.time,
        sampler="dpmpp_2m",
        steps=3,
        prediction_type=checkpoint.config.prediction_type,
        timesteps=TIMESTEPS,
        error=0.1,
        usual_errors={"trailing": 0.2, "karras": 0.3},
        written=time.time(),
    )
    write_learned(run, found)
    return found


def spacing(app: AppTest) -> str:
    return app.selectbox(key="spacing").value


def set_steps(app: AppTest, steps: int) -> AppTest:
    app.number_input(key="steps").set_value(steps).run()
    assert not app.exception
    return app


def test_learned_spacing_is_chosen_where_it_exists_and_only_there(
    learned: LearnedTimesteps,
) -> None:
    app = open_page("sampling.py", n=1)
    assert spacing(app) == "trailing" and "learned" not in app.selectbox(key="spacing").options
    assert spacing(set_steps(app, 3)) == "learned"
    assert app.query_params["spacing"] == "learned"
    assert "0.1, compared with 0.2 for trailing spacing, on noise" in words(app)
    assert "Learned without guidance" in words(app)
    [figure] = [text for each in figures(app) if "learned" in (text := each["figure"])]
    rows = {curve["y"][0]: curve["x"] for curve in json.loads(figure)["data"]}
    assert rows["learned"] == list(TIMESTEPS) and rows["trailing"] == [19, 12, 6]
    job = generate(app)
    assert (job.spec.spacing, job.spec.timesteps) == ("learned", TIMESTEPS)
    assert spacing(set_steps(app, 4)) == "trailing"
    assert generate(app).spec.timesteps == ()
    app.selectbox(key="sampler").set_value("heun").run()
    assert spacing(app) == "karras"
    assert spacing(set_steps(app, 3)) == "karras"


def test_another_spacing_that_was_chosen_stays(learned: LearnedTimesteps) -> None:
    app = set_steps(open_page("sampling.py", n=1), 3)
    app.selectbox(key="spacing").set_value("leading").run()
    assert spacing(set_steps(set_steps(app, 4), 3)) == "leading"
    assert generate(app).spec.timesteps == ()


def test_a_link_gives_its_own_timesteps_whatever_the_run_has_learned(
    run: Path, learned: LearnedTimesteps
) -> None:
    spec = SPEC.replace(
        run="cars", sampler="dpmpp_2m", steps=3, spacing="learned", timesteps=OTHERS
    )
    address = link(spec)
    settings: dict[str, Any] = {
        name: values[0] for name, values in parse_qs(address.split("?")[1]).items()
    }
    assert settings["timesteps"] == "17,8.125,1.5"
    app = open_page("sampling.py", **settings)
    assert generate(app).spec == spec
    assert FROM_ELSEWHERE in words(app)
    press(app, "Use the run's own timesteps")
    assert "timesteps" not in app.query_params and FROM_ELSEWHERE not in words(app)
    assert generate(app).spec == spec.replace(timesteps=TIMESTEPS)
    # Also where the run has none.
    learned_path(run, 20, learned.way).unlink()
    app = open_page("sampling.py", **settings)
    assert generate(app).spec == spec and "Use the run's own timesteps" not in buttons(app)
    set_steps(app, 4)
    assert "timesteps" not in app.query_params and spacing(app) == "trailing"


@pytest.mark.parametrize(
    "text", ["", "x", "9,9,2", "25,9,2", "9,2,-1", "nan,2,1", "1e999,2,1", "1," * 300]
)
def test_timesteps_of_a_link_are_falling_numbers_of_the_schedule(text: str) -> None:
    control = controls.TIMESTEPS.now(high=19)
    assert control.problem(control.of_text("19,8.125,0")) == ""
    assert "must be up to 100 falling numbers from 19 to 0" in control.problem(
        control.of_text(text)
    )


@pytest.mark.parametrize("text", ["25,9,2", "9"])
def test_a_link_with_timesteps_that_cannot_be_used_opens_the_page_without_them(
    run: Path, text: str
) -> None:
    app = open_page("sampling.py", steps=3, spacing="learned", timesteps=text)
    assert spacing(app) == "trailing" and "timesteps" not in app.query_params
    assert generate(app).spec.timesteps == ()


def test_an_image_brings_its_timesteps_back(learned: LearnedTimesteps) -> None:
    spec = SPEC.replace(
        run="cars", sampler="dpmpp_2m", steps=3, spacing="learned", timesteps=OTHERS
    )
    app = drop(open_page("sampling.py", sampler="unipc"), image_of(spec))
    assert generate(app).spec == spec
    other = spec.replace(sampler="ddim", steps=5, spacing="trailing", timesteps=())
    drop(app, image_of(other))
    assert "timesteps" not in app.query_params and generate(app).spec == other


def test_rows_have_learned_timesteps_where_there_are_some(learned: LearnedTimesteps) -> None:
    app = open_page("sampling.py", mode="Compare", vs_n="1", vs_steps=["3", "4"])
    set_steps(app, 3)
    rows = generate(app, "Generate 2 rows", "compare").result.rows
    assert [row.spec.timesteps for row in rows] == [TIMESTEPS, ()]
    assert [row.spec.spacing for row in rows] == ["learned", "trailing"]
    app = open_page(
        "sampling.py", mode="Compare", vs_n="1", steps=3, vs_spacing=["learned", "trailing"]
    )
    rows = generate(app, "Generate 2 rows", "compare").result.rows
    assert [row.spec.timesteps for row in rows] == [TIMESTEPS, ()]
    app = open_page(
        "sampling.py", mode="Compare", vs_n="1", steps=4, vs_spacing=["learned", "trailing"]
    )
    assert "No timesteps were learned for dpmpp_2m in 4 steps" in words(app)
