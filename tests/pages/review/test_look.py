"""The view Look: which images the grid shows, what is generated for it, what is compared large."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.review import look, look_images
from dashboard.review.look_images import MadeImages
from dashboard.ui import keys
from diffusion_core.media.images import png, strip
from diffusion_core.review.grid import Cell
from diffusion_core.review.saved_views import save_view
from diffusion_core.runs.checkpoint import weights_path
from diffusion_core.runs.remarks import Subject, read_remarks
from diffusion_core.runs.run import Run
from diffusion_core.sampling import metadata
from diffusion_core.sampling.spec import SamplingSpec
from tests.pages.app import buttons, component_data, generate, open_page, press, words
from tests.tiny_runs import TINY, tiny, write_checkpoint, write_run


def write_strip(run: Path, step: int, grey: int) -> None:
    """Two images, of one grey and of the next one."""
    (run / "samples").mkdir(exist_ok=True)
    images = [np.full((16, 16, 3), grey + k, np.uint8) for k in range(2)]
    (run / "samples" / f"step-{step:08d}.png").write_bytes(png(strip(images)))


@pytest.fixture
def runs(runs_dir: Path) -> list[str]:
    for number, (name, rate) in enumerate({"fast": 1e-3, "slow": 1e-4}.items()):
        config = TINY.replace(learning_rate=rate, sample_count=2)
        run = write_run(runs_dir, name, 20, 40, config=config)
        for step in (20, 40)[number:]:
            write_strip(run, step, 100 * number + step)
    return ["fast", "slow"]


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> MadeImages:
    """Nothing is generated yet."""
    new = MadeImages()
    monkeypatch.setattr(look_images, "MADE", new)
    return new


def open_look(runs: list[str], **settings: object) -> AppTest:
    return open_page("review.py", runs=runs, view="Look", **settings)


def grid(app: AppTest) -> dict[str, Any]:
    return component_data(app, "swipe")


def pixels(cell: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(cell["address"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def seen(app: AppTest) -> list[list[Any]]:
    """Of each cell the first grey, or what stands in its place."""
    return [[c["problem"] or int(pixels(c)[0, 0, 0]) for c in row] for row in grid(app)["cells"]]


def test_samples_from_training_are_shown_at_once_by_run_and_step(
    runs_dir: Path, runs: list[str]
) -> None:
    app = open_look(runs)
    told = grid(app)
    assert (told["rows"], told["columns"]) == (["fast", "slow"], ["step 20", "step 40"])
    assert told["corner"] == "Run / Step"
    assert seen(app) == [[20, 40], ["Nothing at step 20.", 140]]
    assert told["cells"][0][0]["file"] == "fast-step-20-image-1.png"
    assert (told["state"]["a"], told["state"]["b"]) == ("1.1", "1.2")
    app.slider(key="look_image").set_value(2).run()
    assert seen(app) == [[21, 41], ["Nothing at step 20.", 141]]
    shutil.rmtree(runs_dir / "slow" / "samples")
    app.slider(key="look_image").set_value(1).run()
    assert seen(app) == [[20, 40], ["Nothing at step 20.", "Nothing at step 40."]]
    shutil.rmtree(runs_dir / "slow")
    app.run()
    assert not app.exception and seen(app) == [[20, 40]]


def test_rows_that_become_what_columns_are_change_places_with_them(runs: list[str]) -> None:
    app = open_look(runs)
    app.selectbox(key="look_rows").set_value("Step").run()
    assert grid(app)["corner"] == "Step / Run"
    app.selectbox(key="look_rows").set_value("Run").run()
    assert grid(app)["corner"] == "Run / Step"


def test_a_saved_view_without_values_shows_the_usual_ones(runs_dir: Path, runs: list[str]) -> None:
    save_view(runs_dir, "all", {"runs": runs, "view": ["Look"]}, "me")
    app = open_look(runs, look_at_steps=["40"], look_view="Flicker", look_image=2, look_a="2.1")
    assert grid(app)["columns"] == ["step 40"] and grid(app)["state"]["a"] == "2.1"
    press(app, "all")
    assert grid(app)["columns"] == ["step 20", "step 40"]
    assert (grid(app)["state"]["a"], grid(app)["state"]["view"]) == ("1.1", "Swipe")


def test_a_setting_is_an_axis_and_other_cells_say_what_their_run_has(runs: list[str]) -> None:
    app = open_look(runs, look_image=2, look_columns="learning_rate")
    assert seen(app) == [
        ["fast has learning_rate 0.001.", 41],
        [141, "slow has learning_rate 0.0001."],
    ]


def test_the_slider_of_a_setting_leads_to_the_other_run(runs: list[str]) -> None:
    app = open_look(runs, look_rows="Step", look_columns="learning_rate")
    told = grid(app)
    assert told["columns"] == ["learning_rate 0.0001", "learning_rate 0.001"]
    assert [[c["note"] for c in row] for row in told["cells"]] == [["", "fast"], ["slow", "fast"]]
    app = open_look(runs, look_from="Generated", look_rows="Step", look_columns="Sampler")
    assert app.select_slider(key="look_run").value == "fast"
    app.select_slider(key="look-setting.learning_rate").set_value("0.0001").run()
    assert app.select_slider(key="look_run").value == "slow"
    app.select_slider(key="look_run").set_value("fast").run()
    assert app.select_slider(key="look-setting.learning_rate").value == "0.001"


def test_generated_images_are_kept_and_sliders_move_over_them(runs: list[str]) -> None:
    app = open_look(
        runs,
        look_from="Generated",
        look_columns="Sampling steps",
        look_counts=["2", "3"],
        look_n=2,
        look_seed=7,
    )
    assert seen(app) == [["Not generated yet."] * 2] * 2
    job = generate(app, "Generate 8 images", look.KEY)
    assert job.snapshot().state == "done", job.snapshot().sentence
    assert job.task.evaluations == 2 * 2 * (2 + 3)
    first = [[pixels(cell) for cell in row] for row in grid(app)["cells"]]
    # The tiny runs have the same weights; their images also start from the same noise.
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0][0], first[0][1])
    assert not [label for label in buttons(app) if label.startswith("Generate")]
    app.slider(key="look_image").set_value(2).run()
    assert not np.array_equal(pixels(grid(app)["cells"][0][0]), first[0][0])
    app.select_slider(key="look_step").set_value("20").run()
    assert "Generate 8 images" in buttons(app)
    app.select_slider(key="look_step").set_value("40").run()
    app.slider(key="look_image").set_value(1).run()
    assert np.array_equal(pixels(grid(app)["cells"][1][1]), first[1][1])


def test_a_network_that_fails_leaves_its_reason_in_the_cell(
    runs_dir: Path, runs: list[str]
) -> None:
    write_checkpoint(write_run(runs_dir, "broken"), 40, mean=float("nan"))
    app = open_look(["broken", *runs], look_from="Generated", look_at_steps=["40"], look_n=1)
    generate(app, "Generate 3 images", look.KEY)
    broken, fast, slow = grid(app)["cells"]
    assert "answers with NaN" in broken[0]["problem"]
    assert fast[0]["address"] and slow[0]["address"]
    assert "Generate 1 image" in buttons(app)


def test_what_somebody_else_has_generated_meanwhile_is_not_generated_again(
    runs_dir: Path, runs: list[str], made: MadeImages
) -> None:
    run = Run(runs_dir / "fast").snapshot()
    values = {"run": "fast", "step": 40, "sampler": "ddim", "steps": 2, "guidance": 1.0}
    [[wanted]] = look_images.want([[Cell(values)]], {"fast": run}, n=1, seed=0)
    task = look_images.generate_task(look_images.missing([[wanted]]))
    made.keep(wanted.key, [b"image"])
    assert task.work is not None
    assert task.work(lambda *_: pytest.fail("It was generated."), lambda _: None) == {}


def test_images_that_were_not_used_for_longest_are_forgotten() -> None:
    spec = SamplingSpec(run="cars", step=1, n=1)
    first, second, third = [("file", time, spec) for time in (1.0, 2.0, 3.0)]
    kept = MadeImages(most=30)
    kept.keep(first, [bytes(10)])
    kept.keep(second, [bytes(10)])
    assert kept.get(first, 2) is None and kept.get(first, 1) == [bytes(10)]
    kept.keep(third, [bytes(10), bytes(10)])
    assert kept.get(second, 1) is None
    assert kept.get(first, 1) and kept.get(third, 2)


def test_what_cannot_be_sampled_says_so_in_its_cell(runs_dir: Path, runs: list[str]) -> None:
    weights_path(runs_dir / "slow", 40).write_bytes(b"damaged")
    write_run(runs_dir, "plain", 40, config=tiny(image_size=32, data="digits"))
    app = open_look(
        [*runs, "plain"],
        look_from="Generated",
        look_columns="Guidance scale",
        look_scales=["1", "2"],
        look_n=1,
    )
    assert "different sizes (16×16 or 32×32 px)" in words(app)
    cells = seen(app)
    assert cells[0] == ["Not generated yet."] * 2
    assert "step-00000040.safetensors" in cells[1][0]
    assert cells[2][0] == "Not generated yet." and "no class can guide it" in cells[2][1]
    assert "Generate 3 images" in buttons(app)


def test_without_images_or_with_too_many_cells_the_view_says_so(
    runs_dir: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Choose up to eight runs" in words(open_page("review.py", view="Look"))
    write_run(runs_dir, "new")
    app = open_look(["new"])
    assert "new has no samples from training." in words(app) and not app.get("bidi_component")
    monkeypatch.setattr(look, "MOST_CELLS", 3)
    assert "These are 4 cells; choose at most 3." in words(open_look(runs))


def test_a_viewer_over_the_budget_sees_why_and_what_is_there(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_MAX_EVALUATIONS", "10")
    app = open_look(runs, look_from="Generated")
    assert "the limit per request is 10" in words(app)
    press(app, next(label for label in buttons(app) if label.startswith("Generate")))
    assert "the limit per request is 10" in "".join(each.value for each in app.error)
    assert look.KEY not in app.session_state["jobs"]


def test_what_is_large_is_in_the_link(runs: list[str]) -> None:
    app = open_look(runs, look_a="2.2", look_view="Difference", look_factor="8", look_signed="true")
    state = grid(app)["state"]
    assert state == {
        "a": "2.2",
        "b": "1.1",
        "view": "Difference",
        "zoom": 0,
        "factor": 8,
        "signed": True,
        "interval": 1000,
    }
    app = open_look(runs, look_a="9.9", look_view="Sideways")
    assert "View of A and B is 'Sideways'" in words(app)
    assert grid(app)["state"]["a"] == "1.1"


def test_the_nearest_training_images_are_found_on_demand(runs_dir: Path) -> None:
    config = tiny(data="cars:48", image_size=16, sample_count=2)
    write_strip(write_run(runs_dir, "cars", config=config), 40, 90)
    app = open_look(["cars"], look_nearest="true")
    job = generate(app, "Find nearest training images", "nearest")
    assert job.snapshot().state == "done", job.snapshot().sentence
    rows = component_data(app, "gallery")["rows"]
    assert [row["title"] for row in rows] == ["Nearest in pixels", "Nearest in features"]
    assert [len(row["tiles"]) for row in rows] == [6, 6]
    assert re.search("Held-out images are .* nearer to its nearest than .* %", rows[0]["note"])
    assert "Find nearest training images" not in buttons(app)


def test_something_is_said_of_an_image_or_of_the_step_of_a_sample(
    runs_dir: Path, runs: list[str]
) -> None:
    def say(app: AppTest, subject: Subject) -> None:
        app.session_state[keys.GUEST] = ("Ann", "0" * 32)
        app.session_state[f"say-fast-{subject}-A"] = True  # as if its button was pressed
        app.run()
        assert f"fast, {subject}" in words(app)
        [star] = [each for each in app.button if (each.key or "").startswith("star-")]
        star.click().run()
        assert not app.exception

    app = open_look(["fast"], look_at_steps=["40"])
    say(app, Subject(step=40))
    app = open_look(["fast"], look_from="Generated", look_at_steps=["40"], look_n=1, look_seed=7)
    generate(app, "Generate 1 image", look.KEY)
    [[cell]] = grid(app)["cells"]
    file = base64.b64decode(cell["address"].partition(",")[2])
    image = metadata.subject_of(metadata.read(file))
    say(app, image)
    found = read_remarks(runs_dir / "fast")
    assert [each.subject for each in found.current] == [Subject(step=40), image]
    assert (image.image, image.seed) == (0, 7)
