"""The Noising page: what the browser is sent, the tabs, good and bad uploads."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.components.drawing import drawing
from dashboard.services import cached
from dashboard.ui.image_source import RESIZED
from diffusion_core.data.decode_apart import ReaderBusy
from diffusion_core.process.noising import fixed_noise
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import DESIGNED, SCHEDULE_KINDS, USUAL_POINTS
from diffusion_core.runs.designs import DESIGNS
from tests import image_files
from tests.pages.app import button, component_data, open_page, seen


def open_noising(**settings: str) -> AppTest:
    return open_page("noising.py", **settings)


def sent(app: AppTest) -> dict[str, Any]:
    """What the browser mixes the images from."""
    return component_data(app, "noising")


def shows_images(app: AppTest) -> bool:
    return any(each.proto.component_name == "noising" for each in app.get("bidi_component"))


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def upload(content: bytes, **settings: str) -> AppTest:
    app = open_noising(source="upload", **settings)
    app.file_uploader[0].set_value(("image.png", content, "image/png")).run()
    assert not app.exception
    return app


def test_the_page_opens_with_a_car_the_lectures_schedule_and_t_150() -> None:
    app = open_noising()
    assert not app.error
    data = sent(app)
    assert data["what"] == "sedan, image 0 of 20,000"
    assert data["settings"] == {"kind": "linear", "strength": 1.0, "plot": "Values"}
    assert data["strip"] == list(range(0, 300, 30))
    assert component_data(app, "timestep")["t"] == 150


def test_the_browser_is_sent_the_tables_of_every_kind_of_schedule_and_the_noise() -> None:
    data = sent(open_noising(T="1000", zero_snr="true", seed="3", size="16"))
    assert [kind["name"] for kind in data["kinds"]] == list(SCHEDULE_KINDS)
    for kind in data["kinds"]:
        schedule = NoiseSchedule(
            kind["name"], 1000, rescale_zero_terminal_snr=True, points=USUAL_POINTS
        )
        assert np.array_equal(floats(kind["signal"]), schedule.signal.numpy())
        assert np.array_equal(floats(kind["spread"]), schedule.spread.numpy())
    noise = fixed_noise(3, 16)[0].permute(1, 2, 0)
    assert np.array_equal(floats(data["noise"]), noise.numpy().ravel())


def test_a_schedule_of_ones_own_is_offered_unless_its_points_are_too_close_for_T() -> None:
    points = "0:5,0.5:4.99,1:-5"
    assert DESIGNED in [kind["name"] for kind in sent(open_noising(points=points))["kinds"]]
    app = open_noising(points=points, T="4000")
    assert not app.error and sent(app)["kinds"]
    app = open_noising(kind=DESIGNED, points="0:1,0.5:-1,1:-5", T="10")
    assert sent(app)["settings"]["kind"] == DESIGNED


def test_a_saved_schedule_is_offered_and_noises_the_image(runs_dir: Path) -> None:
    points = ((0.0, 8.0), (0.5, 1.0), (1.0, -4.0))
    DESIGNS.save(runs_dir, "mine", "", points=points)
    app = open_noising(kind=DESIGNED)
    button(app, "mine").click().run()
    assert not app.exception
    [designed] = [kind for kind in sent(app)["kinds"] if kind["name"] == DESIGNED]
    wanted = NoiseSchedule(DESIGNED, points=points).signal
    assert np.array_equal(floats(designed["signal"]), wanted.numpy())


def test_nothing_is_sent_again_for_another_t() -> None:
    app = open_noising()
    before = sent(app)
    app.query_params["t"] = "60"
    app.run()
    assert component_data(app, "timestep")["t"] == 60
    assert sent(app) == before


def test_new_noise_is_that_of_the_next_seed_and_in_the_link() -> None:
    app = open_noising()
    before = sent(app)
    app.button[0].click().run()
    assert not app.exception
    assert app.number_input(key="seed").value == 1
    renewed = sent(app)
    assert renewed["pixels"] == before["pixels"]
    assert renewed["noise"] != before["noise"]
    assert sent(open_noising(seed="1"))["noise"] == renewed["noise"]


def test_another_image_data_set_and_size_come_from_the_address() -> None:
    app = open_noising(data="digits", picture="3", size="32")
    first = sent(app)
    assert first["what"] == "3, image 3 of 1,797"
    assert first["size"] == 32 and len(base64.b64decode(first["pixels"])) == 3 * 32 * 32
    app.number_input(key="picture").set_value(4).run()
    assert sent(app)["what"] == "4, image 4 of 1,797"
    assert sent(app)["pixels"] != first["pixels"]


def test_schedule_strength_and_figure_come_from_the_address() -> None:
    app = open_noising(kind="cosine", strength="0.35", plot="Spectrum")
    assert sent(app)["settings"] == {"kind": "cosine", "strength": 0.35, "plot": "Spectrum"}
    assert "ends at 0.0002 at t = 299." in seen(app.main.caption[-1].value)


@pytest.mark.parametrize(
    "settings",
    [
        {"T": "many", "picture": "20000", "size": "77", "seed": "-5", "data": ""},
        {
            "t": "-1",
            "T": "1",
            "picture": "-1",
            "source": "thin air",
            "kind": "quadratic",
            "strength": "3",
        },
        {
            "t": "one",
            "T": "4001",
            "picture": "a",
            "size": "",
            "source": "",
            "strength": "nan",
            "plot": "Pie",
            "more": "Less",
        },
    ],
    ids=["beyond", "below", "no numbers"],
)
def test_what_cannot_be_in_an_address_leaves_a_working_page(settings: dict[str, str]) -> None:
    app = open_noising(**settings)
    assert not app.error
    assert sent(app)["what"] == "sedan, image 0 of 20,000"
    assert sent(app)["settings"] == {"kind": "linear", "strength": 1.0, "plot": "Values"}
    assert component_data(app, "timestep")["t"] == 150


@pytest.mark.parametrize(
    "settings", [{}, {"t": "299"}, {"t": "800"}], ids=["default", "last", "beyond"]
)
def test_t_stays_within_a_T_that_shrinks(settings: dict[str, str]) -> None:
    app = open_noising(**settings)
    for timesteps in (100, 2):
        app.number_input(key="T").set_value(timesteps).run()
        assert not app.exception
        assert component_data(app, "timestep")["t"] == timesteps - 1
    assert sent(app)["strip"] == [0, 1]


def test_the_page_says_how_much_of_the_image_is_left_at_the_end() -> None:
    def words(app: AppTest) -> str:
        return "\n".join(seen(element.value) for element in app.caption)

    app = open_noising()
    assert "ends at 0.2192 at t = 299, so a trace" in words(app)
    app.number_input(key="T").set_value(1000).run()
    assert "ends at 0.0064 at t = 999." in words(app)
    app.toggle(key="zero_snr").set_value(True).run()
    assert "ends at 0.0000 at t = 999." in words(app)


def test_the_walk_through_the_shapes_has_the_values_of_the_strips_batch() -> None:
    walk = open_noising(size="32").table[0].value
    results = walk["shape and values"].tolist()
    shapes, written = zip(*(result.split("  \n") for result in results), strict=True)
    assert shapes[1:4] == ("(300,)", "(10,)", "(10, 1, 1, 1)")
    assert shapes[-1] == "(10, 3, 32, 32)"
    assert written[0] == "[0, 30, 60, 90, …, 270]"
    assert written[2] == "[0.9999, 0.9831, 0.9380, 0.8684, …, 0.2898]"
    assert written[3].startswith("[[[[0.9999]]], [[[0.9831]]], ")


def test_wrong_shapes_are_refused_in_pytorchs_words_or_noise_the_wrong_pixels() -> None:
    app = open_noising(more="Wrong shapes", size="32")
    refused, columns, colours = (each.value for each in app.code)
    assert "The size of tensor a (10) must match the size of tensor b (32)" in refused
    assert "(32,) times (32, 3, 32, 32): no error" in columns
    assert "(3,) to (1, 3, 1, 1): no error" in colours
    right, wrong = (image.url for shown in app.get("image")[:2] for image in shown.proto.imgs)
    assert right != wrong


def test_the_notes_have_what_python_answers() -> None:
    notes = [each.value for each in open_noising(more="Notes on tensors").code]
    dots, full, tensor = notes
    assert ">>> time[..., None, None].shape\ntorch.Size([2, 3, 1, 1])\n" in dots
    assert dots.endswith("must match the size of tensor b (3) at non-singleton dimension 3")
    assert ">>> torch.full((4,), 30)\ntensor([30, 30, 30, 30])\n" in full
    assert "IndexError: tensors used as indices must be long" in full
    assert ">>> torch.tensor(30).shape\ntorch.Size([])\n" in tensor


def test_both_ways_to_x_t_agree_within_their_errors() -> None:
    app = open_noising(more="Step by step", T="10", t="9", beta_end="0.3")
    table = app.table[0].value
    assert table.index.tolist() == ["from the formula", "step by step"]
    for column, wanted in zip(table, (0, 1), strict=True):
        for cell in table[column]:
            value, error = (float(part.replace("−", "-")) for part in cell.split(" ± "))
            assert abs(value - wanted) < 4 * error


def test_an_operator_reads_a_folder_by_its_path_and_a_viewer_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.png").write_bytes(image_files.halves("PNG"))
    spec = f"folder:{tmp_path / 'mine'}"
    assert sent(open_noising(data=spec))["what"] == "mine, image 0 of 1"
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    assert sent(open_noising(data=spec))["what"] == "sedan, image 0 of 20,000"


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
    assert not shows_images(app)


def test_a_broken_file_in_a_folder_gets_a_sentence_and_the_next_image_works(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jpg").write_bytes(image_files.truncated_jpeg())
    (tmp_path / "b.png").write_bytes(image_files.halves("PNG"))
    [error] = open_noising(data=f"folder:{tmp_path}").error
    assert "The image is damaged or incomplete." in error.value
    app = open_noising(data=f"folder:{tmp_path}", picture="1")
    assert not app.error and shows_images(app)


def test_without_a_file_the_page_asks_for_one() -> None:
    app = open_noising(source="upload")
    assert "Choose an image file" in app.info[0].value
    assert "Links do not contain it." in app.caption[0].value
    assert not shows_images(app) and not app.error


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
    assert sent(app)["what"] == "resized from 40×20, cropped to a square"


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
        assert sent(app)["what"].startswith("resized from "), name


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
        assert not shows_images(app)
    app.file_uploader[0].set_value(good).run()
    assert not app.error and not app.exception
    assert shows_images(app)


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
    assert not app.error and shows_images(app)
    app.segmented_control(key="size").set_value(16).run()
    assert "; 0 of 1 per hour are left" in app.error[0].value


def test_an_uploaded_image_is_resized_to_the_chosen_size() -> None:
    app = upload(image_files.halves("PNG"), size="16", t="0")
    assert sent(app)["what"] == "resized from 40×20, cropped to a square"
    assert len(base64.b64decode(sent(app)["pixels"])) == 768


def test_an_uploaded_image_is_cropped_padded_or_squashed_as_the_link_says() -> None:
    content = image_files.halves("PNG")
    found = {}
    for fit, done in RESIZED.items():
        app = upload(content, size="16", t="0", fit=fit)
        assert sent(app)["what"] == f"resized from 40×20, {done} to a square"
        found[fit] = sent(app)["pixels"]
    assert len(set(found.values())) == 3
    for earlier, now in (("fit", "pad"), ("stretch", "squash")):  # in links of earlier versions
        assert sent(upload(content, size="16", t="0", fit=earlier))["pixels"] == found[now]
    app.segmented_control(key="fit").set_value("crop").run()
    assert sent(app)["pixels"] == found["crop"]


def test_a_drawing_is_noised_and_paper_alone_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_noising(source="drawing", size="16")
    assert "Draw an image" in app.info[0].value and not shows_images(app)
    monkeypatch.setattr(
        "dashboard.explain.noising.draw_image", lambda _: np.zeros((128, 128, 3), np.uint8)
    )
    assert sent(open_noising(source="drawing", size="16"))["what"] == "your drawing"


def test_a_drawing_is_read_and_what_is_none_is_refused() -> None:
    numbers = np.zeros((128, 128), np.uint8)
    numbers[0, :3] = (4, 0, len(drawing.PALETTE) - 1)

    def text(numbers: np.ndarray) -> str:
        high, low = numbers.reshape(-1, 2).T
        return base64.b64encode(bytes(high << 4 | low)).decode()

    image = drawing.decode(text(numbers))
    assert image.shape == (128, 128, 3)
    assert np.array_equal(image[0, :4], drawing.PALETTE[[4, 0, len(drawing.PALETTE) - 1, 0]])
    assert (image[1:] == 255).all()
    odd = [None, 3, "", "§", text(numbers)[:-4], text(numbers) + "AAAA", text(0 * numbers)]
    numbers[5, 5] = len(drawing.PALETTE)
    for given in (*odd, text(numbers)):
        assert drawing.decode(given) is None
