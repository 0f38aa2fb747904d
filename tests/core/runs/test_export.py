"""Exports: diffusers reads them and generates our images; CSV and Parquet."""

from __future__ import annotations

import errno
import io
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import save_weights
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.export import ExportError, metrics_table, scheduler_config, write_diffusers
from diffusion_core.runs.metrics import MetricsWriter
from diffusion_core.runs.presets import build_network, build_schedule
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.sample import sample
from tests.tiny_runs import CLASSES, LECTURE, TINY, write_run

FLOW = TINY.replace(prediction_type="flow_prediction")
CLASSES_OF_DIFFUSERS = ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"]


def export_run(runs_dir: Path, config: RunConfig = TINY) -> Path:
    path = write_run(runs_dir, "tiny", config=config)
    network = build_network(config.network, config.network_args)
    for parameter in network.parameters():  # large, so that the timestep changes the prediction
        torch.nn.init.normal_(parameter, std=0.3)
    classes = CLASSES if config.network_args.get("num_classes") else ()
    save_weights(path, 40, network.state_dict(), config, classes)
    run, out = load_run(path), runs_dir / "folder"
    write_diffusers(run, run.checkpoint(40), out)
    return out


def scheduler_of(folder: Path, config: dict, name: str):
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return getattr(diffusers, name).from_pretrained(folder, subfolder="scheduler")


def exported_network(folder: Path) -> torch.nn.Module:
    config = json.loads((folder / "unet/config.json").read_text())
    network = build_network(config["network"], config["network_args"]).eval()
    weights = safetensors.torch.load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    network.load_state_dict(weights)
    return network


def write_metrics(run: Path, *rows: tuple) -> None:
    writer = MetricsWriter(run / "metrics.sqlite")
    writer.add(rows)
    writer.close()


# ---------------------------------------------------------------- the schedule


@pytest.mark.parametrize("name", CLASSES_OF_DIFFUSERS)
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_every_scheduler_of_diffusers_reads_our_schedule(
    name: str, rescale: bool, kind: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "kind": kind,
        "timesteps": 1000,
        "beta_start": 2e-4,
        "beta_end": 0.015,
        "rescale_zero_terminal_snr": rescale,
    }
    theirs = scheduler_of(tmp_path, scheduler_config(TINY.replace(schedule=settings)), name)
    ours = NoiseSchedule(**settings)
    assert theirs.config.num_train_timesteps == 1000
    assert (theirs.alphas_cumprod - ours.alphas_cumprod).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("epsilon", "epsilon"), ("x_0", "sample"), ("v_prediction", "v_prediction")],
)
def test_what_the_network_predicts_has_diffusers_name(ours: str, theirs: str) -> None:
    assert scheduler_config(TINY.replace(prediction_type=ours))["prediction_type"] == theirs


def test_diffusers_adds_noise_as_our_flow_does(tmp_path: Path) -> None:
    theirs = scheduler_of(tmp_path, scheduler_config(FLOW), "FlowMatchEulerDiscreteScheduler")
    ours = build_schedule(FLOW)
    x_0, noise = torch.randn(20, 3, 4, 4), torch.randn(20, 3, 4, 4)
    t = torch.arange(20)
    expected, _ = ours.add_noise(x_0, t, noise)
    assert torch.allclose(theirs.scale_noise(x_0, t + 1.0, noise), expected, atol=1e-6)


# ---------------------------------------------------------------- the images


@pytest.mark.parametrize("prediction_type", ["epsilon", "x_0", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_diffusers_ddim_with_our_network_draws_our_images(
    prediction_type: str, spacing: str, runs_dir: Path
) -> None:
    """Ours finds epsilon anew from a clipped image: theirs calls it use_clipped_model_output."""
    config = TINY.replace(prediction_type=prediction_type)
    folder = export_run(runs_dir, config)
    network = exported_network(folder)
    changes = {} if spacing == "trailing" else {"timestep_spacing": spacing}  # our default
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder, subfolder="scheduler", **changes)
    scheduler.set_timesteps(5)
    labels = torch.tensor([0, 2])
    x_T = x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            prediction = network(x, t.repeat(2), labels)
            x = scheduler.step(prediction, t, x, use_clipped_model_output=True).prev_sample
    ours = sample(
        *(network, build_schedule(config), 2, "ddim", 5, 0, prediction_type, x_T, spacing),
        labels=labels,
    )
    assert ours.std() > 0.1
    assert torch.allclose(ours, x.clamp(-1, 1), atol=1e-4)


def test_diffusers_euler_with_our_network_draws_our_flow(runs_dir: Path) -> None:
    folder = export_run(runs_dir, FLOW)
    first = json.loads((folder / "unet/config.json").read_text())["first_timestep"]
    network = exported_network(folder)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
        folder, subfolder="scheduler"
    )
    # Without these, theirs ends its walk at 1 / timesteps whatever the number of steps.
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 5, 5))
    labels = torch.tensor([0, 2])
    x_T = x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t.repeat(2) - first, labels), t, x).prev_sample
    ours = sample(
        *(network, build_schedule(FLOW), 2, "euler", 5, 0, "flow_prediction", x_T),
        clip_x0=False,
        labels=labels,
    )
    assert ours.std() > 0.1
    assert torch.allclose(ours, x.clamp(-1, 1), atol=1e-4)


def test_a_flow_of_a_network_that_predicts_the_image_is_refused(runs_dir: Path) -> None:
    run = load_run(write_run(runs_dir, "mine", 4, config=FLOW.replace(prediction_type="flow_x_0")))
    with pytest.raises(ExportError, match="that predicts its direction; mine predicts image x₀"):
        write_diffusers(run, run.checkpoint(4), runs_dir / "out")


def test_a_distilled_run_is_refused(runs_dir: Path) -> None:
    settings = {"objective": "consistency", "init_from": "x", "min_snr_gamma": 0.0}
    run = load_run(write_run(runs_dir, "fast", 4, config=TINY.replace(**settings)))
    with pytest.raises(ExportError, match="no scheduler for fast, which is a distilled run"):
        write_diffusers(run, run.checkpoint(4), runs_dir / "out")


GREY = TINY.replace(network_args={**TINY.network_args, "channels": 1}, channels=1)


def check_images(path: Path, config: RunConfig) -> None:
    """Four images in a row, not of one colour."""
    image = np.asarray(Image.open(path))
    assert image.shape == (config.image_size, 4 * config.image_size, 3)
    assert image.std() > 10


@pytest.mark.parametrize(
    "config", [TINY, GREY, FLOW, LECTURE], ids=["tiny", "grey", "flow", "lecture"]
)
def test_the_exported_script_generates_images(
    config: RunConfig, runs_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    folder, out = export_run(runs_dir, config), tmp_path / "images.png"
    script = str(folder / "sample_with_diffusers.py")
    monkeypatch.setattr(sys, "argv", [script, str(out)])
    monkeypatch.syspath_prepend(folder)
    runpy.run_path(script, run_name="__main__")
    check_images(out, config)


def test_no_exported_script_imports_this_project(runs_dir: Path) -> None:
    """tests/docs runs the script as a process of its own."""
    scripts = sorted(export_run(runs_dir).glob("*.py"))
    assert [script.name for script in scripts] == ["network.py", "sample_with_diffusers.py"]
    for script in scripts:
        assert not re.search(r"diffusion_core|dashboard", script.read_text())


# ---------------------------------------------------------------- the folder


def test_the_folder_says_what_the_network_is(runs_dir: Path) -> None:
    folder = export_run(runs_dir)
    config = json.loads((folder / "unet/config.json").read_text())
    assert config["_class_name"] == "Unet"
    assert (config["image_size"], config["channels"], config["first_timestep"]) == (16, 3, 0)
    assert config["class_names"] == list(CLASSES)
    readme = (folder / "README.md").read_text()
    assert "tiny, step 40" in readme and "0 van, 1 bus, 2 coupé" in readme
    assert sorted(p.name for p in folder.iterdir()) == [
        *("README.md", "network.py", "sample_with_diffusers.py", "scheduler", "unet"),
    ]


def test_learned_timesteps_of_the_step_are_in_the_folder(runs_dir: Path) -> None:
    run = write_run(runs_dir, "tiny", 20, 40) / "timesteps"
    run.mkdir()
    for step in (20, 40):
        (run / f"step-{step:08d}-0123456789ab.json").write_text(f'{{"step": {step}}}')
    write_diffusers(load_run(run.parent), load_run(run.parent).checkpoint(40), runs_dir / "folder")
    [found] = (runs_dir / "folder" / "timesteps").iterdir()
    assert json.loads(found.read_text()) == {"step": 40}


def test_a_folder_that_is_there_is_left_alone(runs_dir: Path, capsys) -> None:
    folder = export_run(runs_dir)
    before = sorted(folder.rglob("*"))
    words = ["export", str(runs_dir / "tiny"), "--format", "diffusers", "--out", str(folder)]
    assert main(words) == 1
    assert "already exists; choose another folder with --out or remove it." in one_line(capsys)
    assert sorted(folder.rglob("*")) == before


def test_a_full_disk_leaves_no_part_of_a_folder(runs_dir: Path, capsys, monkeypatch) -> None:
    run = write_run(runs_dir, "tiny", 40)

    def fail(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    out = runs_dir / "folder"
    assert main(["export", str(run), "--format", "diffusers", "--out", str(out)]) == 1
    assert "The disk is full: folder could not be written" in one_line(capsys)
    assert [path.name for path in runs_dir.iterdir()] == ["tiny"]


# ---------------------------------------------------------------- the numbers


def test_the_numbers_are_one_row_a_step_in_both_formats(runs_dir: Path) -> None:
    path = write_run(runs_dir, "tiny")
    rows = [(step, "loss", 1 / 3 / step, 100.5 + step) for step in range(1, 3001)]
    write_metrics(path, *rows, (2, "validation_loss", 0.25, 103.0))
    run = load_run(path)
    table = pd.read_parquet(io.BytesIO(metrics_table(run, "parquet")))
    assert list(table) == ["step", "wall_time", "loss", "validation_loss"]
    assert table["step"].tolist() == list(range(1, 3001))  # more than a page would be sent
    assert table["loss"].tolist() == [1 / 3 / step for step in range(1, 3001)]
    assert table["wall_time"][1] == 102.5  # the step's own, not that of its validation
    assert table["validation_loss"].dropna().to_dict() == {1: 0.25}
    text = metrics_table(run, "csv")
    assert text.startswith(b"step,wall_time,loss,validation_loss\n1,101.5,0.3333333333333333,\n")
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(text)), table, check_exact=True)


# ---------------------------------------------------------------- the command line


def one_line(capsys) -> str:
    """What was said on standard error, which must be one line."""
    text = capsys.readouterr().err
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


def test_the_command_writes_into_the_current_folder(
    runs_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    run = write_run(runs_dir, "tiny", 20, 40)
    write_metrics(run, (1, "loss", 0.5, 1.0))
    monkeypatch.chdir(tmp_path)
    assert main(["export", "tiny", "--format", "diffusers"]) == 0
    assert "# tiny, step 40\n" in Path("tiny-diffusers/README.md").read_text()
    for step, name in ((20, "a"), (40, "b")):
        words = ["--step", str(step), "--out", name]
        assert main(["export", "tiny", "--format", "diffusers", *words]) == 0
        assert f"step {step}" in Path(name, "README.md").read_text()
    for format in ("csv", "parquet", "csv"):  # a second time replaces the file
        assert main(["export", "tiny", "--format", format]) == 0
    assert Path("tiny-metrics.csv").read_text() == "step,wall_time,loss\n1,1.0,0.5\n"
    assert pd.read_parquet("tiny-metrics.parquet")["loss"].tolist() == [0.5]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("tiny --format diffusers --step 7", 1, "tiny has no checkpoint of step 7."),
        ("bare --format diffusers", 1, "bare has no usable checkpoint yet."),
        ("tiny --format csv", 1, "tiny has no metrics yet; train it for a few steps first."),
        ("nothing --format csv", 1, "There is no run "),
        ("tiny --format csv --step 40", 2, "--step goes with --format diffusers and onnx"),
        ("tiny --format diffusers --out no/where", 2, "There is no folder no to write where to."),
    ],
)
def test_what_cannot_be_exported_gets_one_sentence(
    words: str, code: int, sentence: str, runs_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    write_run(runs_dir, "tiny", 40)
    write_run(runs_dir, "bare")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert main(["export", *words.split()]) == code
    assert sentence in one_line(capsys)
    assert set(tmp_path.iterdir()) == before


def test_numbers_are_not_written_over_a_folder(runs_dir: Path, capsys) -> None:
    run = write_run(runs_dir, "tiny")
    write_metrics(run, (1, "loss", 0.5, 1.0))
    assert main(["export", str(run), "--format", "csv", "--out", str(runs_dir)]) == 2
    assert "is a folder; give --out the name of a file." in one_line(capsys)
