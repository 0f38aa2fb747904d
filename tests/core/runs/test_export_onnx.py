"""Exports as ONNX: onnxruntime computes what the network does, and the script our images."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from diffusion_core.cli.main import main
from diffusion_core.media.images import strip, to_uint8
from diffusion_core.models import onnx_graph
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.process.noise import image_noise
from diffusion_core.process.prediction import prediction_type_of
from diffusion_core.runs import sample_with_onnx
from diffusion_core.runs.checkpoint import load_model, save_weights
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.history import read_history
from diffusion_core.runs.presets import build_network
from diffusion_core.runs.run import Run, load_run
from diffusion_core.sampling.sample import sample
from tests.tiny_runs import CLASSES, LECTURE, TINY, write_run

FLOW = TINY.replace(prediction_type="flow_prediction")
NO_CLASSES = {"widths": [8, 16], "blocks": 1, "attention_levels": [1]}
DISTILLED = TINY.replace(objective="consistency", init_from="x", min_snr_gamma=0.0)
GREY = TINY.replace(network_args={**NO_CLASSES, "channels": 1}, channels=1, prediction_type="x_0")


def weights_of(config: RunConfig, std: float = 0.2) -> dict[str, torch.Tensor]:
    """Large, so that the timestep and the class change the prediction."""
    torch.manual_seed(1)
    network = build_network(config.network, config.network_args)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    for name, buffer in network.named_buffers():  # as of a training
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_()
    return network.state_dict()


def write_large_run(runs_dir: Path, config: RunConfig = TINY) -> Run:
    path = write_run(runs_dir, "tiny", config=config)
    classes = CLASSES if config.network_args.get("num_classes") else ()
    averages = {"short": weights_of(config, 0.15)}
    save_weights(path, 40, weights_of(config), config, classes, averages)
    return load_run(path)


def export(run: Run, *more: str) -> Path:
    out = run.path.parent / "folder"
    assert main(["export", str(run.path), "--format", "onnx", "--out", str(out), *more]) == 0
    return out


def one_line(capsys) -> str:
    """What was said on standard error, which must be one line."""
    text = capsys.readouterr().err
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


# ---------------------------------------------------------------- the graph


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (Unet(3, (8, 16), 1, (1,), patch=1, num_classes=3), 16),
        (Unet(3, (12, 24), 2, (0, 1), patch=2), 16),
        (Unet(1, (8, 8), 1, (), patch=4), 16),
        (Unet(3, (64, 128), 1, (1,), patch=2), 8),  # two heads of attention
        (SimpleUnet((4, 8, 8, 8, 8)), 32),
        (SimpleUnet((4, 8, 8, 8, 8), channels=1), 24),  # padded
    ],
    ids=["classes", "patch-2", "grey-patch-4", "heads", "lecture", "lecture-padded"],
)
def test_onnxruntime_predicts_what_the_network_does(network: Unet | SimpleUnet, size: int) -> None:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    network.eval().requires_grad_(False)
    session = onnxruntime.InferenceSession(onnx_graph.write_graph(network, size, {}))
    for count in (1, 3):
        inputs = {"x": torch.randn(count, network.channels, size, size)}
        inputs["t"] = torch.tensor([999.0, 3.5, 0.0])[:count]
        if network_classes := getattr(network, "num_classes", 0):
            inputs["labels"] = torch.tensor([0, network_classes, 1])[:count]
        assert {each.name for each in session.get_inputs()} == inputs.keys()
        [found] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        expected = network(*inputs.values())
        assert expected.std() > 0.01
        assert np.abs(found - expected.numpy()).max() < 1e-4 * max(1, expected.abs().max())


def test_a_layer_that_is_not_known_is_refused() -> None:
    network = Unet(3, (8,), 1, ())
    network.middle.append(nn.Dropout())
    with pytest.raises(ValueError, match="A layer Dropout cannot be written as ONNX yet"):
        onnx_graph.write_graph(network, 8, {})


# ---------------------------------------------------------------- the folder


def test_the_folder_has_the_network_and_what_sampling_needs(runs_dir: Path, capsys) -> None:
    run = write_large_run(runs_dir)
    folder = export(run)
    said = capsys.readouterr()
    assert "tiny, step 40, as ONNX: " in said.out and said.err == ""
    assert "Checked with onnxruntime: differs from PyTorch by at most " in said.out
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "model.onnx", "sample_with_onnx.py")
    ]
    session, facts = sample_with_onnx.load(folder / "model.onnx")
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("x", "tensor(float)", ["batch", 3, 16, 16]),
        ("t", "tensor(float)", ["batch"]),
        ("labels", "tensor(int64)", ["batch"]),
    ]
    schedule = load_model(run.checkpoint(40)).schedule
    assert np.array_equal(facts.pop("signal"), schedule.exact_signal)
    assert np.array_equal(facts.pop("spread"), schedule.exact_spread)
    assert facts.pop("schedule").items() >= {"kind": "cosine", "timesteps": 20}.items()
    assert facts == {
        "run": "tiny",
        "step": 40,
        "average": "main",
        "prediction_type": TINY.prediction_type,
        "image_size": 16,
        "channels": 3,
        "classes": list(CLASSES),
        "any_class": True,
        "distilled": False,
        "timesteps": 20,
    }
    readme = (folder / "README.md").read_text()
    assert "0 van, 1 bus, 2 coupé; 3 stands for any class" in readme
    assert read_history(run.path).entries[-1].format == "onnx"


def test_float16_weights_take_half_the_room_and_another_average_can_be_chosen(
    runs_dir: Path,
) -> None:
    config = TINY.replace(network_args={**TINY.network_args, "widths": [24]})
    run = write_large_run(runs_dir, config)
    model, _, _ = load_model(run.checkpoint(40), average="short", exact=True)
    inputs = {"x": torch.randn(2, 3, 16, 16), "t": torch.tensor([3.0, 9.5])}
    inputs["labels"] = torch.tensor([0, 3])
    expected = model(*inputs.values()).numpy()
    errors, sizes = [], []
    for number, words in enumerate(([], ["--float16"])):
        folder = export(run, "--average", "short", *words)
        folder = folder.rename(run.path.parent / f"{number}")
        assert "--average short" in (folder / "README.md").read_text()
        session, facts = sample_with_onnx.load(folder / "model.onnx")
        assert facts["average"] == "short"
        [found] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        errors.append(np.abs(found - expected).max() / np.abs(expected).max())
        sizes.append((folder / "model.onnx").stat().st_size)
    assert errors[0] < 1e-5 < errors[1] < 1e-2
    assert sizes[1] < 0.7 * sizes[0]


# ---------------------------------------------------------------- the images


@pytest.mark.parametrize(
    ("seed", "shape"), [(0, (3, 8, 8)), (2**40 + 5, (3, 16, 16)), (7, (1, 5, 5))]
)
def test_the_script_draws_our_noise(seed: int, shape: tuple[int, ...]) -> None:
    ours = image_noise(seed, 2, shape, first=3)
    theirs = [sample_with_onnx.seed_noises(seed, k, shape) for k in (3, 4)]
    for _ in range(3):  # one after the other
        assert np.abs(ours().numpy() - [next(noises) for noises in theirs]).max() < 1e-5


@pytest.mark.parametrize(
    "config",
    [TINY, TINY.replace(prediction_type="epsilon"), GREY, FLOW, LECTURE, DISTILLED],
    ids=["v", "epsilon", "grey-x_0", "flow", "lecture", "distilled"],
)
def test_the_script_generates_our_images(config: RunConfig, runs_dir: Path, monkeypatch) -> None:
    run = write_large_run(runs_dir, config)
    folder = export(run)
    words = ["--n", "3", "--steps", "5", "--seed", "4"]
    out = folder / "images.png"
    script = folder / "sample_with_onnx.py"
    assert "diffusion_core" not in script.read_text() and "torch" not in script.read_text()
    monkeypatch.setattr(sys, "argv", [str(script), str(out), *words])
    runpy.run_path(str(script), run_name="__main__")
    model, schedule, _ = load_model(run.checkpoint(40), exact=True)
    sampler = "euler" if prediction_type_of(config.prediction_type).flow else "ddim"
    sampler = "consistency" if config.distilled else sampler
    ours = sample(
        *(model, schedule, 3, sampler, 5, 4, config.prediction_type),
        timestep_spacing="trailing",
        labels=torch.arange(3) if config.network_args.get("num_classes") else None,
        shape=config.image_shape,
    )
    expected = strip(to_uint8(ours)).squeeze().astype(int)
    assert expected.std() > 10
    found = np.asarray(Image.open(out)).astype(int)
    assert found.shape == expected.shape
    # Rounding moves a value at the border of two levels.
    assert np.abs(found - expected).max() <= 1


def test_the_script_takes_a_class_and_guidance(runs_dir: Path, monkeypatch, capsys) -> None:
    run = write_large_run(runs_dir)
    folder = export(run)
    out, script = folder / "images.png", str(folder / "sample_with_onnx.py")
    words = ["--n", "2", "--steps", "4", "--label", "bus", "--guidance", "1.5"]
    monkeypatch.setattr(sys, "argv", [script, str(out), *words])
    runpy.run_path(script, run_name="__main__")
    model, schedule, config = load_model(run.checkpoint(40), exact=True)
    ours = sample(
        *(model, schedule, 2, "ddim", 4, 0, config.prediction_type),
        labels=torch.tensor([1, 1]),
        guidance_scale=1.5,
        shape=config.image_shape,
    )
    expected = strip(to_uint8(ours)).astype(int)
    assert np.abs(np.asarray(Image.open(out)).astype(int) - expected).max() <= 1
    monkeypatch.setattr(sys, "argv", [script, str(out), "--steps", "21"])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "--steps 1 to 20" in capsys.readouterr().err


# ---------------------------------------------------------------- what goes wrong


def test_a_file_that_computes_something_else_is_not_written(
    runs_dir: Path, capsys, monkeypatch
) -> None:
    run = write_large_run(runs_dir)
    monkeypatch.setattr(onnx_graph, "_silu", lambda graph, x: graph.add("Relu", x))
    out = runs_dir / "folder"
    assert main(["export", str(run.path), "--format", "onnx", "--out", str(out)]) == 1
    assert "The ONNX file does not compute what the network does" in one_line(capsys)
    assert [path.name for path in runs_dir.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("value", "words", "sentence"),
    [
        (float("nan"), [], "The network predicts NaN or infinite values"),
        (1e6, ["--float16"], "tiny cannot be exported as ONNX. Some weights are too large for"),
    ],
)
def test_weights_that_cannot_be_used_get_one_sentence(
    value: float, words: list[str], sentence: str, runs_dir: Path, capsys
) -> None:
    path = write_run(runs_dir, "tiny")
    weights = weights_of(TINY)
    weights["stem.weight"][0] = value
    save_weights(path, 40, weights, TINY, CLASSES)
    command = ["export", str(path), "--format", "onnx", "--out", str(runs_dir / "folder"), *words]
    assert main(command) == 1
    assert sentence in one_line(capsys)


def test_without_onnx_a_sentence_says_what_to_install(runs_dir: Path, capsys, monkeypatch) -> None:
    run = write_large_run(runs_dir)
    monkeypatch.delitem(sys.modules, "diffusion_core.models.onnx_graph", raising=False)
    monkeypatch.delattr("diffusion_core.models.onnx_graph", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    command = ["export", str(run.path), "--format", "onnx", "--out", str(runs_dir / "folder")]
    assert main(command) == 1
    assert "pip install -r requirements-onnx.txt" in one_line(capsys)


def test_without_onnxruntime_the_file_is_written_unchecked(
    runs_dir: Path, capsys, monkeypatch
) -> None:
    run = write_large_run(runs_dir)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder = export(run)
    assert "Not checked: onnxruntime is not installed" in capsys.readouterr().out
    onnx.checker.check_model(onnx.load(folder / "model.onnx"))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--format onnx --step 7", 1, "tiny has no checkpoint of step 7."),
        ("--format onnx --average long", 1, "has no averaged weights called 'long'"),
        ("--format onnx --weights best", 2, "--dry-run go with --format archive."),
        ("--format diffusers --float16", 2, "--average and --float16 go with --format onnx."),
        ("--format archive --average main", 2, "--average and --float16 go with --format onnx."),
    ],
)
def test_what_cannot_be_exported_gets_one_sentence(
    words: str, code: int, sentence: str, runs_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    write_run(runs_dir, "tiny", 40)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert main(["export", "tiny", *words.split()]) == code
    assert sentence in one_line(capsys)
    assert set(tmp_path.iterdir()) == before
