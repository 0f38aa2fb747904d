"""The Noising page: the lecture's numbers, the same ε while t moves, good and bad uploads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.figures.noising import EDGES, normal_density, spread_figure
from dashboard.services import cached
from diffusion_core.data.decode_apart import ReaderBusy
from diffusion_core.media.images import png
from tests import image_files
from tests.pages.app import component_data, open_page, seen


def open_noising(**settings: str) -> AppTest:
    return open_page("noising.py", **settings)


def formula(app: AppTest) -> str:
    [latex] = app.latex
    return latex.value.strip("$\n")


def captions(app: AppTest) -> list[str]:
    """Below the images, from the left: x_0, ε, x_t, then the strip."""
    return [image.caption for shown in app.get("image") for image in shown.proto.imgs]


def addresses(app: AppTest) -> list[str]:
    """Of the images; an address is made from an image's content."""
    return [image.url for shown in app.get("image") for image in shown.proto.imgs]


def upload(content: bytes, **settings: str) -> AppTest:
    app = open_noising(source="upload", **settings)
    app.file_uploader[0].set_value(("image.png", content, "image/png")).run()
    assert not app.exception
    return app


def test_the_page_opens_with_a_car_the_lectures_schedule_and_t_150() -> None:
    app = open_noising()
    assert not app.error
    assert formula(app) == r"x_{150} = 0.6800\,x_0 + 0.7332\,\epsilon"
    assert captions(app)[0] == "$x_0$: sedan, image 0 of 20,000"
    assert captions(app)[3:] == [f"t = {t}" for t in range(0, 300, 30)]


def test_t_in_the_address_shows_the_lectures_coefficients() -> None:
    app = open_noising(t="30")
    assert formula(app) == r"x_{30} = 0.9831\,x_0 + 0.1830\,\epsilon"
    for t, signal, spread in ((0, "0.9999", "0.0100"), (270, "0.2898", "0.9571")):
        app.query_params["t"] = str(t)
        app.run()
        assert formula(app) == rf"x_{{{t}}} = {signal}\,x_0 + {spread}\,\epsilon"


def test_the_same_noise_is_kept_while_t_moves_and_new_noise_is_in_the_settings() -> None:
    app = open_noising()
    before = addresses(app)
    app.query_params["t"] = "60"
    app.run()
    moved = addresses(app)
    assert moved[:2] == before[:2] and moved[2] != before[2]
    assert moved[3:] == before[3:]
    assert moved[2] != moved[3]
    app.button[0].click().run()
    assert not app.exception
    assert app.number_input(key="seed").value == 1
    renewed = addresses(app)
    assert renewed[0] == before[0]
    assert not set(renewed[1:]) & set(before)
    assert addresses(open_noising(seed="1", t="60")) == renewed


def test_another_image_data_set_and_size_come_from_the_address() -> None:
    app = open_noising(data="digits", picture="3", size="32")
    assert captions(app)[0] == "$x_0$: 3, image 3 of 1,797"
    assert "All 3,072 values" in app.main.caption[-1].value
    first = addresses(app)[0]
    app.number_input(key="picture").set_value(4).run()
    assert captions(app)[0] == "$x_0$: 4, image 4 of 1,797"
    assert addresses(app)[0] != first


@pytest.mark.parametrize(
    "settings",
    [
        {"T": "many", "picture": "20000", "size": "77", "seed": "-5", "data": ""},
        {"t": "-1", "T": "1", "picture": "-1", "source": "thin air", "kind": "quadratic"},
        {"t": "one", "T": "4001", "picture": "a", "size": "", "source": ""},
    ],
    ids=["beyond", "below", "no numbers"],
)
def test_what_cannot_be_in_an_address_leaves_a_working_page(settings: dict[str, str]) -> None:
    app = open_noising(**settings)
    assert not app.error
    assert formula(app) == r"x_{150} = 0.6800\,x_0 + 0.7332\,\epsilon"
    assert captions(app)[0] == "$x_0$: sedan, image 0 of 20,000"


@pytest.mark.parametrize(
    "settings", [{}, {"t": "299"}, {"t": "800"}], ids=["default", "last", "beyond"]
)
def test_t_stays_within_a_T_that_shrinks(settings: dict[str, str]) -> None:
    app = open_noising(**settings)
    for timesteps in (100, 2):
        app.number_input(key="T").set_value(timesteps).run()
        assert not app.exception
        assert component_data(app, "timestep")["t"] == timesteps - 1
    assert captions(app)[3:] == ["t = 0", "t = 1"]


def test_the_page_says_how_much_of_the_image_is_left_at_the_end() -> None:
    def words(app: AppTest) -> str:
        return "\n".join(seen(element.value) for element in app.markdown)

    app = open_noising()
    assert "ends at 0.2192 at t = 299, so a trace" in words(app)
    app.number_input(key="T").set_value(1000).run()
    assert "ends at 0.0064 at t = 999." in words(app)
    app.toggle(key="zero_snr").set_value(True).run()
    assert "ends at 0.0000 at t = 999." in words(app)


def test_the_walk_through_the_shapes_is_of_the_strips_batch() -> None:
    shapes = open_noising(size="32").table[0].value["shape"].tolist()
    assert shapes[1:4] == ["(300,)", "(10,)", "(10, 1, 1, 1)"]
    assert shapes[-1] == "(10, 3, 32, 32)"


def test_an_operator_reads_a_folder_by_its_path_and_a_viewer_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.png").write_bytes(image_files.halves("PNG"))
    spec = f"folder:{tmp_path / 'mine'}"
    assert captions(open_noising(data=spec))[0] == "$x_0$: mine, image 0 of 1"
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    assert captions(open_noising(data=spec))[0] == "$x_0$: sedan, image 0 of 20,000"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("boats", "'boats' is no data set."),
        ("folder:nowhere/at/all", "There is no folder nowhere/at/all;"),
    ],
)
def test_a_data_set_that_does_not_exist_gets_a_sentence(spec: str, sentence: str) -> None:
    app = open_noising(data=spec)
    [error] = app.error
    assert sentence in seen(error.value)
    assert not captions(app)


def test_a_broken_file_in_a_folder_gets_a_sentence_and_the_next_image_works(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jpg").write_bytes(image_files.truncated_jpeg())
    (tmp_path / "b.png").write_bytes(image_files.halves("PNG"))
    [error] = open_noising(data=f"folder:{tmp_path}").error
    assert "The image is damaged or incomplete." in error.value
    app = open_noising(data=f"folder:{tmp_path}", picture="1")
    assert not app.error and captions(app)


def test_without_a_file_the_page_asks_for_one() -> None:
    app = open_noising(source="upload")
    assert "Choose an image file" in app.info[0].value
    assert "Links do not contain it." in app.caption[0].value
    assert not captions(app) and not app.error


def test_the_camera_is_asked_for_only_when_it_is_chosen() -> None:
    app = open_noising()
    for source in ("data set", "upload"):
        app.segmented_control(key="source").set_value(source).run()
        assert not app.get("camera_input")
    app.segmented_control(key="source").set_value("camera").run()
    assert "Allow the camera" in app.info[0].value
    photo = ("photo.jpg", image_files.halves("JPEG"), "image/jpeg")
    camera: Any = app.get("camera_input")[0]
    camera.set_value(photo).run()
    assert not app.exception
    assert captions(app)[0] == "$x_0$: resized from 40×20, cropped to a square"


def test_images_of_any_make_are_noised_one_after_the_other() -> None:
    app = open_noising(source="upload")
    for name, content in {
        "a JPEG": image_files.halves("JPEG"),
        "a CMYK JPEG": image_files.halves("JPEG", "CMYK"),
        "transparency": image_files.halves("PNG", "RGBA"),
        "a palette": image_files.halves("PNG", "P"),
        "16 bits": image_files.png_16_bit(),
        "an animated GIF": image_files.animated_gif(),
        "one pixel": image_files.one_pixel(),
    }.items():
        app.file_uploader[0].set_value((name, content, "image/any")).run()
        assert not app.exception and not app.error, name
        assert captions(app)[0].startswith("$x_0$: resized from "), name


def test_a_file_that_cannot_be_used_gets_one_sentence_and_the_next_one_works() -> None:
    app = open_noising(source="upload")
    good = ("good.png", image_files.halves("PNG"), "image/png")
    for content, sentence in (
        (b"", "This is not a readable image. Use a PNG, JPEG, WebP"),
        (image_files.TEXT, "This is not a readable image. Use a PNG, JPEG, WebP"),
        (image_files.truncated_jpeg(), "The image is damaged or incomplete."),
        (image_files.huge_png(10_000, 20_000), "far more than 50 megapixels."),
    ):
        app.file_uploader[0].set_value(("bad.png", content, "image/png")).run()
        assert not app.exception
        [error] = app.error
        assert sentence in seen(error.value)
        assert not captions(app)
    app.file_uploader[0].set_value(good).run()
    assert not app.error and not app.exception
    assert len(captions(app)) == 13


def test_a_file_above_the_limit_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_UPLOAD_MB", "1")
    padded = image_files.halves("PNG") + bytes(2**20)
    [error] = upload(padded).error
    assert error.value == "The file is larger than 1 MB. Make it smaller and try again."


def test_an_image_that_was_not_read_because_others_were_costs_nothing_and_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(data: bytes, size: int, fit: str) -> np.ndarray:
        raise ReaderBusy("Try again in a minute.")

    monkeypatch.setattr(type(st.context), "ip_address", "10.0.0.9")
    monkeypatch.setenv("DIFFUSION_LAB_HOURLY_UPLOAD_MEGAPIXELS", "1")
    content = image_files.encode(Image.new("RGB", (1000, 1000)), "PNG")
    with monkeypatch.context() as patched:
        patched.setattr(cached, "decode_apart", busy)
        app = upload(content)
        assert app.error[0].value == "Try again in a minute."
    app.run()
    assert not app.error and captions(app)
    app.segmented_control(key="size").set_value(16).run()
    assert "; 0 of 1 per hour are left" in app.error[0].value


def test_an_uploaded_image_is_resized_to_the_chosen_size_and_can_be_downloaded() -> None:
    app = upload(image_files.halves("PNG"), size="16", t="0")
    assert captions(app)[0] == "$x_0$: resized from 40×20, cropped to a square"
    assert "All 768 values" in app.main.caption[-1].value
    assert app.get("download_button")


def test_an_uploaded_image_is_cropped_fitted_or_stretched_as_the_link_says() -> None:
    content = image_files.halves("PNG")
    found = {}
    for fit, done in (("crop", "cropped"), ("fit", "fitted"), ("stretch", "stretched")):
        app = upload(content, size="16", t="0", fit=fit)
        assert captions(app)[0] == f"$x_0$: resized from 40×20, {done} to a square"
        found[fit] = addresses(app)[0]
    assert len(set(found.values())) == 3
    app.segmented_control(key="fit").set_value("crop").run()
    assert addresses(app)[0] == found["crop"]


def test_a_mean_below_zero_has_a_minus_sign_and_no_hyphen() -> None:
    caption = open_noising(data="digits", t="0").main.caption[-1].value
    assert ": mean −0." in caption


def test_at_the_last_step_of_a_long_schedule_the_values_are_normal() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    bars, curve = spread_figure(values).data
    assert np.abs(np.array(bars.y) - normal_density(np.array(bars.x))).max() < 0.03
    assert np.sum(np.array(bars.y) * np.diff(EDGES)) == pytest.approx(1)
    assert curve.y[50] == pytest.approx(1 / np.sqrt(2 * np.pi))


def test_values_beyond_the_axis_are_counted_at_its_ends() -> None:
    bars, _ = spread_figure(np.array([-40.0, 0.05, 0.05, 40.0])).data
    assert np.array(bars.y)[[0, -1]].tolist() == pytest.approx([2.5, 2.5])


def test_large_images_are_enlarged_with_crisp_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(png(image, 32))))
    assert shown.shape == (512, 512, 3)
    assert np.array_equal(shown[16::32, 16::32], image)
