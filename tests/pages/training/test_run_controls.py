"""What an operator can do with runs on the Training page: change, continue, queue, delete, undo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from diffusion_core.data.store import build_store
from diffusion_core.runs import jobs, trash
from diffusion_core.runs.changes import add_change, read_changes
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.queue import read_queue
from diffusion_core.runs.run import Run, list_runs
from tests.pages.app import buttons, press, words
from tests.pages.training.test_training import open_training, write_run
from tests.tiny_runs import tiny


def keyed(app: AppTest, start: str) -> Any:
    """The number input whose key begins like this."""
    [found] = [field for field in app.number_input if (field.key or "").startswith(start)]
    return found


def write_state(path: Path, step: int) -> None:
    (path / "state").mkdir()
    (path / "state" / f"step-{step:08d}.pt").touch()


# ---------------------------------------------------------------- changes


def test_settings_of_a_run_at_work_are_changed_from_the_page(runs_dir: Path) -> None:
    path = write_run(runs_dir, "busy", "running")
    app = open_training()
    keyed(app, "change-busy-learning_rate").set_value(2e-4)
    keyed(app, "change-busy-sample_every").set_value(50)
    press(app, "Apply")
    asked = json.loads((path / "request.json").read_text())
    assert (asked["action"], asked["settings"]) == (
        "change",
        {"learning_rate": 2e-4, "sample_every": 50},
    )
    assert "Settings changed; they take effect at the next step." in words(app)
    disabled = {button.label: button.help for button in app.button if button.disabled}
    assert disabled.keys() == {"Sample now", "Checkpoint now"}
    assert set(disabled.values()) == {"The run has not answered the last request yet."}


def test_an_edit_closes_its_form_and_is_confirmed_once_the_run_has_taken_it(
    runs_dir: Path,
) -> None:
    path = write_run(runs_dir, "busy", "running")
    app = open_training()
    app.session_state["edit_open-busy"] = True
    keyed(app, "change-busy-learning_rate").set_value(5e-4)
    press(app, "Apply")
    assert not app.toast
    assert app.session_state["edit_open-busy"] is False
    # What the browser had requested before it heard of that does not open it again.
    app.session_state["edit_open-busy"] = True
    app.run()
    assert app.session_state["edit_open-busy"] is False
    app.session_state["edit_open-busy"] = True
    app.run()
    assert app.session_state["edit_open-busy"] is True
    (path / "request.json").unlink()  # as the trainer does
    add_change(path, 51, {"learning_rate": 5e-4})
    app.run()
    assert app.toast[0].value == "Learning rate 0.002 → 0.0005 from step 51"
    assert not app.run().toast


def test_a_refused_edit_keeps_its_form_open(runs_dir: Path) -> None:
    write_run(runs_dir, "busy", "running")
    app = open_training()
    app.session_state["edit_open-busy"] = True
    keyed(app, "change-busy-steps").set_value(50)
    press(app, "Apply")
    assert app.session_state["edit_open-busy"] is True


@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_images_that_were_moved_are_found_again_from_the_page(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    images = tmp_path / "images"
    images.mkdir()
    for k in range(3):
        Image.new("RGB", (16, 16), (k, 90, 90)).save(images / f"{k}.png")
    store = build_store(f"folder:{images}", 16, workers=0)
    path = write_run(runs_dir, "moved", state)
    details = {"data_fingerprint": store.fingerprint, "data_content": store.content}
    write_config_file(path, tiny(data=f"folder:{images}"), details)
    shutil.copytree(images, new := tmp_path / "new", copy_function=shutil.copy)
    Image.new("RGB", (16, 16), (9, 90, 90)).save(images / "0.png")

    def give(folder: Path) -> AppTest:
        app = open_training()
        [field] = [field for field in app.text_input if (field.key or "").startswith("change-")]
        field.set_value(str(folder))
        press(app, "Apply")
        return app

    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (16, 16)).save(other / "0.png")
    assert "not those that this run has trained on" in give(other).toast[0].value
    assert Run(path).config == tiny(data=f"folder:{images}")
    assert give(new).toast[0].value.startswith("Data `folder:")
    assert Run(path).config == tiny(data=f"folder:{new}")


def test_a_change_that_cannot_be_is_refused_with_a_message(runs_dir: Path) -> None:
    path = write_run(runs_dir, "busy", "running")
    app = open_training()
    keyed(app, "change-busy-steps").set_value(50)
    press(app, "Apply")
    assert app.toast[0].value == "busy has made 50 steps; steps is 50 and must be more."
    assert not (path / "request.json").exists()


def test_the_fields_follow_what_was_changed_elsewhere(runs_dir: Path) -> None:
    path = write_run(runs_dir, "rests", "stopped")
    app = open_training()
    jobs.change(Run(path), {"learning_rate": 5e-4})
    app.run()
    keyed(app, "change-rests-steps").set_value(900)
    press(app, "Apply")
    assert [change.settings for change in read_changes(path)] == [
        {"learning_rate": 5e-4},
        {"steps": 900},
    ]


def test_an_installation_caps_the_steps_of_changes_too(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_STEPS", "300")
    path = write_run(runs_dir, "rests", "stopped")
    app = open_training()
    keyed(app, "change-rests-steps").set_value(301)
    press(app, "Apply")
    assert app.toast[0].value == "This installation allows at most 300 steps."
    assert not read_changes(path)


# ---------------------------------------------------------------- going on


def test_a_finished_run_goes_on_with_more_steps(runs_dir: Path, started) -> None:
    path = write_run(runs_dir, "done", step=200)
    app = open_training()
    field = keyed(app, "more-steps-done")
    assert (field.min, field.value) == (201, 400)
    field.set_value(350)
    press(app, "Continue")
    assert [(run.path, run.begun) for run in started] == [(path, True)]
    assert Run(path).config.steps == 350
    assert "done is starting." in words(app)


def test_a_run_of_which_only_weights_were_kept_says_so(runs_dir: Path, started) -> None:
    path = write_run(runs_dir, "done")
    (path / "weights").mkdir()
    (path / "weights" / "step-00000200.safetensors").touch()
    app = open_training()
    [disabled] = [each for each in app.button if each.disabled]
    assert disabled.label == "Continue with more steps"
    assert disabled.help.startswith("Only the weights of this run were kept")


def test_a_run_that_broke_on_its_numbers_is_offered_a_lower_rate(runs_dir: Path, started) -> None:
    write_run(runs_dir, "other", "failed", error="The images are gone.", created=1.0)
    path = write_run(runs_dir, "broke", "failed", error="The loss is NaN.", not_finite=True)
    assert "Resume with a lower learning rate" not in buttons(open_training(run="other"))
    app = press(open_training(run="broke"), "Resume with a lower learning rate")
    assert not app.exception
    assert [(run.path, run.begun) for run in started] == [(path, True)]
    assert Run(path).config.learning_rate == 2e-4


# ---------------------------------------------------------------- the queue


@pytest.fixture
def queue(runs_dir: Path) -> list[str]:
    write_run(runs_dir, "busy", "running", created=9.0)
    for number, name in enumerate(("a", "b", "c")):
        write_run(runs_dir, name, "queued", created=1.0, queued_at=float(number), pid=None)
    return ["a", "b", "c"]


def in_order(runs_dir: Path) -> list[str]:
    return [run.name for run in read_queue(runs_dir)]


def test_the_queue_is_shown_in_order_and_can_be_moved_and_cancelled(runs_dir: Path, queue) -> None:
    app = open_training(run="busy")
    text = words(app)
    assert [line in text for line in ("1. a", "2. b", "3. c")] == [True] * 3
    app.button(key="move--1-c").click().run()
    assert in_order(runs_dir) == ["a", "c", "b"]
    app.button(key="move-1-a").click().run()
    assert in_order(runs_dir) == ["c", "a", "b"]
    app.button(key="cancel-a").click().run()
    assert in_order(runs_dir) == ["c", "b"]
    assert Run(runs_dir / "a").state == "stopped"
    ends = [app.button(key=f"move-{way}") for way in ("-1-c", "1-b")]
    assert [each.disabled for each in ends] == [True, True]
    assert [each.help for each in ends] == [
        "This run is first in the queue.",
        "This run is last in the queue.",
    ]
    assert "1. c" in words(app)


def test_a_viewer_sees_the_queue_and_cannot_touch_it(
    runs_dir: Path, queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    trash.delete(Run(write_run(runs_dir, "gone")))
    app = open_training(run="busy")
    assert "1. a" in words(app)
    assert buttons(app) == []


def test_a_run_that_waits_on_another_machine_says_where(runs_dir: Path) -> None:
    write_run(runs_dir, "away", "queued", host="gpu-box", pid=None, queued_at=1.0)
    assert "It is queued on gpu-box. To start it on this machine instead" in words(open_training())


def test_what_the_form_says_of_the_queue(runs_dir: Path, queue) -> None:
    app = open_training(run="busy")
    assert "busy is using the device and 3 runs wait; a new run joins the queue." in words(app)


# ---------------------------------------------------------------- deleting


def test_a_run_is_deleted_after_a_question_and_comes_back_by_undo(runs_dir: Path) -> None:
    write_run(runs_dir, "old", created=1.0)
    write_run(runs_dir, "new")
    app = press(open_training(run="new"), "Delete")
    assert "new and all its files will be deleted: no checkpoints, 2 sample" in words(app)
    assert [run.name for run in list_runs(runs_dir)] == ["new", "old"]
    press(app, "Delete run")
    assert [run.name for run in list_runs(runs_dir)] == ["old"]
    text = words(app)
    assert "new was deleted." in text
    assert "old has finished." in text
    assert "There is no run called" not in text
    assert "and all its files will be deleted" not in text
    press(app, "Undo")
    assert [run.name for run in list_runs(runs_dir)] == ["new", "old"]
    assert "new has finished." in words(app)
    assert "was deleted" not in words(app)


def test_a_run_that_is_kept_stays(runs_dir: Path) -> None:
    write_run(runs_dir, "run")
    app = press(open_training(), "Delete")
    press(app, "Cancel")
    assert "will be deleted" not in words(app)
    assert [run.name for run in list_runs(runs_dir)] == ["run"]


def test_what_was_deleted_lately_can_be_restored_later(runs_dir: Path) -> None:
    trash.delete(Run(write_run(runs_dir, "gone")))
    app = open_training()
    assert "gone, deleted 2" in words(app)
    press(app, "Restore")
    assert "gone has finished." in words(app)
    assert not trash.deleted(runs_dir)


def test_the_offer_to_undo_ends_when_somebody_goes_to_another_page(runs_dir: Path) -> None:
    from dashboard.ui.navigation import FOLDER

    write_run(runs_dir, "run")
    app = press(press(open_training(), "Delete"), "Delete run")
    assert "Undo" in buttons(app)
    app.run()
    assert "Undo" in buttons(app)
    app.switch_page(str(FOLDER / "schedule.py")).run()
    app.switch_page(str(FOLDER / "training.py")).run()
    assert "Undo" not in buttons(app)
    assert "Restore" in buttons(app)
