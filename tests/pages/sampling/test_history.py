"""The results of a session: the gallery, the strip of earlier ones, what a link does not carry."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.components.gallery.gallery import Row, Tile
from dashboard.sampling import history
from dashboard.sampling.history import Result, face_of, within_bounds
from dashboard.ui import keys
from diffusion_core.sampling.metadata import Made, read
from diffusion_core.sampling.spec import SamplingSpec
from tests import image_files
from tests.pages.app import button, component_data, generate, open_page, press, words
from tests.tiny_runs import TINY, tiny, write_run


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20, config=tiny(network_args=TINY.network_args))


def file_of(address: str) -> bytes:
    return base64.b64decode(address.removeprefix("data:image/png;base64,"))


def strip(app: AppTest) -> list[tuple[str, str]]:
    """Title and text of each thumbnail."""
    shown = component_data(app, "thumbnails")["thumbnails"]
    return [(one["title"], one["text"]) for one in shown]


def pick(app: AppTest, number: int) -> AppTest:
    """As the browser does with thumbnail `number`, from 0, of a session whose last job is done."""
    jobs = app.session_state[keys.JOBS].values()
    chosen = component_data(app, "thumbnails")["thumbnails"][number]["number"]
    app.session_state[keys.EARLIER] = chosen, max(job.number for job in jobs)
    app.run()
    assert not app.exception
    return app


def test_the_gallery_has_each_image_as_a_file_with_its_settings(run: Path) -> None:
    app = open_page("sampling.py", n=3, steps=2, seed=4, label="bus")
    job = generate(app)
    [row] = component_data(app, "gallery")["rows"]
    assert (row["side"], row["columns"]) == (16, 3)
    for k, tile in enumerate(row["tiles"]):
        assert tile["name"] == f"Image {k + 1}, bus"
        assert tile["file"] == f"cars-step-20-seed-4-image-{k + 1}.png"
        content = file_of(tile["address"])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), job.result.images[k])
        made = read(content)
        assert (made.spec, made.image) == (job.spec, k)


def test_an_earlier_result_is_shown_again_and_its_settings_are_taken_back(run: Path) -> None:
    app = open_page("sampling.py", n=2, steps=2, seed=4, label="bus")
    first = generate(app)
    assert not [each for each in app.get("bidi_component") if "thumbnails" in each.proto.id]
    app.number_input(key="seed").set_value(5)
    app.number_input(key="n").set_value(3).run()
    generate(app)
    assert strip(app) == [("Generate", "3 images, seed 5"), ("Generate", "2 images, seed 4")]
    pick(app, 1)
    [row] = component_data(app, "gallery", "earlier")["rows"]
    files = [file_of(tile["address"]) for tile in row["tiles"]]
    assert [read(each).spec for each in files] == [first.spec] * 2
    assert "Earlier result, Generate: cars at step 20: 2 images, dpmpp_2m" in words(app)
    press(app, "Use these settings")
    assert (app.number_input(key="seed").value, app.number_input(key="n").value) == (4, 2)
    again = generate(app)
    assert again.spec == first.spec
    assert np.array_equal(again.result.images, first.result.images)
    # It has taken the first's place, and what was chosen is closed.
    assert strip(app) == [("Generate", "2 images, seed 4"), ("Generate", "3 images, seed 5")]
    assert "Earlier result" not in words(app)


def test_results_of_all_modes_stay_and_each_mode_comes_back(run: Path) -> None:
    app = open_page("sampling.py", n=2, steps=2, seed=4, label="bus")
    generate(app)
    for mode, label, settings in (
        ("Edit", "Vary", {"strength": 0.75, "variants": 1}),
        ("Interpolate", "Generate film", {"frames": 2}),
        (
            "Compare",
            "Generate 2 rows",
            {keys.COMPARED: ["vs_seed"], "vs_n": 1, "vs_seed": ["1", "2"]},
        ),
    ):
        app.session_state["mode"] = mode
        app.run()
        for key, value in settings.items():
            app.session_state[key] = value
        app.run()
        generate(app, label, mode.lower())
    assert strip(app) == [
        ("Compare", "seed 1 · seed 2, 1 image"),
        ("Interpolate", "film from image 1 of seed 4 to image 2 of seed 4, 2 images"),
        ("Edit", "variations of strength 0.75, 1 image"),
        ("Generate", "2 images"),
    ]
    for number, mode, label in ((2, "Edit", "Vary"), (3, "Generate", "Generate")):
        pick(app, number)
        press(app, "Use these settings")
        assert app.session_state["mode"] == mode
        assert button(app, label)
    assert app.number_input(key="n").value == 2


def test_a_closed_result_is_gone_from_the_page_and_stays_in_the_strip(run: Path) -> None:
    app = open_page("sampling.py", n=1, steps=2, label="bus")
    generate(app)
    app.number_input(key="seed").set_value(5).run()
    generate(app)
    assert "Earlier result" in words(pick(app, 1))
    press(app, "Close")
    assert "Earlier result" not in words(app) and len(strip(app)) == 2


def test_settings_whose_run_is_gone_say_so(run: Path) -> None:
    app = open_page("sampling.py", n=1, steps=2, run="cars")
    generate(app)
    app.number_input(key="seed").set_value(5).run()
    generate(app)
    run.rename(run.with_name("moved"))
    press(pick(app, 1), "Use these settings")
    assert "The image's run, cars, does not exist here." in words(app)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"from": "upload"},
            "The image that it started from is not part of them; choose it again.",
        ),
        ({"from": "data set"}, ""),
    ],
)
def test_a_link_says_what_it_does_not_carry(
    run: Path, settings: dict[str, Any], sentence: str
) -> None:
    app = open_page("sampling.py", mode="Edit", steps=2, variants=1, **settings)
    if sentence:
        [field] = [each for each in app.file_uploader if each.key == "upload"]
        field.set_value(("image.png", image_files.halves("PNG"), "image/png")).run()
    generate(app, "Vary", "edit")
    [said] = [each.value for each in app.caption if each.value.startswith("Opens this page")]
    wanted = f"these settings. {sentence}" if sentence else "these settings, which give the same"
    assert wanted in said


# ---------------------------------------------------------------- its bounds


def result(size: int, seed: int) -> Result:
    tile = Tile("x" * size, "Image 1", "a.png")
    spec = SamplingSpec(run="cars", step=20, n=1, seed=seed)
    return Result(Made(spec), "", (Row((tile,), 16, 160),), "")


def test_the_oldest_go_where_they_are_too_many_or_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {number: result(10, number) for number in (3, 1, 2, 4)}
    monkeypatch.setattr(history, "session_jobs", dict)
    assert list(within_bounds(kept)) == [1, 2, 3, 4]
    monkeypatch.setattr(history, "MOST", 3)
    assert list(within_bounds(kept)) == [2, 3, 4]
    monkeypatch.setattr(history, "MOST_BYTES", 20)
    assert list(within_bounds(kept)) == [3, 4]
    assert sum(each.bytes for each in within_bounds(kept).values()) == 20


def test_what_the_page_still_shows_is_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Job:
        number = 1

    monkeypatch.setattr(history, "session_jobs", lambda: {"generate": Job})
    monkeypatch.setattr(history, "MOST", 1)
    assert list(within_bounds({number: result(10, number) for number in (1, 2, 3)})) == [1]


@pytest.mark.parametrize("side", [16, 64, 65, 256])
def test_the_thumbnail_of_a_large_image_is_small(side: int) -> None:
    image = np.full((side, side, 3), 7, np.uint8)
    with Image.open(io.BytesIO(file_of(face_of(image)))) as face:
        assert face.width == face.height <= 64 and face.width >= min(side, 33)
