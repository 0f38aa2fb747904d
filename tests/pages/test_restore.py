"""A downloaded picture dropped on the Sampling page sets the controls as they were for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from diffusion_core.order import ANY_CLASS, EACH_IN_TURN, Order
from diffusion_core.picture_settings import entries
from diffusion_core.pictures import png
from tests.pages.app import open_page
from tests.pages.test_sampling import draw, words
from tests.tiny_runs import CLASSES, LECTURE, TINY, write_checkpoint, write_run

ORDER = Order("cars", 20, 3, steps=4, seed=5, classes=CLASSES, label=EACH_IN_TURN)


def picture_of(order: Order, number: int | None = None) -> bytes:
    return png(np.zeros((4, 4, 3), np.uint8), text=entries(order, number))


def drop(app: AppTest, content: bytes, name: str = "picture.png") -> AppTest:
    app.file_uploader[0].set_value((name, content, "image/png")).run()
    assert not app.exception
    return app


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


def test_a_picture_that_is_downloaded_and_dropped_is_drawn_again_to_the_pixel(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(run, 40)
    other = write_run(run.parent, "other", 20)
    app = open_page(
        "sampling.py",
        **{"run": "cars", "step": 20, "sampler": "ddim", "eta": 0.5, "steps": 3, "n": 2, "seed": 5},
        **{"label": "coupé", "guidance": 2.5, "negative": "van", "guided": ["3", "15"]},
        spacing="linspace",
    )
    files = {}
    with monkeypatch.context() as patched:
        patched.setattr(st, "download_button", lambda _, data, **more: files.update({_: data}))
        job = draw(app)
    assert job.order.guidance_interval == (3.0, 15.0) and job.order.negative == "van"
    for label, what in (("Grid as PNG", "The grid"), ("This picture as PNG", "Picture 1")):
        dropped = drop(open_page("sampling.py", run=other.name, seed=1), files[label])
        assert f"{what} is of cars at step 20: 2 pictures, ddim, 3 steps" in words_of(dropped)
        again = draw(dropped)
        assert again.order == job.order
        assert np.array_equal(again.snapshot().now.x_t, job.snapshot().now.x_t)


def words_of(app: AppTest) -> str:
    return "\n".join([words(app), *(each.value for each in app.success)])


@pytest.mark.parametrize(
    "order",
    [
        ORDER,
        replace(ORDER, sampler="heun", label="bus", spacing="karras"),
        replace(ORDER, sampler="ddpm", steps=20, label=ANY_CLASS),
        replace(ORDER, label="van", guidance_scale=3.0),
    ],
)
def test_every_setting_comes_back_over_others_that_were_chosen(run: Path, order: Order) -> None:
    app = open_page("sampling.py", seed=9, n=7, spacing="leading", eta=0.3, label="coupé")
    app = drop(app, picture_of(order, 2))
    assert draw(app).order == order
    assert app.number_input(key="picture").value == 3


def test_a_drawing_as_the_lecture_does_comes_back(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", 25, config=LECTURE)
    order = Order("lecture", 25, 1, "ddpm", 6, as_lecture=True)
    assert draw(drop(open_page("sampling.py"), picture_of(order))).order == order


def test_more_pictures_than_one_drawing_has_lead_to_the_mode_many(run: Path) -> None:
    app = drop(open_page("sampling.py"), picture_of(replace(ORDER, n=100), 70))
    assert app.session_state["mode"] == "Many"
    assert app.number_input(key="many").value == 100
    assert app.query_params["many"] == "100"
    assert "Picture 71 is of cars at step 20: 100 pictures" in words_of(app)


def test_a_checkpoint_that_is_gone_is_said_and_the_newest_is_chosen(run: Path) -> None:
    app = drop(open_page("sampling.py", step=20), picture_of(replace(ORDER, step=7)))
    assert "That checkpoint is not here any more; the newest is chosen" in words_of(app)
    assert app.selectbox(key="step").value == "latest"
    assert draw(app).order == ORDER


AGAIN = "The picture was drawn from another run that was called cars too."
UNFIT = [
    (replace(ORDER, run="boats"), "The picture was drawn from the run boats, which is not here."),
    (replace(ORDER, classes=("van",), label="van"), AGAIN),
    (replace(ORDER, steps=21), AGAIN),
    (replace(ORDER, average="short"), AGAIN),
    (replace(ORDER, as_lecture=True, sampler="ddpm"), AGAIN),
    (
        replace(ORDER, label="van", guidance_scale=9.0),
        "The picture has guidance 9, and this page goes from 1 to 8.",
    ),
    (
        replace(ORDER, label="van", guidance_scale=2.0, guidance_interval=(0.0, 99.0)),
        "The picture's guided timesteps are none that this page can set.",
    ),
]
PIXELS = np.zeros((4, 4, 3), np.uint8)
NO_SETTINGS = [
    (b"", "The file is no PNG picture; settings are only in those."),
    (png(PIXELS, text={"diffusion_lab": "{"}), "The settings in the picture are damaged."),
    (
        png(PIXELS),
        "The picture carries no settings. Those downloaded from this page do, unless another "
        "program has saved them anew.",
    ),
]


def test_what_cannot_be_restored_changes_nothing_and_says_why_once(run: Path) -> None:
    app = open_page("sampling.py", seed=3)
    files = [(picture_of(order), sentence) for order, sentence in UNFIT]
    for content, sentence in [*files, *NO_SETTINGS]:
        assert [error.value for error in drop(app, content).error] == [sentence]
        assert app.number_input(key="seed").value == 3
    assert not app.run().error


def test_any_class_is_refused_where_the_network_never_learned_it(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20, config=TINY.replace(label_dropout=0.0))
    app = drop(open_page("sampling.py"), picture_of(replace(ORDER, label=ANY_CLASS)))
    assert app.error[0].value == AGAIN


def test_a_viewer_is_told_of_more_pictures_than_are_drawn_here(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = drop(open_page("sampling.py"), picture_of(replace(ORDER, n=4096)))
    assert "The picture is of 4,096, and here 256 at most are drawn." in app.error[0].value
