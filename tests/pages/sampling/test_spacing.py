"""The step spacing of the Sampling page follows the sampler, and what diverges is said before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.app import generate, open_page, words
from tests.pages.sampling.test_restore import SPEC, drop, image_of
from tests.tiny_runs import write_run

DIVERGES = "heun diverges on this schedule with trailing spacing and 4 steps"
MODES = ["Generate", "Interpolate", "Batch", "Compare"]


@pytest.fixture(autouse=True)
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


def choose(app: AppTest, key: str, value: Any) -> str:
    """Choose in a list, and return the spacing that is shown then."""
    app.selectbox(key=key).set_value(value).run()
    assert not app.exception
    return app.selectbox(key="spacing").value


def test_a_sampler_brings_its_usual_spacing_and_the_address_says_it() -> None:
    app = open_page("sampling.py", n=1)
    assert choose(app, "sampler", "heun") == "karras"
    assert app.query_params["spacing"] == "karras"
    assert "heun diverges" not in words(app)
    assert generate(app).spec.spacing == "karras"
    assert choose(app, "sampler", "lms") == "trailing"
    assert "spacing" not in app.query_params


def test_a_spacing_that_was_chosen_stays() -> None:
    app = open_page("sampling.py")
    choose(app, "spacing", "exponential")
    assert choose(app, "sampler", "heun") == "exponential"
    assert choose(app, "spacing", "trailing") == "trailing"
    assert choose(app, "sampler", "ddim") == "trailing"


def test_links_and_files_that_leave_the_spacing_out_mean_trailing() -> None:
    app = open_page("sampling.py", sampler="heun", steps=4)
    assert app.selectbox(key="spacing").value == "trailing"
    assert DIVERGES in words(app)
    spec = SPEC.replace(sampler="heun")
    app = drop(open_page("sampling.py", sampler="unipc"), image_of(spec))
    assert generate(app).spec == spec


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_says_what_diverges_before_it_is_generated(mode: str) -> None:
    rows = {"vs_seed": ["1", "2"]} if mode == "Compare" else {}
    app = open_page("sampling.py", mode=mode, sampler="heun", steps=4, **rows)
    [warning] = [each.value for each in app.warning]
    assert warning.startswith(DIVERGES)
    assert "Use leading spacing." in warning
    choose(app, "spacing", "leading")
    assert not app.warning


def test_rows_of_samplers_are_spaced_as_usual_for_each() -> None:
    app = open_page("sampling.py", mode="Compare", vs_n="1")
    app.multiselect(key="vs_sampler").set_value(["dpmpp_2m", "heun"]).run()
    assert app.multiselect(key="vs_spacing").value == ["usual"]
    rows = generate(app, "Generate 2 rows", "compare").result.rows
    assert [row.spec.spacing for row in rows] == ["trailing", "karras"]
    app.multiselect(key="vs_spacing").set_value(["usual", "leading"]).run()
    rows = generate(app, "Generate 4 rows", "compare").result.rows
    assert [row.spec.spacing for row in rows] == ["trailing", "leading", "karras", "leading"]


def test_rows_stay_as_above_where_the_spacing_was_chosen_or_a_link_says_nothing() -> None:
    app = open_page("sampling.py", mode="Compare", spacing="leading")
    app.multiselect(key="vs_sampler").set_value(["dpmpp_2m", "heun"]).run()
    assert [each.key for each in app.multiselect] == ["vs_sampler"]
    app = open_page("sampling.py", mode="Compare", vs_n="1", vs_sampler=["dpmpp_2m", "heun"])
    rows = generate(app, "Generate 2 rows", "compare").result.rows
    assert [row.spec.spacing for row in rows] == ["trailing", "trailing"]
