"""The registry of data sources: what each kind promises, and that a new one is found everywhere."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.data.errors import DataError
from diffusion_core.data.source import IndexedSource, SourceKind, parse_count
from diffusion_core.data.sources import SOURCES, cars, digits, open_source
from diffusion_core.data.store import build_store, fingerprint_of
from diffusion_core.runs.run import load_run
from tests.pages.app import open_page

FIXTURES = Path(__file__).parents[2] / "fixtures" / "pixels"
FIRST = {
    ("cars", 64, 3): "8bc618026794a27e9f2e55c3c87a909fd621605917e6e0081a3160246d696f9f",
    ("cars:300", 16, 1): "f6465afadfba180990ffbba151e846790011927a6ec71210e460fcddff702f43",
    ("digits", 64, 3): "0f8a41422bbb79f824fb94794dffd7708f83d9ef3f42f44d2d3931e53b7d19ba",
    ("digits:64", 16, 1): "128e6fc6f2976589c1d8e0a1b2e3abc089417e6ed96ade81f5e767a7c3527a34",
}


@pytest.mark.parametrize("spec", ["cars:20", "digits:20", "emoji:20"])
def test_the_label_of_an_image_is_known_without_drawing_it(spec: str) -> None:
    source = open_source(spec)
    read = [source.read(index)[1] for index in range(20)]
    assert [source.label(index) for index in range(20)] == read


def draw_stripes(index: int) -> tuple[np.ndarray, int]:
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:, :: 2 + index % 2] = 20 * (index % 10) + 50
    return pixels, index % 2


def open_stripes(detail: str) -> IndexedSource:
    count = parse_count("stripes", detail, 60, 1000)
    return IndexedSource(count, ("narrow", "wide"), 24, "stripes 1", draw_stripes)


STRIPES = SourceKind(
    name="stripes",
    help="narrow and wide ones.",
    usage=("stripes", "stripes:N"),
    open=open_stripes,
    size=24,
    detail="Number of images",
    most=60,
)


@pytest.mark.parametrize(("spec", "size", "channels"), FIRST)
def test_fingerprints_stay_those_that_runs_and_results_hold(
    spec: str, size: int, channels: int
) -> None:
    assert fingerprint_of(spec, size, channels) == FIRST[spec, size, channels]


def test_a_folders_fingerprint_is_made_of_names_sizes_and_times(tmp_path: Path) -> None:
    file = tmp_path / "a" / "1.png"
    file.parent.mkdir()
    Image.new("RGB", (9, 9)).save(file)
    stat = file.stat()
    recipe = f"store 1, size 16, count 1\na/1.png {stat.st_size} {stat.st_mtime_ns}"
    assert fingerprint_of(f"folder:{tmp_path}", 16) == hashlib.sha256(recipe.encode()).hexdigest()


@pytest.mark.parametrize(("module", "draw"), [(cars, cars.draw_car), (digits, digits.draw_digit)])
def test_other_pixels_need_another_constant(module, draw) -> None:
    """The stored images are those of the constant in their name, to the rounding of Pillow.

    Where the pixels were meant to change: change PIXELS, and store the first 16 images side by side
    as PNG under the name that the assertion gives.
    """
    kind = module.__name__.rpartition(".")[2]
    path = FIXTURES / f"{kind}-{module.PIXELS[:12]}.png"
    assert path.is_file(), f"The first 16 images belong into {path}."
    with Image.open(path) as image:
        stored = np.asarray(image.convert("RGB"), np.int16)
    for index, wanted in enumerate(np.split(stored, 16, axis=1)):
        apart = np.abs(draw(index)[0].astype(np.int16) - wanted)
        assert apart.max() <= 2 and apart.mean() < 0.1, (
            f"Image {index} of {kind} has other pixels: change {module.__name__}.PIXELS."
        )


def test_every_source_can_be_pickled_for_the_processes_that_decode(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "1.png")
    for spec in ("cars:3", "digits:3", f"folder:{tmp_path}"):
        source = open_source(spec)
        assert source.parallel
        copy = pickle.loads(pickle.dumps(source))
        assert copy.classes == source.classes and copy.count == source.count
        (image, label), (other, its) = source.read(0), copy.read(0)
        assert image.tobytes() == other.tobytes() and label == its
    assert not SOURCES["torchvision"].open("FakeData").parallel


def test_every_kind_says_what_a_form_and_a_message_need() -> None:
    for name, kind in SOURCES.items():
        assert kind.name == name and kind.help and kind.detail
        assert all(form.partition(":")[0] == name for form in kind.usage)
        assert (kind.most is None) == bool(kind.missing)
        with pytest.raises(DataError):
            open_source(f"{name}:-1")


def test_a_new_source_is_one_record_that_everything_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SOURCES, "stripes", STRIPES)
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(tmp_path))
    store = build_store("stripes:9", 24, workers=2)
    assert store.classes == ("narrow", "wide") and store.labels.tolist() == [0, 1] * 4 + [0]
    assert np.array_equal(store.images[3].transpose(1, 2, 0), draw_stripes(3)[0])

    app = open_page("training.py", data="stripes")
    assert not app.exception
    choice = app.selectbox(key="data")
    assert choice.value == "stripes" and "stripes" in choice.options
    assert app.number_input(key="size").value == 24
    assert app.number_input(key="stripes").max == 60

    run = tmp_path / "striped"
    words = ["train", "--run", str(run), "--data", "stripes:50", "--steps", "1"]
    tiny = ["batch_size=4", "image_size=16", "sample_count=1", "validation_count=4"]
    tiny += ["num_workers=0", "mixed_precision=no"]
    tiny += ['network_args={"widths": [8], "blocks": 1, "attention_levels": [], "patch": 2}']
    assert main([*words, "--device", "cpu", "--quiet", "--set", *tiny]) == 0
    assert load_run(run).config.data == "stripes:50"
    assert load_run(run).checkpoint(1).classes == store.classes
    assert main(["train", "--run", str(tmp_path / "boats"), "--data", "boats"]) == 2
    assert "stripes or stripes:N" in capsys.readouterr().err
