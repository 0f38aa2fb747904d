"""A downloaded image dropped on the Sampling page sets the controls as they were for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.services.sampling_job import SamplingJob
from dashboard.ui.outside import plain
from diffusion_core.media.images import png
from diffusion_core.sampling.metadata import Kind, entries
from diffusion_core.sampling.spec import ANY_CLASS, EACH_IN_TURN, SamplingSpec
from tests.pages.app import generate, open_page, words
from tests.tiny_runs import CLASSES, LECTURE, TINY, tiny, write_checkpoint, write_run

SPEC = SamplingSpec(
    run="cars",
    step=20,
    n=3,
    steps=4,
    seed=5,
    classes=CLASSES,
    label=EACH_IN_TURN,
)


def image_of(
    spec: SamplingSpec, number: int | None = None, kind: Kind | None = None, page: Any = None
) -> bytes:
    return png(np.zeros((4, 4, 3), np.uint8), text=entries(spec, number, page=page, kind=kind))


def drop(app: AppTest, content: bytes, name: str = "image.png") -> AppTest:
    app.file_uploader[0].set_value((name, content, "image/png")).run()
    assert not app.exception
    return app


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


def test_an_image_that_is_downloaded_and_dropped_is_generated_again_to_the_pixel(
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
        job = generate(app)
    assert job.spec.guidance_interval == (3.0, 15.0) and job.spec.negative == "van"
    for label, what in (("Grid as PNG", ""), ("This image as PNG", "image 1 of ")):
        dropped = drop(open_page("sampling.py", run=other.name, seed=1), files[label])
        assert f"Settings restored: {what}cars at step 20: 2 images, ddim, 3 steps" in words(
            dropped
        )
        again = generate(dropped)
        assert again.spec == job.spec
        assert np.array_equal(again.snapshot().now.x_t, job.snapshot().now.x_t)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SPEC.replace(sampler="heun", label="bus", spacing="karras"),
        SPEC.replace(sampler="ddpm", steps=20, label=ANY_CLASS),
        SPEC.replace(label="van", guidance_scale=3.0),
        SPEC.replace(exact=True),
    ],
)
def test_every_setting_comes_back_over_others_that_were_chosen(
    run: Path, spec: SamplingSpec
) -> None:
    app = open_page("sampling.py", seed=9, n=7, spacing="leading", eta=0.3, label="coupé")
    app = drop(app, image_of(spec, 2))
    assert generate(app).spec == spec
    assert app.number_input(key="picture").value == 3


def test_a_value_that_was_the_default_before_comes_back_where_the_default_is_another(
    runs_dir: Path,
) -> None:
    write_run(runs_dir, "cars", 20, config=TINY.replace(schedule={"timesteps": 60}))
    app = open_page("sampling.py")
    assert app.number_input(key="steps").value == 20
    app = drop(app, image_of(SPEC.replace(sampler="ddpm", steps=20)))
    assert app.number_input(key="steps").value == 20


def test_sampling_as_the_lecture_does_comes_back(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", 25, config=LECTURE)
    spec = SamplingSpec(run="lecture", step=25, n=1, sampler="ddpm", steps=6, as_lecture=True)
    assert generate(drop(open_page("sampling.py"), image_of(spec))).spec == spec


def test_more_images_than_the_mode_generate_takes_lead_to_the_mode_batch(run: Path) -> None:
    app = drop(open_page("sampling.py"), image_of(SPEC.replace(n=100), 70))
    assert app.session_state["mode"] == "Batch"
    assert app.number_input(key="many").value == 100
    assert app.query_params["many"] == "100"
    assert "image 71 of cars at step 20: 100 images" in words(app)


def test_a_checkpoint_that_is_gone_is_said_and_the_newest_is_chosen(run: Path) -> None:
    app = drop(open_page("sampling.py", step=20), image_of(SPEC.replace(step=7)))
    assert "That checkpoint no longer exists; the newest one" in words(app)
    assert app.selectbox(key="step").value == "latest"
    assert generate(app).spec == SPEC


# ---------------------------------------------------------------- what is no grid, and other modes


@pytest.fixture
def modes_run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20, config=tiny(network_args=TINY.network_args))


def keep_downloads(patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    patched.setattr(st, "download_button", lambda _, data, **more: files.update({_: data}))
    return files


def test_a_strip_is_not_called_the_same_but_said_to_stand_below_the_images(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("sampling.py", run="cars", steps=3, n=4, seed=5, picture=3, label="van")
    with monkeypatch.context() as patched:
        files = keep_downloads(patched)
        generate(app)
    dropped = drop(open_page("sampling.py"), files["This strip as PNG"])
    assert [each.value for each in dropped.success] == [
        "Settings restored: image 3 of cars at step 20: 4 images, dpmpp_2m, 3 steps, seed 5, van. "
        "The strip appears below the generated images."
    ]
    generate(dropped)
    assert dropped.number_input(key="picture").value == 3


@pytest.mark.parametrize(
    ("number", "kind", "end"),
    [
        (None, Kind.FILM, ". The film appears below the generated images."),
        (2, Kind.FILM, ". The film appears below the generated images."),
        (None, Kind.OTHER, "each class in turn."),
    ],
)
def test_a_film_or_what_nobody_knows_is_not_called_the_same(
    run: Path, number: int | None, kind: Kind, end: str
) -> None:
    app = drop(open_page("sampling.py"), image_of(SPEC, number, kind))
    [said] = [each.value for each in app.success]
    assert said.endswith(end) and "the same" not in said
    assert generate(app).spec == SPEC


# The page's settings, the button, the name of the job, and the download.
MODES = [
    (
        {"mode": "Compare", "vs_n": 2, "vs_sampler": ["ddpm", "heun"], "vs_seed": "77"},
        ("Generate 2 rows", "compare", "All rows as PNG"),
    ),
    (
        {"mode": "Compare", "vs_run": ["cars", "other"], "vs_guidance": ["2.0"], "step": 20},
        ("Generate 2 rows", "compare", "All rows as PNG"),
    ),
    (
        {"mode": "Edit", "strength": 0.75, "variants": 3, "example": 7},
        ("Vary", "edit", "All as PNG"),
    ),
    (
        {"mode": "Edit", "edit": "Repaint", "area": "left half", "resample": 2},
        ("Repaint", "edit", "This variant as PNG"),
    ),
    (
        {"mode": "Edit", "edit": "Invert", "example": 3},
        ("Invert and reconstruct", "edit", "All four as PNG"),
    ),
    (
        {"mode": "Interpolate", "from_picture": 2, "to_picture": 5, "to_seed": 9, "frames": 3},
        ("Generate film", "interpolate", "All frames as PNG"),
    ),
]


@pytest.mark.parametrize(("settings", "names"), MODES)
def test_each_mode_comes_back_and_generates_the_same(
    modes_run: Path, monkeypatch: pytest.MonkeyPatch, settings: dict, names: tuple[str, str, str]
) -> None:
    label, key, download = names
    write_checkpoint(modes_run, 30, tiny(network_args=TINY.network_args))
    write_run(modes_run.parent, "other", 40, config=tiny(network_args=TINY.network_args))
    common = {"run": "cars", "step": 20, "steps": 3, "seed": 5, "label": "bus"}
    with monkeypatch.context() as patched:
        files = keep_downloads(patched)
        before = generate(open_page("sampling.py", **common | settings), label, key)
    dropped = drop(open_page("sampling.py", run="other", seed=1), files[download])
    [said] = [each.value for each in dropped.success]
    assert dropped.session_state["mode"] == settings["mode"]
    assert "cars at step 20" in said and said.endswith("Generating gives the same result.")
    for name in settings.keys() - {"step"}:  # the address is a link to it
        assert name in dropped.query_params, name
    again = generate(dropped, label, key)
    assert again.snapshot().state == "done", again.snapshot().sentence
    assert again.task.text == before.task.text and again.spec == before.spec
    for one, other in zip(images_of(again), images_of(before), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("settings", "names"), MODES)
def test_a_link_to_a_result_generates_the_same(
    modes_run: Path, settings: dict, names: tuple[str, str, str]
) -> None:
    label, key, _ = names
    write_checkpoint(modes_run, 30, tiny(network_args=TINY.network_args))
    write_run(modes_run.parent, "other", 40, config=tiny(network_args=TINY.network_args))
    common = {"run": "cars", "step": 20, "steps": 3, "seed": 5, "label": "bus"}
    app = open_page("sampling.py", **common | settings)
    before = generate(app, label, key)
    [address] = [each.value for each in app.code if each.value.startswith("?")]
    linked = parse_qs(address.removeprefix("?"))
    assert "n" not in linked and "drawn_at" not in linked
    opened = open_page("sampling.py", **linked)
    assert "left out" not in words(opened)
    again = generate(opened, label, key)
    assert again.task.text == before.task.text and again.spec == before.spec
    for one, other in zip(images_of(again), images_of(before), strict=True):
        assert np.array_equal(one, other)


def images_of(job: SamplingJob) -> list[np.ndarray]:
    made = job.result
    if hasattr(made, "rows"):
        return [row.images for row in made.rows]
    return [made.frames if hasattr(made, "frames") else made.images]


EDITED = {"mode": "Edit", "edit": "Vary", "strength": 0.5}
REPAINTED = {"mode": "Edit", "edit": "Repaint", "area": "by hand", "resample": 2}
COMPARED = {"mode": "Compare", "vs_n": 2}
AGAIN_IMAGE = "The image that it started from is not part of them; choose it again."
LOST: list[tuple[dict[str, Any], str]] = [
    (EDITED | {"from": "upload"}, AGAIN_IMAGE),
    (EDITED, AGAIN_IMAGE),  # one that was generated before
    (
        REPAINTED | {"from": "data set", "example": 1},
        "The painted area is not part of them; paint it again.",
    ),
    (
        COMPARED | {"vs_run": ["cars", "gone"], "vs_seed": [1, 2]},
        "Some of the compared values no longer exist and are left out.",
    ),
    (
        COMPARED | {"vs_run": ["cars", "other"], "drawn_at": {"cars": 20, "other": 39}},
        "other has a newer checkpoint than this image was made with.",
    ),
    (
        {"mode": "Tomorrow's", "x": 1},
        "It was made in a mode that this version does not have.",
    ),
]


def test_what_a_file_cannot_bring_back_is_said(modes_run: Path) -> None:
    write_run(modes_run.parent, "other", 40, config=tiny(network_args=TINY.network_args))
    for page, sentence in LOST:
        app = drop(open_page("sampling.py", run="cars"), image_of(SPEC, None, Kind.OTHER, page))
        what = SPEC.describe()
        if page["mode"] == "Compare":
            what = "a comparison by cars at step 20"
        said = f"Settings restored: {what}. {sentence}"
        assert [each.value for each in app.warning] == [said]
        assert app.session_state["mode"] == page["mode"].replace("Tomorrow's", "Generate")
        assert not app.success


@pytest.mark.parametrize(("written", "fit"), [({}, "squash"), ({"fit": "fit"}, "pad")])
def test_an_upload_is_resized_as_when_the_file_was_made(
    modes_run: Path, written: dict[str, str], fit: str
) -> None:
    page = EDITED | {"from": "upload"} | written
    app = drop(open_page("sampling.py", run="cars"), image_of(SPEC, None, Kind.OTHER, page))
    assert app.segmented_control(key="fit").value == fit


FORGED = [
    (EDITED | {"strength": 7}, "Strength is 7; it must be from 0.05 to 1."),
    (EDITED | {"strength": float("nan")}, "Strength is nan; it must be from 0.05 to 1."),
    (EDITED | {"edit": ["Vary"]}, "Edit is a list; it must be one of Vary, Repaint, Invert."),
    (
        EDITED | {"from": "![](//evil.example)"},
        r"Image from is '![](//evil.example)'; it must be one of data set, generated, upload, "
        "camera.",
    ),
    (
        EDITED | {"from": "data set", "example": -1},
        "Number in the data set is -1; it must be from 0 to 2,147,483,647.",
    ),
    (
        REPAINTED | {"area": "everything"},
        "Area to repaint is 'everything'; it must be one of by hand, left half, right half, "
        "upper half, lower half, centre.",
    ),
    (
        REPAINTED | {"resample": 10**9},
        "Resampling passes per step is 1000000000; it must be from 1 to 20.",
    ),
    (
        {"mode": "Interpolate", "frames": True},
        "Frames is true; it must be a whole number from 2 to 64.",
    ),
    (
        {"mode": "Interpolate", "to_seed": 2**53},
        "To seed is 9007199254740992; it must be from 0 to 9,007,199,254,740,991.",
    ),
    (
        {"mode": "Interpolate", "from_picture": "2"},
        "From image is '2'; it must be a whole number from 1 to 4,096.",
    ),
    (COMPARED | {"vs_n": 9}, "Images per row is 9; it must be from 1 to 8."),
    (COMPARED | {"vs_seed": list(range(7))}, "Seed must be a list of at most 6."),
    (
        COMPARED | {"vs_steps": [[5]]},
        "Steps is a list; it must be a whole number from 1 to 100,000.",
    ),
    (COMPARED | {"vs_run": {"cars": 1}}, "Run must be a list of at most 6."),
    (COMPARED | {"drawn_at": [1]}, "drawn_at must hold steps."),
]


def test_settings_of_a_mode_are_believed_in_nothing(modes_run: Path) -> None:
    app = open_page("sampling.py", seed=3)
    for page, sentence in FORGED:
        drop(app, image_of(SPEC, None, Kind.OTHER, page))
        assert [each.value for each in app.error] == [
            plain(f"The image's settings cannot be used. {sentence}")
        ]
        assert app.number_input(key="seed").value == 3
        assert app.session_state["mode"] == "Generate"
    beyond = EDITED | {"from": "data set", "example": 48}
    drop(app, image_of(SPEC, None, Kind.OTHER, beyond))
    assert "Number in the data set is 48; it must be from 0 to 47." in app.error[0].value
    drop(app, image_of(SPEC.replace(n=17), None, Kind.OTHER, EDITED))
    assert (
        app.error[0].value
        == "This page cannot restore the image. Variants is 17; it must be from 1 to 16."
    )
    # A key that no control has is left out, and values that are not offered raise nothing.
    page = COMPARED | {"run": "x", "seed": [], "vs_sampler": ["magic"], "vs_guidance": [1.3, 2]}
    drop(app, image_of(SPEC, None, Kind.OTHER, page))
    assert app.session_state["vs_guidance"] == [2.0] and app.session_state["vs_sampler"] == []
    assert app.number_input(key="seed").value == SPEC.seed


UNFIT = [
    (SPEC.replace(run="boats"), "The image's run, boats, does not exist here."),
    (
        SPEC.replace(classes=("van",), label="van"),
        "The image was not made with this cars. cars at step 20 has other classes: van, bus, "
        "coupé.",
    ),
    (
        SPEC.replace(steps=21),
        "The image was not made with this cars. cars at step 20 takes 1 to 20 steps, not 21.",
    ),
    (
        SPEC.replace(average="short"),
        "The image was not made with this cars. cars at step 20 has no averaged weights called "
        "'short'; it has main.",
    ),
    (
        SPEC.replace(as_lecture=True, sampler="ddpm"),
        "The image was not made with this cars. cars at step 20 cannot be sampled as the lecture "
        "does: that needs the lecture's network and images of more than 16 pixels.",
    ),
    # Of 16 pixels, which are too few for the lecture's BatchNorm.
    (
        SamplingSpec(run="small", step=20, n=1, sampler="ddpm", steps=6, as_lecture=True),
        "The image was not made with this small. small at step 20 cannot be sampled as the "
        "lecture does: that needs the lecture's network and images of more than 16 pixels.",
    ),
    (
        SPEC.replace(label="van", guidance_scale=9.0),
        "This page cannot restore the image. Guidance scale is 9; it must be from 1 to 8.",
    ),
    (
        SPEC.replace(label="van", guidance_scale=2.0, guidance_interval=(0.0, 99.0)),
        "The image was not made with this cars. The guidance interval is 0 to 99; it must end "
        "at 19 or before for cars at step 20.",
    ),
    (
        SPEC.replace(label="van", guidance_scale=2.0, guidance_interval=(0.5, 9.0)),
        "This page cannot restore the image. Guided timesteps is 0.5 and 9; it must be two "
        "whole numbers from 0 to 19, the smaller one first.",
    ),
]
PIXELS = np.zeros((4, 4, 3), np.uint8)
NO_SETTINGS = [
    (b"", "The file is no PNG image; only PNG files hold settings."),
    (png(PIXELS, text={"diffusion_lab": "{"}), "The settings in the image are damaged."),
    (
        png(PIXELS),
        "The image carries no settings. Those downloaded from this page do, unless another "
        "program has saved them again.",
    ),
]


def test_what_cannot_be_restored_changes_nothing_and_says_why_once(run: Path) -> None:
    write_run(run.parent, "small", 20, config=LECTURE.replace(image_size=16))
    app = open_page("sampling.py", seed=3)
    files = [(image_of(spec), sentence) for spec, sentence in UNFIT]
    for content, sentence in [*files, *NO_SETTINGS]:
        assert [error.value for error in drop(app, content).error] == [sentence]
        assert app.number_input(key="seed").value == 3
    assert not app.run().error


def test_any_class_is_refused_where_the_network_never_learned_it(runs_dir: Path) -> None:
    write_run(runs_dir, "cars", 20, config=TINY.replace(label_dropout=0.0))
    app = drop(open_page("sampling.py"), image_of(SPEC.replace(label=ANY_CLASS)))
    assert "was trained with the class always given; choose a class." in app.error[0].value


def test_a_viewer_is_told_of_more_images_than_are_generated_here(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = drop(open_page("sampling.py"), image_of(SPEC.replace(n=4096)))
    assert "The image is one of 4,096; at most 256 are possible here." in app.error[0].value
