"""What earlier versions wrote stays readable: run folders, links, image files, exports.

`tests/fixtures/README.md` says what they are and who wrote them. A test reads copies, and only
through what lasts: the library's exported names, the command line, the pages by widget key.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import socket
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import numpy as np
import pytest
import safetensors.torch
import streamlit as st
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

# ---------------------------------------------------------------- all that is not a lasting name
from diffusion_core import list_runs, load_model, load_run, sample
from diffusion_core.cli.main import main
from tests.pages.app import component_data, open_page, words

pytestmark = pytest.mark.usefixtures("quick_python")

# The file of each page, by its place in an address.
PAGES = {
    "schedule": "schedule.py",
    "noising": "noising.py",
    "embedding": "embedding.py",
    "network": "unet.py",
    "training": "training.py",
    "sampling": "sampling.py",
}
# A page that got views since: the one that shows a control of its links.
VIEWS = {"embedding": {"run": "Time MLP"}}
# A control that got another key, or a choice that got other words, since the fixtures were written:
# old key to new key, and (old key, old value) to new value.
NEW_KEYS: dict[str, str] = {}
NEW_VALUES: dict[tuple[str, Any], Any] = {
    ("mode", "Draw"): "Generate",
    ("mode", "From a picture"): "Edit",
    ("mode", "Between two"): "Interpolate",
    ("mode", "Side by side"): "Compare",
    ("mode", "Many"): "Batch",
    ("edit", "Invert and back"): "Invert",
    ("from", "drawn before"): "generated",
    ("show", "the predicted x_0"): "predicted x_0",
    ("way", "as the lecture does"): "lecture",
    ("vs_way", "as the lecture does"): "lecture",
    # The Training form's controls hold what they set in the record.
    ("preset", "base"): ["base", "", False],
    ("preset", "as grey"): ["", "grey", False],
    ("target", "picture"): "x_0",
    ("target", "flow"): "flow_prediction",
    ("loss", "Huber"): "huber",
    ("channels", "grey"): 1,
    ("optimizer", "Adam"): "adam",
    ("precision", "float32"): "no",
}


def now_called(values: dict[str, Any]) -> dict[str, Any]:
    """The values of controls as today's pages name them."""

    def new(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [NEW_VALUES.get((key, each), each) for each in value]
        return NEW_VALUES.get((key, value), value)

    return {NEW_KEYS.get(key, key): new(key, value) for key, value in values.items()}


# ---------------------------------------------------------------------------------------- helpers

FIXTURES = Path(__file__).parents[1] / "fixtures"
LINKS = json.loads((FIXTURES / "links.json").read_text(encoding="utf-8"))
IMAGES = json.loads((FIXTURES / "images.json").read_text(encoding="utf-8"))
SOON = 30.0  # seconds, on a busy machine
# Losses of the steps that the version that wrote `stopped` and `asked` made after their checkpoint.
LOSSES = {5: 0.12144113, 6: 0.10134663, 7: 0.020651, 8: 0.14770515}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def old_runs(runs_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run folders, where the app and the command line look for runs."""
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(cache))
    shutil.copytree(FIXTURES / "runs", runs_dir, dirs_exist_ok=True)
    # Killed an hour ago, whatever the clocks of this machine and of the one that wrote it say.
    set_status(runs_dir / "asked", heartbeat=time.time() - 3600)
    return runs_dir


def set_status(run: Path, **fields: object) -> None:
    path = run / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def command(*words: object) -> int:
    return main([str(word) for word in words])


def pixels(image: bytes | Path) -> np.ndarray:
    source = io.BytesIO(image) if isinstance(image, bytes) else image
    with Image.open(source) as opened:
        return np.asarray(opened).astype(int)


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for rounding: networks run in bfloat16 where the hardware computes in it, which
    changes these pixels by 0.13 of 255 on average at the most."""
    return one.shape == other.shape and float(np.abs(one - other).mean()) < 0.5


def open_link(address: str) -> AppTest:
    parts = urlsplit(address)
    given = parse_qs(parts.query, strict_parsing=True)
    settings = {key: texts if len(texts) > 1 else texts[0] for key, texts in given.items()}
    return open_page(PAGES[parts.path.strip("/")], **settings)


def in_the_browser(app: AppTest) -> dict[str, Any]:
    """The values of the controls that are parts of components."""
    there = {each.proto.component_name for each in app.get("bidi_component")}
    found = {"t": component_data(app, "timestep")["t"]} if "timestep" in there else {}
    return found | (component_data(app, "noising")["settings"] if "noising" in there else {})


def check_controls(app: AppTest, values: dict[str, Any]) -> None:
    others = in_the_browser(app)
    for key, value in now_called(values).items():
        if value == [] and key not in [each.key for each in app.multiselect]:
            continue  # the mode Compare shows the lists that have values
        found = others[key] if key in others else app.session_state[key]
        assert (list(found) if isinstance(found, tuple) else found) == value, key


def drop(app: AppTest, name: str) -> None:
    """Restore the settings of an image file."""
    data = (FIXTURES / "images" / name).read_bytes()
    field = next(f for f in app.file_uploader if f.key and f.key.startswith("restore"))
    field.set_value((name, data, "image/png")).run()
    assert not app.exception


def downloads(app: AppTest, monkeypatch: pytest.MonkeyPatch, end: str) -> list[bytes]:
    """What the download buttons of the page send, of files whose names end so."""
    found: list[bytes] = []

    def keep(label: str, data: Any = None, file_name: str = "", **more: object) -> None:
        if file_name.endswith(end):
            found.append(data() if callable(data) else data)

    with monkeypatch.context() as patched:
        patched.setattr(st, "download_button", keep)
        app.run()
    assert not app.exception
    return found


# ------------------------------------------------------------------------------------------- runs

# Of each run: state, step, step of the latest checkpoint, last loss, prediction type, data.
RUNS = {
    "conditional": ("finished", 8, 8, 0.14854796, "v_prediction", "cars:64"),
    "flow": ("finished", 4, 4, 0.06379971, "flow_prediction", "digits"),
    "lecture": ("finished", 4, 4, 0.84114391, "epsilon", "cars:48"),
    "grey": ("finished", 4, 4, 0.81120557, "x_0", "digits"),
    "stopped": ("stopped", 6, 6, 0.10134663, "v_prediction", "cars:48"),
    "asked": ("lost", 4, 4, 0.35416651, "v_prediction", "cars:48"),
    # Of a run that has not begun only the words are kept, with the preset of today.
    "failed": ("failed", 0, None, None, "x_0", "folder:no-such-folder"),
    "waiting": ("queued", 0, None, None, "x_0", "cars:48"),
    "waiting-first": ("queued", 0, None, None, "epsilon", "digits"),
}


def test_every_run_is_listed_with_its_state_settings_and_numbers(old_runs: Path) -> None:
    found = {run.name: run for run in list_runs(old_runs)}
    assert found.keys() == RUNS.keys()
    for name, (state, step, latest, loss, prediction_type, data) in RUNS.items():
        run = load_run(old_runs / name)
        checkpoint, config = run.latest_checkpoint(), run.config
        assert (run.state, run.status.step) == (state, step), name
        assert (checkpoint and checkpoint.step) == latest, name
        assert (config and (config.prediction_type, config.data)) == (
            prediction_type and (prediction_type, data)
        ), name
        losses = run.curve("loss")["value"]
        assert len(losses) == (latest or 0), name
        if loss is not None:
            assert losses[-1] == pytest.approx(loss, rel=1e-6), name


def test_settings_changed_on_the_way_classes_and_averages_are_known(old_runs: Path) -> None:
    run = load_run(old_runs / "conditional")
    config, checkpoint = run.config, run.latest_checkpoint()
    assert config is not None and checkpoint is not None
    # config.json has 0.001 and 4 steps, changes.json what holds from step 5 on.
    assert (config.learning_rate, config.sample_every, config.steps) == (0.0005, 3, 8)
    assert (config.batch_size, config.image_size, config.validation_count) == (4, 16, 16)
    assert config.schedule == {"kind": "cosine", "timesteps": 20}
    assert checkpoint.classes[::7] == ("sedan", "coupé") and len(checkpoint.classes) == 8
    assert [step for step, _ in run.samples()] == [2, 4, 6, 8]
    grey = load_run(old_runs / "grey").latest_checkpoint()
    assert grey is not None
    assert sorted(grey.averages) == ["long", "main", "short"] and grey.config.channels == 1
    assert "no-such-folder" in load_run(old_runs / "failed").status.error


@pytest.mark.parametrize("name", ["conditional", "flow", "lecture", "grey", "stopped", "asked"])
def test_every_checkpoint_loads_and_draws(old_runs: Path, name: str) -> None:
    checkpoint = load_run(old_runs / name).latest_checkpoint()
    assert checkpoint is not None
    model, schedule, config = load_model(checkpoint, "cpu")
    drawn = sample(
        model,
        schedule,
        2,
        "euler" if name == "flow" else "ddim",
        3,
        prediction_type=config.prediction_type,
        shape=config.image_shape,
        labels=torch.tensor([0, 1]) if checkpoint.classes else None,
    )
    assert drawn.shape == (2, *config.image_shape)
    assert drawn.isfinite().all() and drawn.abs().max() <= 1 and drawn.std() > 0.005


def test_the_command_line_lists_runs_and_queue(
    old_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("runs", "--runs-dir", old_runs) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows.keys() - {"run"} == RUNS.keys()
    assert rows["conditional"][1:5] == ["finished", "8", "8", "0.1485"]
    assert rows["asked"][1:5] == ["lost", "4", "8", "0.3542"]
    assert rows["waiting"][1:4] == ["queued", "0", "12"]
    assert command("queue", "--runs-dir", old_runs) == 0
    out = capsys.readouterr().out
    # The order that `.queue.json` holds: the later one was moved to the front.
    assert 0 < out.index("waiting-first") < out.rindex("waiting ")
    assert "fixture-host" in out


def test_a_run_that_waits_is_changed_copied_and_taken_out_of_the_queue(old_runs: Path) -> None:
    assert command("change", old_runs / "waiting", "learning_rate=0.0003") == 0
    words = ["--run", old_runs / "again", "--like", "waiting", "--steps", 1, "--quiet"]
    assert command("train", *words, "--device", "cpu") == 0
    config = load_run(old_runs / "again").config
    assert config is not None
    assert (config.learning_rate, config.image_size, config.steps) == (0.0003, 16, 1)
    assert config.network_args["widths"] == [8]
    assert command("queue", "cancel", old_runs / "waiting") == 0
    assert load_run(old_runs / "waiting").state == "stopped"


def test_a_failed_run_can_be_copied_and_a_deleted_one_comes_back(
    old_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", old_runs / "again", "--like", "failed", "--quiet", "--device", "cpu"]
    assert command("train", *words) == 1
    assert "no-such-folder" in capsys.readouterr().err
    assert command("restore", "deleted", "--runs-dir", old_runs) == 0
    assert load_run(old_runs / "deleted").state == "failed"


@pytest.mark.parametrize("name", ["stopped", "asked"])
def test_a_run_is_resumed_and_makes_the_same_steps(old_runs: Path, name: str) -> None:
    words = ["--resume", "--quiet", "--device", "cpu"]
    assert command("train", "--run", old_runs / name, *words) == 0
    run = load_run(old_runs / name)
    curve = run.curve("loss")
    losses = dict(zip(curve["step"].tolist(), curve["value"].tolist(), strict=True))
    assert run.state == "finished" and list(losses) == list(range(1, 9))
    for step, loss in LOSSES.items():
        assert losses[step] == pytest.approx(loss, rel=1e-3), step
    # What was asked of the process that was killed is not meant for the next one.
    assert not (run.path / "request.json").exists()
    latest = run.latest_checkpoint()
    assert latest is not None and latest.step == 8


def test_the_command_resume_starts_a_process_that_finishes_the_run(old_runs: Path) -> None:
    assert command("resume", old_runs / "stopped", "--device", "cpu") == 0
    run, deadline = load_run(old_runs / "stopped"), time.monotonic() + SOON
    while run.state not in ("finished", "failed", "lost") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (run.state, run.status.step) == ("finished", 8)


def test_a_finished_run_goes_on_with_more_steps(old_runs: Path) -> None:
    path = old_runs / "conditional"
    words = ["--resume", "--steps", 9, "--quiet", "--device", "cpu"]
    assert command("train", "--run", path, *words) == 0
    config = load_run(path).config
    assert config is not None and (config.steps, config.learning_rate) == (9, 0.0005)


def test_a_request_that_waits_is_seen_while_its_process_lives(
    old_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = old_runs / "asked"
    set_status(path, pid=os.getpid(), host=socket.gethostname(), heartbeat=time.time())
    assert load_run(path).state == "running"
    before = (path / "request.json").read_text()
    assert command("sample-now", path) == 1  # it was asked to pause
    assert capsys.readouterr().err.strip()
    assert (path / "request.json").read_text() == before


# ---------------------------------------------------------- sampling, series, quality, exports

COMMANDS = {
    "guidance": "conditional --n 2 --steps 5 --seed 5 --label bus --guidance-scale 3 "
    "--negative van --guidance-interval 2 15",
    "ddim": "conditional --n 8 --step 4 --steps 4 --sampler ddim --eta 0.3 --spacing leading",
    "lecture": "lecture --n 1 --lecture",
    "flow": "flow --n 2 --steps 3 --sampler euler --seed 8",
    "average": "grey --n 2 --steps 3 --average long",
    "variance": "conditional --n 1 --sampler ddpm --variance lecture --label 2",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_sample_draws_the_same_again(old_runs: Path, tmp_path: Path, name: str) -> None:
    run, *words = COMMANDS[name].split()
    out = tmp_path / "grid.png"
    words += ["--out", str(out), "--device", "cpu"]
    assert command("sample", "--run", old_runs / run, *words) == 0
    assert alike(pixels(out), pixels(FIXTURES / "images" / f"command-{name}.png"))


def test_a_half_finished_series_is_gone_on_with(old_runs: Path) -> None:
    run = old_runs / "conditional"
    pictures = run / "drawings" / "half" / "pictures"
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert sorted(before) == ["000000.png", "000001.png"]
    out = f"{run}/drawings/half/"
    assert command("sample", "--run", run, "--out", out, "--resume", "--device", "cpu") == 0
    assert sorted(path.name for path in pictures.iterdir()) == [f"{k:06d}.png" for k in range(6)]
    for name, data in before.items():
        assert (pictures / name).read_bytes() == data


@pytest.mark.parametrize("name", ["finished", "half"])
def test_the_page_shows_a_series_and_sends_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    app = open_link(f"/sampling?mode=Many&run=conditional&series={name}")
    assert app.session_state["series"] == name
    [data] = downloads(app, monkeypatch, ".zip")
    folder = FIXTURES / "runs" / "conditional" / "drawings" / name
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sent = {Path(each).name: archive.read(each) for each in archive.namelist()}
    assert sent.keys() - {"settings.json"} == {path.name for path in folder.glob("pictures/*")}
    for path in folder.glob("pictures/*"):
        assert sent[path.name] == path.read_bytes()


def test_the_zip_of_a_series_holds_pictures_that_can_be_restored(old_runs: Path) -> None:
    with zipfile.ZipFile(FIXTURES / "conditional-finished.zip") as archive:
        names = archive.namelist()
        data = archive.read("finished/000001.png")
    assert names == ["settings.json", *(f"finished/{k:06d}.png" for k in range(4))]
    app = open_page("sampling.py")
    field = next(f for f in app.file_uploader if f.key and f.key.startswith("restore"))
    field.set_value(("one.png", data, "image/png")).run()
    check_controls(app, {"run": "conditional", "sampler": "ddim", "steps": 3, "picture": 2})


def test_measured_quality_is_read_and_not_measured_again(
    old_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quality = old_runs / "conditional" / "quality"
    before = {path.name: path.read_bytes() for path in quality.iterdir()}
    words = ["--run", old_runs / "conditional", "--n", 16, "--steps", 3, 5, "--bits-per-dim"]
    assert command("evaluate", *words, "--device", "cpu") == 0
    out = capsys.readouterr().out
    for value in ("52.9 (34.8 to 70.9)", "176 (160 to 192)", "9.63 (9.61 to 9.64)"):
        assert value in out
    assert {path.name: path.read_bytes() for path in quality.iterdir()} == before
    app = open_link("/training?run=conditional&more=Quality")
    tables = [frame.value.to_string() for frame in app.dataframe]
    assert any("176 (160 to 192)" in table and "0.0500" in table for table in tables)


@pytest.mark.parametrize("name", ["conditional", "flow"])
def test_an_export_for_diffusers_draws_and_is_written_the_same(
    old_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(FIXTURES / "diffusers" / name, old)
    assert command("export", old_runs / name, "--format", "diffusers", "--out", new) == 0
    for file in ("network.py", "sample_with_diffusers.py"):  # since version 0.2 in the folder
        shutil.copy(new / file, old)
    script = str(old / "sample_with_diffusers.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "images.png")])
    monkeypatch.syspath_prepend(old)
    runpy.run_path(script, run_name="__main__")
    assert pixels(tmp_path / "images.png").std() > 5
    settings = "scheduler/scheduler_config.json"
    assert json.loads((new / settings).read_text()) == json.loads((old / settings).read_text())
    tensors = [
        safetensors.torch.load_file(folder / "unet/diffusion_pytorch_model.safetensors")
        for folder in (old, new)
    ]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][key]) for key, tensor in tensors[0].items())


def test_the_numbers_of_a_run_are_exported_the_same(old_runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "numbers.csv"
    assert command("export", old_runs / "conditional", "--format", "csv", "--out", out) == 0
    assert out.read_text() == (FIXTURES / "conditional-metrics.csv").read_text()


# ------------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link["what"])
def test_a_link_sets_the_controls(link: dict[str, Any]) -> None:
    values = dict(link["values"])
    for key, view in VIEWS.get(link["what"], {}).items():
        app = open_link(f"{link['address']}&view={quote_plus(view)}")
        check_controls(app, {key: values.pop(key)})
    check_controls(open_link(link["address"]), values)


@pytest.mark.parametrize("name", ["asked", "failed", "stopped", "waiting", "waiting-first"])
def test_the_training_page_shows_every_run(name: str) -> None:
    app = open_link(f"/training?run={name}")
    assert app.session_state["run"] == name
    assert name in words(app)


def test_an_image_file_sets_the_controls() -> None:
    app = open_page("sampling.py", run="flow", seed=123)
    for image in IMAGES:
        drop(app, image["file"])
        assert not app.error, image["file"]
        # The others say what does not come with the file: an upload, a mask painted by hand.
        lost = [each for each in app.warning if "diverges on this schedule" not in each.value]
        assert (len(app.success), len(lost)) == ((1, 0) if image["complete"] else (0, 1))
        check_controls(app, image["values"])


def test_the_files_hold_one_of_every_mode() -> None:
    there = {path.name for path in (FIXTURES / "images").iterdir()}
    assert there == {image["file"] for image in IMAGES}
    modes = {image["values"]["mode"] for image in IMAGES}
    assert modes == {"Draw", "From a picture", "Between two", "Side by side"}


@pytest.mark.parametrize(
    "name",
    [
        "generate-grid",
        "lecture-sampling",
        "flow",
        "grey-average",
        "vary-all",
        "repaint-area",
        "invert-four",
        "between-frames",
        "compare-runs",
        "compare-averages",
        "compare-variances",
    ],
)
def test_an_image_file_is_drawn_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("sampling.py")
    drop(app, f"{name}.png")
    [button] = [b for b in app.button if b.proto.type == "primary"]
    button.click().run()
    wanted, deadline = pixels(FIXTURES / "images" / f"{name}.png"), time.monotonic() + SOON
    found: Callable[[], bool] = lambda: any(  # noqa: E731
        alike(pixels(data), wanted) for data in downloads(app, monkeypatch, ".png")
    )
    while not found():
        assert time.monotonic() < deadline, "It was not drawn, or is another picture."
        time.sleep(0.1)
