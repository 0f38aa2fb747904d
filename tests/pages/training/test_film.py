"""The film of strips without a browser: what the browser is told, and where the axes put it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.components.film.film import Strips, row_data
from dashboard.training.alignment import axis_unit, place
from dashboard.training.events import events
from diffusion_core.runs.changes import add_change
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.run import Run
from tests.pages.app import open_page, seen
from tests.tiny_runs import tiny, write_run

STEPS = np.array([10, 20, 40])
NOTHING = {name: np.zeros(0) for name in ("step", "value", "wall_time")}


def write_strips(run: Path, *steps: int) -> None:
    (run / "samples").mkdir(exist_ok=True)
    for step in steps:
        Image.new("RGB", (32, 16)).save(run / "samples" / f"step-{step:08d}.png")


def write_losses(run: Path, times: dict[int, float]) -> None:
    metrics = MetricsWriter(run / "metrics.sqlite")
    metrics.add((step, "loss", 0.5, at) for step, at in times.items())
    metrics.close()


def film(app: AppTest) -> dict:
    [component] = [c for c in app.get("bidi_component") if c.proto.component_name == "film"]
    return json.loads(component.proto.mixed.json or component.proto.json)


def words(app: AppTest) -> list[str]:
    return [seen(element.value) for element in [*app.caption, *app.warning]]


# ---------------------------------------------------------------- the axes


def test_steps_and_images_are_multiples_of_the_step() -> None:
    by_step = place(STEPS, "step", None, NOTHING)
    by_images = place(STEPS, "images", 32, NOTHING)
    assert by_step is not None and by_step.tolist() == [10, 20, 40]
    assert by_images is not None and by_images.tolist() == [320, 640, 1280]
    assert place(STEPS, "images", None, NOTHING) is None
    assert place(STEPS, "time", 32, NOTHING) is None


def test_a_strip_lies_at_the_time_of_its_step_also_between_thinned_points() -> None:
    losses = {"step": np.array([1, 21, 31]), "wall_time": np.array([50.0, 70.0, 75.0])}
    at = place(np.array([1, 11, 31, 33]), "time", None, losses)
    assert at is not None and at.tolist() == [0, 10, 25, 25]


@pytest.mark.parametrize(
    ("alignment", "longest", "unit", "title"),
    [
        ("step", 9e9, 1, "step"),
        ("images", 9e9, 1, "images seen"),
        ("time", 119, 1, "training time, seconds"),
        ("time", 120, 60, "training time, minutes"),
        ("time", 7200, 3600, "training time, hours"),
    ],
)
def test_the_axis_says_its_unit(alignment: str, longest: float, unit: float, title: str) -> None:
    assert axis_unit(alignment, longest) == (unit, title)


# ---------------------------------------------------------------- what the browser is told


def test_a_row_names_every_strip_its_place_and_its_version(tmp_path: Path) -> None:
    run = write_run(tmp_path, "one", config=tiny())
    write_strips(run, 4, 8)
    os.utime(run / "samples" / "step-00000008.png", ns=(0, 255))
    files = Run(run).samples()
    row = row_data(Strips("one", files, np.array([32.0, 64.04])))
    assert row is not None
    assert row["steps"] == [4, 8]
    assert row["at"] == [32.0, 64.0]
    assert row["files"] == ["step-00000004.png", "step-00000008.png"]
    assert row["versions"][1] == "ff"
    # Written again: another version, so the browser fetches it again.
    write_strips(run, 8)
    again = row_data(Strips("one", files, np.array([32.0, 64.0])))
    assert again is not None
    assert again["versions"][0] == row["versions"][0]
    assert again["versions"][1] != "ff"


def test_a_strip_that_was_removed_meanwhile_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, "one", config=tiny())
    write_strips(run, 4, 8)
    files = Run(run).samples()
    files[0][1].unlink()
    row = row_data(Strips("one", files, np.array([4.0, 8.0])))
    assert row is not None
    assert row["steps"] == [8]
    files[1][1].unlink()
    assert row_data(Strips("one", files, np.array([4.0, 8.0]))) is None


def test_the_page_lays_the_chosen_runs_beside_each_other(runs_dir: Path) -> None:
    for name, batch, created in (("a", 4, 2.0), ("b", 8, 1.0)):
        run = write_run(runs_dir, name, config=tiny(batch_size=batch), created=created)
        write_strips(run, 100, 200)
        write_losses(run, {1: 0.0, 100: 50.0 * batch, 200: 100.0 * batch})
    data = film(open_page("training.py", compare="b"))
    assert data["alignment"] == "step"
    assert [(row["name"], row["at"]) for row in data["rows"]] == [
        ("a", [100, 200]),
        ("b", [100, 200]),
    ]
    data = film(open_page("training.py", compare="b", align="images", strip="200@b"))
    assert [row["at"] for row in data["rows"]] == [[400, 800], [800, 1600]]
    assert data["start"] == "200@b"
    data = film(open_page("training.py", compare="b", align="time"))
    assert [row["at"] for row in data["rows"]] == [[200, 400], [400, 800]]


def test_a_run_that_does_not_say_its_times_is_left_out_with_a_sentence(runs_dir: Path) -> None:
    for name, created in (("a", 2.0), ("b", 1.0)):
        write_strips(write_run(runs_dir, name, config=tiny(), created=created), 4)
    write_losses(runs_dir / "a", {1: 0.0, 4: 3.0})
    app = open_page("training.py", compare="b", align="time")
    assert [row["name"] for row in film(app)["rows"]] == ["a"]
    assert "b is not shown: it has recorded no times." in words(app)


def test_a_lectures_strip_is_one_image_forming(runs_dir: Path) -> None:
    write_strips(write_run(runs_dir, "a", config=tiny(sample_steps=0)), 4)
    [row] = film(open_page("training.py"))["rows"]
    assert row["forming"] is True


# ---------------------------------------------------------------- what was changed


def test_changes_are_said_with_what_was_before_them(tmp_path: Path) -> None:
    run = write_run(tmp_path, "one", config=tiny(learning_rate=1e-3, sample_every=4))
    assert events(Run(run).snapshot()) == []
    add_change(run, 1120, {"learning_rate": 1e-4})
    add_change(run, 1300, {"learning_rate": 5e-5, "sample_every": 1000})
    assert events(Run(run).snapshot()) == [
        (1120, "learning rate 0.001 → 0.0001"),
        (1300, "learning rate 0.0001 → 5e-05, sample every 4 → 1,000"),
    ]


def test_a_damaged_list_of_changes_gets_a_sentence_and_the_rest_is_shown(runs_dir: Path) -> None:
    run = write_run(runs_dir, "one", config=tiny())
    write_strips(run, 4)
    write_losses(run, {1: 0.0, 4: 3.0})
    (run / "changes.json").write_text("{")
    with pytest.raises(ConfigError, match=r"changes\.json is not readable"):
        events(Run(run).snapshot())
    app = open_page("training.py")
    assert not app.exception
    [said] = [sentence for sentence in words(app) if "changes.json" in sentence]  # and only once
    assert said.startswith("one cannot be read in full.")
    write_run(runs_dir, "two", config=tiny())
    app = open_page("training.py", run="two", compare="one")
    assert any("The changes of one cannot be shown" in sentence for sentence in words(app))
