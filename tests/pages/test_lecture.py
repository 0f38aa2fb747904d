"""The lecture, followed: its steps on the pages, its questions, its progress in the address."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.explain.lecture_steps import STEPS
from dashboard.ui.navigation import entry
from diffusion_core.models.unet import SimpleUnet
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.sinusoids import cosine_similarity, sinusoids
from tests.pages.app import open_page, words

NUMBERS = range(1, len(STEPS) + 1)
WRONG: dict[int, float | str] = {
    1: 127,
    2: 150,
    3: 0.05,
    4: "on their product",
    5: 1024,
    6: 0.5,
    7: "a variance of β₀",
}


def open_step(number: int, **address: str) -> AppTest:
    step = STEPS[number - 1]
    return open_page(step.file, **{**step.settings, "lecture": str(number), **address})


def give(app: AppTest, number: int, answer: float | str) -> AppTest:
    if isinstance(answer, str):
        app.radio(key=f"answer-{number}").set_value(answer).run()
    else:
        app.number_input(key=f"answer-{number}").set_value(answer).run()
    assert not app.exception
    return app


def messages(app: AppTest) -> str:
    return "\n".join(each.value for each in (*app.success, *app.warning))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_step_is_on_its_page_and_checks_the_answer(number: int) -> None:
    app = open_step(number)
    assert f"Lecture, step {number} of 7" in words(app)
    assert "is left out" not in words(app)  # the page takes all of the step's settings
    assert not app.get("exception")
    give(app, number, WRONG[number])
    assert f"Not yet. {STEPS[number - 1].question.hint}" in messages(app)
    assert "answered" not in app.query_params
    give(app, number, STEPS[number - 1].question.answer)
    assert f"Correct. {STEPS[number - 1].question.why}" in messages(app)
    assert app.query_params["answered"] == str(number)


def test_progress_comes_with_a_link_and_goes_on_in_it() -> None:
    app = give(open_step(2, answered="1-7"), 2, 143)
    assert app.query_params["answered"] == "1-2-7"
    overview = open_page("lecture.py", answered="1-2-7")
    assert "3 of 7 questions answered." in overview.get("progress")[0].proto.text
    labels = [each.proto.label for each in overview.get("page_link")]
    assert labels[0] == "Go on with step 3: Noising"
    assert [label.endswith("(answered)") for label in labels[1:]] == [
        number in (1, 2, 7) for number in NUMBERS
    ]


def test_all_questions_answered() -> None:
    app = open_page("lecture.py", answered="1-2-3-4-5-6-7")
    assert "You have answered all questions." in messages(app)


@pytest.mark.parametrize("odd", ["0", "8", "-1", "x", "", "1e9", "２", "1" * 5000])
def test_an_address_that_names_no_step_shows_the_page_alone(odd: str) -> None:
    app = open_page("schedule.py", lecture=odd, answered=odd)
    assert "Lecture, step" not in words(app)


def test_a_step_is_not_shown_on_another_page() -> None:
    assert "Lecture, step" not in words(open_page("schedule.py", lecture="3"))


def test_the_answers_are_those_of_the_core() -> None:
    answers = [step.question.answer for step in STEPS]
    schedule = NoiseSchedule("linear", 300)
    assert answers[0] == 16_130 // 128
    assert answers[1] == int(np.flatnonzero(schedule.log_snr.numpy() < 0)[0])
    assert answers[2] == round(float(schedule.sqrt_alphas_cumprod[299]), 2)
    similarity = cosine_similarity(sinusoids([3, 10, 103, 110], 32))
    assert similarity[0, 1] == pytest.approx(similarity[2, 3], abs=1e-5)
    assert similarity[0, 2] != pytest.approx(similarity[0, 1], abs=1e-2)
    with torch.device("meta"):
        assert answers[4] == SimpleUnet().state_dict()["ups.0.conv1.weight"].shape[1]
    assert answers[5] == round(math.sqrt(2 / math.pi), 1)
    assert answers[6] == "none"
    assert float(schedule.posterior_variance[0]) == 0


def test_the_code_of_all_steps_runs_one_after_the_other() -> None:
    names: dict[str, Any] = {}
    for step in STEPS[:-1]:
        exec(step.code, names)
    assert tuple(names["x_t"].shape) == tuple(names["epsilon"].shape) == (1, 3, 64, 64)


def test_every_step_has_a_page() -> None:
    assert [entry(step.file).title for step in STEPS] == [
        "Data",
        "Schedule",
        "Noising",
        "Embedding",
        "Network",
        "Training",
        "Sampling",
    ]
