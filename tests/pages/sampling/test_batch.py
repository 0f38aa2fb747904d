"""The mode Batch: series in the background, the same for every visitor and every server."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.sampling import batch
from dashboard.services import series_jobs
from dashboard.services.sampling_queue import QueueFull, SamplingQueue
from diffusion_core.runs.checkpoint import weights_path
from diffusion_core.runs.run import Run
from diffusion_core.sampling import series
from diffusion_core.sampling.metadata import read
from diffusion_core.sampling.series import Series
from diffusion_core.sampling.spec import SamplingSpec
from tests.pages.app import buttons, component_data, open_page, press, words
from tests.pages.components.test_served import answer
from tests.tiny_runs import write_checkpoint, write_run

SOON = 60.0


@pytest.fixture
def run(runs_dir: Path) -> Path:
    return write_run(runs_dir, "cars", 20)


@pytest.fixture(autouse=True)
def no_jobs() -> Iterator[None]:
    """Each test leaves none under way for the next."""
    yield
    for job in series_jobs.under_way():
        job.cancel()
        assert job.wait(SOON)


def open_many(**settings: object) -> AppTest:
    return open_page("sampling.py", **{"mode": "Batch", "steps": 2, "many": 5, **settings})


def wait(app: AppTest) -> AppTest:
    for job in series_jobs.under_way():
        assert job.wait(SOON)
    app.run()
    assert not app.exception
    return app


def begin(app: AppTest, name: str = "") -> AppTest:
    if name:
        app.text_input(key="series_name").set_value(name)
    return press(app, "Generate in background")


def downloads(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What each button would send, by the name of the file."""
    found = {}

    def spy(label, data, *, file_name, **_):
        found[file_name] = data() if callable(data) else data

    with monkeypatch.context() as patched:
        patched.setattr(st, "download_button", spy)
        app.run()
    assert not app.exception
    return found


def test_a_series_is_generated_in_the_background_and_shown_to_every_visitor(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_many()
    assert "Each series appears here, for everyone." in words(app)
    wait(begin(app))
    series = Series(run / "drawings" / "dpmpp_2m-2-seed-0")
    assert (series.state, series.numbers()) == ("finished", [0, 1, 2, 3, 4])
    for visitor in (app, open_many()):
        said = words(visitor)
        assert "cars at step 20: 5 images, dpmpp_2m, 2 steps, seed 0, each class in turn" in said
        assert "Complete. 5 of 5 images" in said
        assert "Resume" not in buttons(visitor) and "Cancel" not in buttons(visitor)
    assert app.text_input(key="series_name").placeholder == "dpmpp_2m-2-seed-0-2"
    app.number_input(key="picture").set_value(4)
    files = downloads(app, monkeypatch)
    assert list(files) == [
        "cars-dpmpp_2m-2-seed-0.zip",
        "cars-dpmpp_2m-2-seed-0-grid.png",
        "cars-dpmpp_2m-2-seed-0-000003.png",
    ]
    archive = zipfile.ZipFile(io.BytesIO(files["cars-dpmpp_2m-2-seed-0.zip"]))
    assert len(archive.namelist()) == 6
    grid = files["cars-dpmpp_2m-2-seed-0-grid.png"]
    assert read(grid).spec == series.spec
    single = np.asarray(Image.open(io.BytesIO(files["cars-dpmpp_2m-2-seed-0-000003.png"])))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(grid)))[16:32, :16], single)


def test_the_images_of_a_series_come_from_their_files_and_a_link_shows_them_again(
    run: Path,
) -> None:
    app = wait(begin(open_many(n=3), "mine"))
    wait(begin(app, "newer"))
    app.selectbox(key="series").set_value("mine").run()
    [row] = component_data(app, "gallery")["rows"]
    assert [tile["file"] for tile in row["tiles"]] == [f"cars-mine-{k:06d}.png" for k in range(5)]
    shown = row["tiles"][1]["address"]
    status, _, content = answer(shown.partition("?")[0])
    assert status == 200 and content == Series(run / "drawings" / "mine").image(1).read_bytes()
    [address] = [each.value for each in app.code if each.value.startswith("?")]
    linked = parse_qs(address.removeprefix("?"))
    assert "n" not in linked
    opened = open_page("sampling.py", **linked)
    assert not opened.warning
    assert opened.selectbox(key="series").value == "mine"
    assert opened.number_input(key="many").value == 5
    assert component_data(opened, "gallery")["rows"] == [row]


def test_a_series_under_way_is_cancelled_and_resumed(run: Path, still: SamplingQueue) -> None:
    app = begin(open_many(), "mine")
    series = Series(run / "drawings" / "mine")
    assert series.state == "queued"
    press(app, "Cancel")
    app.run()
    assert series.state == "stopped"
    assert "Cancelled. 0 of 5 images. The images are kept" in words(app)
    press(app, "Resume")
    assert series.state == "queued"
    assert "Cancel" in buttons(app)
    assert len(still.waiting) == 1


def test_a_series_of_a_server_that_was_killed_is_interrupted_and_can_be_resumed(
    run: Path,
) -> None:
    app = wait(begin(open_many(), "mine"))
    series = Series(run / "drawings" / "mine")
    before = series.image(2).read_bytes()
    series.image(2).unlink()
    status = json.loads((series.path / "status.json").read_text())
    gone = {"state": "running", "process_started": 1.0, "heartbeat": 0.0, "step": 4}
    (series.path / "status.json").write_text(json.dumps(status | gone))
    app = open_many()
    assert "Interrupted: the app was stopped or restarted. 4 of 5" in words(app)
    assert "5 so far" not in words(app)
    wait(press(app, "Resume"))
    assert series.state == "finished"
    assert series.image(2).read_bytes() == before


def test_the_rest_of_a_series_counts_as_what_is_left_of_it(run: Path, still: SamplingQueue) -> None:
    app = begin(open_many(), "mine")
    [job] = still.jobs
    whole = job.task.evaluations
    series = Series(run / "drawings" / "mine")
    press(app, "Cancel")
    for k in range(4):
        series.image(k).write_bytes(b"as if it were made")
    press(app.run(), "Resume")
    [job] = still.jobs
    assert job.task.evaluations == whole // 5


def test_another_visitor_sees_the_bar_but_only_an_operator_cancels_what_others_began(
    run: Path, still: SamplingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(open_many(), "mine")
    assert "Cancel" in buttons(open_many())
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    viewer = open_many()
    assert "Cancel" not in buttons(viewer)
    begin(viewer, "theirs")
    assert buttons(viewer).count("Cancel") == 1
    series.cancel(Series(run / "drawings" / "mine"))
    stopped = open_many(series="mine")
    assert "Cancelled." in words(stopped) and "Resume" not in buttons(stopped)


def test_a_series_that_took_the_name_of_ones_own_is_not_ones_own(
    run: Path, still: SamplingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    viewer = begin(open_many(), "mine")
    assert "Cancel" in buttons(viewer)
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "operator")
    press(open_many(), "Cancel")
    series_jobs.remove(Series(run / "drawings" / "mine"))
    begin(open_many(), "mine")
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    viewer.run()
    assert not viewer.exception and viewer.selectbox(key="series").value == "mine"
    assert "Cancel" not in buttons(viewer)


def test_viewers_sample_less_and_delete_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_many().number_input(key="many").max == 4096
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    app = wait(begin(open_many()))
    assert app.number_input(key="many").max == 256
    assert "A series has at most 256 images here." in words(app)
    assert "Delete" not in buttons(app)
    monkeypatch.setenv("DIFFUSION_LAB_MAX_PICTURES", "10")
    assert open_many().number_input(key="many").max == 10
    monkeypatch.setattr(series_jobs, "VIEWERS_SERIES", 1)
    begin(app)
    assert "cars already has 1 series from viewers, which is the limit" in words(app)


def test_a_viewer_has_so_many_series_and_each_is_deleted_after_a_day(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = begin(open_many(many=1), "kept")  # an operator's
    wait(kept)
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_MAX_SERIES", "1")
    monkeypatch.setattr(type(st.context), "ip_address", "10.0.0.1")  # behind a proxy
    app = open_many(many=1)
    assert "Series left: 1 of 1. Each is deleted after 24 h." in words(app)
    wait(begin(app, "mine"))
    assert "Series left: 0 of 1." in words(app)
    assert re.search("Will be deleted in (23 h 59|24 h 0) min", words(app))
    assert "Will be deleted" not in words(open_many(series="kept"))
    begin(app, "another")
    assert "You have 1 series, the limit for a visitor here. The oldest is deleted" in words(app)
    assert {path.name for path in (run / "drawings").iterdir()} == {"kept", "mine"}
    series_jobs.remove_expired(run.parent)
    assert (run / "drawings" / "mine").exists()
    tomorrow = time.time() + 24 * 3600
    monkeypatch.setattr(series_jobs.time, "time", lambda: tomorrow)
    series_jobs.remove_expired(run.parent)
    assert [path.name for path in (run / "drawings").iterdir()] == ["kept"]
    assert "Series left: 1 of 1." in words(app.run())


def test_an_expired_series_that_is_still_made_is_cancelled_and_deleted(
    run: Path, still: SamplingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    begin(open_many(), "mine")
    [job] = series_jobs.under_way()
    monkeypatch.setattr(series_jobs.time, "time", lambda: 1e12)
    series_jobs.remove_expired(run.parent)
    assert not job.active and not (run / "drawings" / "mine").exists()


def test_a_series_above_the_budget_leaves_no_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    monkeypatch.setenv("DIFFUSION_LAB_MAX_EVALUATIONS", "9")
    app = begin(open_many())
    assert "This needs 10 network evaluations; the limit per request is 9." in words(app)
    assert not list((run / "drawings").iterdir())


def test_an_operator_deletes_a_series_after_a_question(run: Path) -> None:
    app = wait(begin(begin(open_many(many=2), "other"), "mine"))
    visitor = open_many(series="mine")
    assert visitor.selectbox(key="series").value == "mine"
    press(app, "Delete")
    assert "mine and its 2 images" in words(app)
    press(app, "Cancel")
    assert (run / "drawings" / "mine").exists()
    press(app, "Delete")
    press(app, "Delete series")
    assert not (run / "drawings" / "mine").exists()
    for page in (app, visitor.run()):
        assert not page.exception
        assert page.selectbox(key="series").value == "other"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../up", "'../up' is not a name for a series. Use up to 80 letters"),
        ("mine", "mine already exists; choose another name."),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    run: Path, still: SamplingQueue, name: str, sentence: str
) -> None:
    begin(open_many(), "mine")
    app = begin(open_many(), name)
    assert sentence in words(app)
    assert [each.name for each in series.list_series(run)] == ["mine"]


def test_only_so_many_are_under_way_at_once_and_a_full_line_leaves_no_folder(
    run: Path, still: SamplingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_jobs, "AT_ONCE", 1)
    app = begin(begin(open_many()))
    assert "1 series are already active" in words(app)
    press(app, "Cancel")

    def full(self, task, visitor):
        raise QueueFull("16 jobs are already waiting for this device. Try again later.")

    monkeypatch.setattr(SamplingQueue, "submit", full)
    begin(app, "late")
    assert "16 jobs are already waiting for this device" in words(app)
    assert not (run / "drawings" / "late").exists()


def test_of_two_that_begin_at_once_only_one_is_the_last_that_is_allowed(
    run: Path, still: SamplingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_jobs, "AT_ONCE", 1)
    both = threading.Barrier(2)
    batch_for = series.batch_for

    def meet(*given) -> int:
        both.wait()
        return batch_for(*given)

    monkeypatch.setattr(series, "batch_for", meet)
    checkpoint = Run(run).latest_checkpoint()
    spec = SamplingSpec(run="cars", step=20, n=2, steps=2)
    with ThreadPoolExecutor(2) as visitors:
        begun = [
            visitors.submit(series_jobs.begin, Run(run), checkpoint, spec, name) for name in "ab"
        ]
    [error] = filter(None, (each.exception() for each in begun))
    assert str(error) == "1 series are already active; wait until one is done."
    assert len(series.list_series(run)) == 1


def test_a_checkpoint_that_is_gone_or_another_is_said_when_a_series_is_resumed(
    run: Path, still: SamplingQueue
) -> None:
    app = begin(open_many(), "mine")
    press(app, "Cancel")
    app.run()
    write_checkpoint(run, 40)
    weights_path(run, 20).unlink()
    app.run()
    press(app, "Resume")
    assert "mine cannot be resumed: cars has no checkpoint of step 20." in words(app)
    write_checkpoint(run, 20)
    press(app, "Resume")
    assert "step 20 was overwritten since mine was started" in words(app)


def test_a_series_that_fails_says_why_and_can_be_resumed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "000000.png")

    with monkeypatch.context() as patched:
        patched.setattr(series, "_write", fail)
        app = wait(begin(open_many(), "mine"))
    assert "Failed. 0 of 5 images" in words(app)
    assert "No space left on device." in words(app)
    assert "Complete." in words(wait(press(app, "Resume")))


def test_images_are_paged_and_what_is_missing_or_damaged_is_said(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "SHOWN", 2)
    app = wait(begin(open_many(), "mine"))
    series = Series(run / "drawings" / "mine")
    series.image(2).write_bytes(b"")
    series.image(4).unlink()
    app.number_input(key="series_page").set_value(2).run()
    app.number_input(key="picture").set_value(3).run()
    assert "Image 3 is not generated yet." in words(app)
    app.number_input(key="series_page").set_value(3).run()
    assert "Images 5 to 5 are not generated yet." in words(app)
    shutil.rmtree(series.path / "pictures")
    app.run()
    assert not app.exception
    assert "Complete. 0 of 5 images" in words(app)


def test_a_series_with_damaged_settings_is_named(run: Path) -> None:
    app = wait(begin(open_many(), "mine"))
    (run / "drawings" / "mine" / "order.json").write_text("{")
    app.run()
    assert not app.exception
    assert "mine cannot be used; delete it. order.json is not readable JSON." in words(app)
    assert "Delete" in buttons(app)
