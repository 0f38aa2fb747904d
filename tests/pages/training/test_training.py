"""The Training page, by Streamlit's AppTest: its form, and what it says of every kind of run."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.training import form_controls
from dashboard.training.launch import Start
from diffusion_core.runs import jobs
from diffusion_core.runs.config_file import write_config_file
from diffusion_core.runs.metrics import BIN_NAMES, MetricsWriter
from diffusion_core.runs.presets import preset
from diffusion_core.runs.request import write_request
from tests.pages.app import buttons, component_data, open_page, press, seen, words
from tests.tiny_runs import tiny

FILES = ("status.json", "config.json")


def open_training(**settings: object) -> AppTest:
    return open_page("training.py", **settings)


def write_run(
    runs_dir: Path, name: str, state: str = "finished", *, preset_name: str = "small", **status
) -> Path:
    """A run folder as the trainer leaves it; in a state of work its process is this test's."""
    path = runs_dir / name
    (path / "samples").mkdir(parents=True)
    this = psutil.Process()
    record = {
        "state": state,
        "step": 50,
        "total": 200,
        "created": time.time(),
        "heartbeat": time.time(),
        "host": os.uname().nodename,
        "device": "cpu",
        "pid": this.pid,
        "process_started": this.create_time(),
        "checkpoint_step": 40,
        "loss": 0.1234,
        "images_per_second": 20.0,
        "memory_bytes": 1_500_000_000,
        "eta_seconds": 200.0,
    }
    (path / "status.json").write_text(json.dumps(record | status))
    settings = json.loads(preset(preset_name).replace(steps=200, seed=7).to_json())
    (path / "config.json").write_text(json.dumps(settings | {"resolved": {}}))
    metrics = MetricsWriter(path / "metrics.sqlite")
    for step in range(1, 51):
        metrics.add((step, curve, 1 / step, 0.0) for curve in ("loss", "gradient_norm", *BIN_NAMES))
    metrics.add([(50, "validation_loss", 0.4321, 0.0)])
    metrics.close()
    for step in (25, 50):
        Image.new("RGB", (64, 16)).save(path / "samples" / f"step-{step:08d}.png")
    return path


# ---------------------------------------------------------------- the form


def test_without_runs_the_page_explains_itself_and_offers_the_form() -> None:
    app = open_training()
    assert "There are no runs yet." in words(app)
    assert "Start" in buttons(app)
    assert app.expander[0].proto.expanded


def test_start_gives_the_settings_of_the_form_and_the_url_to_a_run_with_a_free_name(
    runs_dir: Path, started
) -> None:
    write_run(runs_dir, "small-digits")
    app = open_training(data="digits", digits=64, steps=60, batch=8, lr=0.002, size=16, every=10)
    assert app.text_input(key="name").placeholder == "small-digits-2"
    press(app, "Start")
    assert not app.exception
    [run] = started
    assert run.path == runs_dir / "small-digits-2"
    assert not run.begun
    assert run.config == preset("small").replace(
        data="digits:64",
        steps=60,
        batch_size=8,
        learning_rate=0.002,
        image_size=16,
        channels=1,
        warmup_steps=6,
        checkpoint_every=10,
        sample_every=10,
        validate_every=10,
    )
    assert app.session_state["run"] == "small-digits-2"
    assert "small-digits-2 is starting." in words(app)


def test_another_preset_brings_its_own_numbers() -> None:
    app = open_training(steps=77)
    app.selectbox(key="preset").select("lecture").run()
    numbers = {key: app.number_input(key=key).value for key in ("steps", "batch", "every")}
    assert numbers == {"steps": 252, "batch": 128, "every": 25}


def test_samples_are_made_every_tenth_of_few_steps_until_they_are_set() -> None:
    app = open_training()

    def every() -> list[float]:
        keys = ("every", "checkpoints", "validations")
        return [app.number_input(key=key).value for key in keys]

    usual = preset("small").sample_every
    assert every() == [usual] * 3
    app.number_input(key="steps").set_value(300).run()
    assert every() == [30] * 3
    app.number_input(key="steps").set_value(5).run()
    assert every() == [1] * 3
    app.number_input(key="every").set_value(2).run()
    app.number_input(key="steps").set_value(300).run()
    assert every() == [2] * 3
    app = open_training(steps=60)
    assert every() == [6] * 3
    app = open_training(preset="tiny", steps=60)
    assert every() == [6, preset("tiny").checkpoint_every, preset("tiny").validate_every]


def test_few_allowed_steps_bring_their_samples_with_a_preset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_STEPS", "100")
    app = open_training(preset="tiny")
    app.selectbox(key="preset").select("small").run()
    keys = ("every", "checkpoints", "validations")
    assert [app.number_input(key=key).value for key in keys] == [10] * 3
    assert "Reset to default" not in buttons(app)


def test_other_images_bring_the_size_and_channels_that_suit_them() -> None:
    app = open_training()

    def suits() -> tuple[float, int]:
        return app.number_input(key="size").value, app.selectbox(key="channels").value

    assert suits() == (64, 3)
    app.selectbox(key="data").select("digits").run()
    assert suits() == (32, 1)
    app.selectbox(key="preset").select("tiny").run()
    assert suits() == (32, 1)
    app.selectbox(key="data").select("cars").run()
    assert suits() == (64, 3)
    app = open_training(data="digits")
    assert suits() == (32, 1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": 20}, "image_size is 20; it must be a multiple of 8"),
        ({"lr": 0}, "learning_rate is 0.0; it must be more than 0 and less than 10."),
        ({"data": "folder"}, "Give the folder that holds the images."),
        ({"data": "folder", "folder": "/no/such"}, "There is no folder /no/such;"),
        ({"data": "torchvision", "torchvision": "Nope"}, "no data set called 'Nope'"),
        ({"data": "digits", "digits": 9}, "leaves 9 images for training, fewer than a batch"),
        ({"name": "../up"}, "'../up' cannot be a run's name."),
        ({"name": "taken"}, "There is already a run called taken; choose another name."),
    ],
)
def test_bad_settings_get_one_sentence_and_make_no_folder(
    settings: dict, sentence: str, runs_dir: Path, started
) -> None:
    write_run(runs_dir, "taken")
    app = press(open_training(**settings), "Start")
    assert not app.exception
    [error] = app.error
    assert sentence in seen(error.value)
    assert not started
    assert [path.name for path in runs_dir.iterdir()] == ["taken"]


def test_settings_in_the_url_that_make_no_sense_are_left_out() -> None:
    app = open_training(steps="many", preset="huge", data="cats", lr="x")
    assert app.selectbox(key="preset").value == Start(preset="small")
    assert app.number_input(key="steps").value == 6000


def test_an_installation_caps_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_MAX_STEPS", "300")
    app = open_training()
    assert (app.number_input(key="steps").max, app.number_input(key="steps").value) == (300, 300)
    app.selectbox(key="preset").select("lecture").run()
    assert app.number_input(key="steps").value == 252
    with pytest.raises(ValueError, match="allows at most 300 steps"):
        entries = form_controls.entries_of(preset("small"), None)
        form_controls.make_config(preset("small"), "cars", entries | {"steps": 301}, max_steps=300)


def test_a_viewer_sees_the_run_and_neither_form_nor_buttons(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_ROLE", "viewer")
    write_run(runs_dir, "seen", "running")
    app = open_training()
    assert "Only the operator of this installation can start" in words(app)
    assert "seen is training." in words(app)
    assert buttons(app) == []
    assert "preset" not in app.session_state


def test_the_estimate_is_made_from_a_run_of_the_same_kind_on_this_machine(runs_dir: Path) -> None:
    write_run(runs_dir, "known")
    text = words(open_training(steps=1000, batch=32))
    assert "About 26 min 40 s" not in text  # from ten minutes on there are no seconds
    assert "About 26 min, at 20.0 images/s as in known." in text
    # Of another size there is one by the pixels: 32 × 32 instead of 64 × 64.
    digits = words(open_training(steps=1000, batch=32, data="digits"))
    assert (
        "About 6 min 40 s, at 80.0 images/s, estimated from known by the number of pixels."
        in digits
    )
    write_run(runs_dir, "known-elsewhere", host="another")
    (runs_dir / "known" / "status.json").unlink()
    assert "images/s as in" not in words(open_training(steps=1000))


# ---------------------------------------------------------------- a run


def test_a_run_at_work_shows_its_state_numbers_curves_samples_and_buttons(runs_dir: Path) -> None:
    write_run(runs_dir, "busy", "running")
    app = open_training()
    text = words(app)
    assert "busy is training." in text
    assert "learning rate 0.002 · seed 7" in text
    assert {m.label: m.value for m in app.metric} == {
        "Loss": "0.0200",
        "Validation loss": "0.4321",
        "Images per second": "20.0",
        "Memory": "1.5 GB",
    }
    assert buttons(app) == [
        *("Start", "Create without starting"),
        *("Pause", "Stop", "Sample now", "Checkpoint now", "Apply", "Duplicate run"),
    ]
    assert not app.expander[0].proto.expanded
    assert "busy is using the device; a new run waits until it is free." in text
    # The losses, the samples, the losses by timestep.
    shown = [each.proto.component_name for each in app.get("bidi_component")]
    assert shown == ["notify", "chart", "film", "chart"]
    assert "All strips of a run are generated from the same noise" in text


@pytest.mark.parametrize(
    ("state", "title"), [("running", "busy 33 % · Training"), ("finished", "busy · Training")]
)
def test_the_browsers_tab_names_the_run_and_its_progress(
    state: str, title: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr(st, "set_page_config", lambda **said: titles.append(said["page_title"]))
    write_run(runs_dir, "busy", state, step=66, total=200)
    open_training()
    assert titles[-1] == title


LIKE = "Duplicate run"
MOVES = ["Up", "Down", "Cancel"]


@pytest.mark.parametrize(
    ("state", "sentence", "offered"),
    [
        (
            "queued",
            "odd is waiting for the device. It is next.",
            ["Cancel", "Apply", LIKE, *MOVES],
        ),
        (
            "starting",
            "odd is starting. This takes a few seconds.",
            ["Pause", "Stop", "Apply", LIKE],
        ),
        ("pausing", "odd is pausing. It writes a checkpoint first.", [LIKE]),
        ("paused", "odd is paused. Resume the run to continue from step 40.", None),
        ("stopping", "odd is stopping. It writes a checkpoint first.", [LIKE]),
        ("stopped", "odd was stopped.", None),
        ("finished", "odd has finished.", ["Continue", LIKE, "Delete"]),
        ("failed", "odd has failed. The loss of step 9 is not a number.", None),
    ],
)
def test_every_state_has_its_words_and_its_buttons(
    state: str, sentence: str, offered: list[str] | None, runs_dir: Path
) -> None:
    error = "The loss of step 9 is not a number." if state == "failed" else None
    write_run(runs_dir, "odd", state, error=error)
    app = open_training()
    assert sentence in words(app)
    at_rest = ["Resume", "Apply", LIKE, "Delete"]
    assert buttons(app)[2:] == (at_rest if offered is None else offered)


@pytest.mark.parametrize(
    ("state", "samples", "losses"),
    [
        ("queued", "The first samples appear here during", "The losses appear here after"),
        ("failed", "This run has no samples yet. They appear", "This run has no losses yet. They"),
        ("finished", "This run has no samples.", "This run has no losses."),
    ],
)
def test_what_is_said_in_the_place_of_samples_and_losses(
    state: str, samples: str, losses: str, runs_dir: Path
) -> None:
    path = write_run(runs_dir, "bare", state)
    shutil.rmtree(path / "samples")
    (path / "metrics.sqlite").unlink()
    text = words(open_training())
    assert samples in text
    assert losses in text


def test_a_run_that_was_only_created_says_so(runs_dir: Path, started) -> None:
    jobs.create(runs_dir, "new", tiny())
    app = open_training()
    text = words(app)
    assert "new has not been started. Start it here or on several machines." in text
    assert "The first samples appear here during training." in text
    press(app, "Start run")
    assert [run.path for run in started] == [runs_dir / "new"]


def test_samples_under_way_are_said_where_they_will_appear(runs_dir: Path) -> None:
    path = write_run(runs_dir, "busy", "running", sampling_step=50)
    assert "Sampling at step 50 …" in words(open_training())
    write_request(path, "sample")
    assert "Sampling at the next step …" in words(open_training())
    write_run(runs_dir, "gone", "running", sampling_step=50, process_started=1.0, heartbeat=0.0)
    assert "Sampling at" not in words(open_training(run="gone"))


def test_the_first_steps_give_no_time_that_is_left(runs_dir: Path) -> None:
    def time_left(step: int) -> bool:
        write_run(runs_dir, f"at-{step}", "running", step=step, resumed_from=40)
        return "left" in open_training(run=f"at-{step}").get("progress")[0].proto.text

    assert [time_left(step) for step in (49, 50)] == [False, True]


def test_compared_runs_have_a_table_of_figures_and_one_of_settings(runs_dir: Path) -> None:
    write_run(runs_dir, "one", created=2.0)
    other = write_run(runs_dir, "two", created=1.0, step=60, images_per_second=None)
    metrics = MetricsWriter(runs_dir / "one" / "metrics.sqlite")  # it had others, which are gone
    metrics.add([(50, "loss", 0.01, 0.0)])
    metrics.close()
    app = open_training(compare="two")
    table = component_data(app, "comparison")
    assert table["names"] == ["one", "two"]
    [figures] = table["parts"]
    assert {line["name"]: line["cells"] for line in figures["lines"]} == {
        "Step": ["50", "60"],
        "Loss": ["0.0100", "0.0200"],
        "Validation loss": ["", "0.4321"],
        "Images per second": ["20.0", ""],
        "Memory": ["1.5 GB", "1.5 GB"],
    }
    assert "The settings of these runs are the same." in words(app)
    update = {
        "data": "digits",
        "schedule": {"kind": "linear", "timesteps": 1000},
        "learning_rate": 5e-4,
    }
    settings = json.loads((other / "config.json").read_text()) | update
    (other / "config.json").write_text(json.dumps(settings))
    settings = component_data(open_training(compare="two"), "comparison")["parts"][1]["lines"]
    assert [(line["name"], line["cells"]) for line in settings] == [
        ("schedule.kind", ["cosine", "linear"]),
        ("data", ["cars", "digits"]),
        ("learning_rate", ["0.002", "0.0005"]),
    ]
    assert settings[1]["text"] == "The images to train on."
    assert settings[1]["marked"] == [False, True]


def test_a_validation_loss_is_explained_once_there_is_one(runs_dir: Path) -> None:
    path = write_run(runs_dir, "run")
    assert "The validation loss is unweighted" in words(open_training())
    (path / "metrics.sqlite").unlink()
    metrics = MetricsWriter(path / "metrics.sqlite")
    metrics.add([(1, "loss", 1.0, 0.0)])
    metrics.close()
    text = words(open_training())
    assert "weighted by min-SNR" in text
    assert "validation" not in text


@pytest.mark.parametrize("state", ["paused", "failed", "running"])
def test_a_run_whose_settings_cannot_be_read_cannot_be_resumed(state: str, runs_dir: Path) -> None:
    path = write_run(runs_dir, "odd", state, process_started=1.0, heartbeat=0.0)
    (path / "config.json").write_text("{")
    app = open_training()
    assert buttons(app)[2:] == ["Delete"]
    assert "esume the run" not in words(app)
    assert "odd cannot be read in full. config.json is not readable JSON." in words(app)
    if state != "failed":
        assert "it cannot be resumed without its settings." in words(app).replace("It", "it")


def test_a_run_whose_process_was_killed_is_lost_and_can_be_resumed(runs_dir: Path, started) -> None:
    path = write_run(runs_dir, "gone", "running", process_started=1.0, heartbeat=0.0)
    (path / "train.log").write_text("Killed\n")
    app = open_training()
    assert "gone is lost." in words(app)
    assert "resume the run to continue from step 40" in words(app)
    assert "Killed" in [code.value for code in app.code]
    press(app, "Resume")
    assert [(run.path, run.begun) for run in started] == [(path, True)]
    assert "gone is starting." in words(app)


def test_what_was_asked_and_not_yet_taken_up_is_shown(runs_dir: Path) -> None:
    path = write_run(runs_dir, "busy", "running")
    app = press(open_training(), "Pause")
    assert json.loads((path / "request.json").read_text())["action"] == "pause"
    assert "Pause requested; it takes effect at the next step." in words(app)
    disabled = [button.label for button in app.button if button.disabled]
    assert disabled == ["Pause", "Sample now", "Checkpoint now"]
    press(app, "Stop")
    assert json.loads((path / "request.json").read_text())["action"] == "stop"


def test_a_queued_run_says_who_is_before_it(runs_dir: Path) -> None:
    write_run(runs_dir, "first", "running")
    write_run(runs_dir, "second", "queued", queued_at=1.0)
    write_run(runs_dir, "third", "queued", queued_at=2.0)
    assert "first is using it. 1 run before it." in words(open_training(run="third"))


def test_warnings_and_broken_checkpoints_are_named(runs_dir: Path) -> None:
    path = write_run(runs_dir, "full", "running", warning="The disk is full: go on later.")
    (path / "weights").mkdir()
    (path / "weights" / "step-00000040.safetensors").write_bytes(b"cut")
    text = words(open_training())
    assert "The disk is full: go on later." in text
    assert "A checkpoint is skipped: step-00000040.safetensors is damaged" in text


def test_a_run_of_the_lecture_is_shown_beside_the_lectures_own_losses(runs_dir: Path) -> None:
    write_run(runs_dir, "lecture", preset_name="lecture")
    text = words(open_training())
    assert "mean absolute difference between the true and the predicted noise" in text
    assert "Stanford Cars. This run trains on cars, so the curves need not match." in text


def test_other_runs_can_be_laid_over_it(runs_dir: Path) -> None:
    write_run(runs_dir, "older", created=1.0)
    write_run(runs_dir, "newer")
    app = open_training(compare="older")
    assert app.multiselect(key="compare").value == ["older"]
    assert "only the shapes of the curves can be compared" in words(app)


def test_the_url_chooses_the_run_and_an_unknown_one_is_named(runs_dir: Path) -> None:
    write_run(runs_dir, "older", created=1.0)
    write_run(runs_dir, "newer")
    assert "older has finished." in words(open_training(run="older"))
    text = words(open_training(run="nobody"))
    assert "Run is 'nobody'; it must be one of newer, older." in text
    assert "newer has finished." in text


def test_a_look_at_the_page_reads_each_file_of_a_run_once(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        write_run(runs_dir, name, "running")
    app = open_training(compare="one")
    read: list[str] = []

    def counting(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith(".json"):
            read.append(str(path))
        return plain(path, *arguments, **options)

    plain: Any = open
    monkeypatch.setattr("builtins.open", counting)
    app.run()
    monkeypatch.undo()
    assert not app.exception
    expected = [runs_dir / name / file for name in ("one", "two", "three") for file in FILES]
    counts = {path: read.count(str(path)) for path in expected}
    assert counts == dict.fromkeys(expected, 1)


# ---------------------------------------------------------------- what may be on the disk


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("status.json", "{", "Its status.json is missing or damaged"),
        ("status.json", '{"state": 5, "step": "x", "created": []}', "hurt is lost"),
        ("status.json", '{"state": "on fire", "total": null}', "hurt is lost"),
        ("config.json", "{", "hurt cannot be read in full. config.json is not readable JSON."),
        ("config.json", '{"steps": "many"}', "hurt cannot be read in full. config.json: steps is"),
        ("config.json", None, "hurt has finished."),
        ("metrics.sqlite", "no database, " * 999, "cannot be shown: metrics.sqlite is damaged."),
        ("metrics.sqlite", None, "This run has no losses."),
        ("samples/step-00000050.png", "x", "All strips of a run are generated from the same noise"),
    ],
)
def test_a_damaged_or_half_written_folder_gets_a_sentence(
    file: str, content: str | None, sentence: str, runs_dir: Path
) -> None:
    path = write_run(runs_dir, "hurt") / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    app = open_training()
    assert not app.exception
    assert sentence in words(app)


def test_the_table_names_every_run(runs_dir: Path) -> None:
    older = write_run(runs_dir, "older", "stopped", created=1.0)
    write_config_file(older, preset("small").replace(preset_version=1), {})
    write_run(runs_dir, "newer")
    table = open_training().dataframe[0].value
    assert table["Run"].tolist() == ["newer", "older"]
    assert table["State"].tolist() == ["finished", "stopped"]
    assert table["Step"].tolist() == ["50 / 200"] * 2
    assert table["Preset"].tolist() == ["small", "small, version 1"]


def test_all_numbers_of_a_run_can_be_kept_as_csv_and_parquet(runs_dir: Path) -> None:
    path = write_run(runs_dir, "numbers", "finished")
    (path / "metrics.sqlite").rename(path / "kept")
    app = open_training(more="Settings")
    offered = {button.proto.label: button.proto for button in app.get("download_button")}
    assert all(offered[f"All metrics as {name}"].disabled for name in ("CSV", "Parquet"))
    (path / "kept").rename(path / "metrics.sqlite")
    app.run()
    offered = {button.proto.label: button.proto for button in app.get("download_button")}
    assert not any(offered[f"All metrics as {name}"].disabled for name in ("CSV", "Parquet"))
