"""The library's front, and that it does what the command line does."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion_core
from diffusion_core.runs.run import load_run
from tests.core.cli.commands import draw, image

ROOT = Path(diffusion_core.__file__).parent.parent


def test_it_runs_as_a_module_in_a_process_of_its_own(finished: Path, tmp_path: Path) -> None:
    words = ["sample", "--run", str(finished), "--n", "1", "--steps", "2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_core", *words, "--out", "grid.png"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 image of tiny, step 4: grid.png\n"
    assert image(tmp_path / "grid.png").shape == (16, 16, 3)


def test_the_library_samples_a_run_in_five_lines(finished: Path) -> None:
    from diffusion_core import load_model, load_run, sample

    checkpoint = load_run(finished).latest_checkpoint()
    model, schedule, config = load_model(checkpoint, "cpu")
    images = sample(
        model,
        schedule,
        2,
        sampler="ddim",
        steps=3,
        prediction_type=config.prediction_type,
        x_T=torch.randn(2, 3, 16, 16),
    )
    assert images.shape == (2, 3, 16, 16)
    assert images.abs().max() <= 1


def test_the_command_line_and_the_library_draw_the_same_images(
    finished: Path, tmp_path: Path
) -> None:
    from diffusion_core.media.images import grid, png, to_uint8

    assert draw(finished, tmp_path / "x.png", "--n", "2", "--seed", "3") == 0
    model, schedule, config = diffusion_core.load_model(load_run(finished).latest_checkpoint())
    images = diffusion_core.sample(
        model,
        schedule,
        2,
        "dpmpp_2m",
        3,
        seed=3,
        prediction_type=config.prediction_type,
        labels=torch.tensor([0, 1]),
        shape=(3, 16, 16),
    )
    drawn = Image.open(io.BytesIO(png(grid(to_uint8(images)))))
    assert np.array_equal(np.asarray(drawn), image(tmp_path / "x.png"))


def test_the_names_of_the_design_can_be_imported() -> None:
    promised = (
        "NoiseSchedule SinusoidalPositionEmbeddings SimpleUnet Unet build_model sample StepView "
        "Cancelled load_run Run load_model"
    ).split()
    assert set(promised) <= set(diffusion_core.__all__) <= set(dir(diffusion_core))
    for name in diffusion_core.__all__:
        assert getattr(diffusion_core, name) is not None
    assert diffusion_core.NoiseSchedule(kind="cosine").timesteps == 300
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffusion_core.nothing


def test_the_signatures_of_the_design_are_kept() -> None:
    def defaults(function) -> dict:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}

    empty = inspect.Parameter.empty
    assert defaults(diffusion_core.NoiseSchedule) == {
        "kind": "linear",
        "timesteps": 300,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "rescale_zero_terminal_snr": False,
    }
    assert list(defaults(diffusion_core.sample).items()) == [
        ("model", empty),
        ("schedule", empty),
        ("n", empty),
        ("sampler", "ddpm"),
        ("steps", None),
        ("seed", 0),
        ("prediction_type", "epsilon"),
        ("x_T", None),
        ("timestep_spacing", None),  # the sampler's usual one
        ("clip_x0", True),
        ("labels", None),
        ("guidance_scale", 1.0),
        ("on_step", None),
    ]
    assert list(defaults(diffusion_core.NoiseSchedule.add_noise)) == ["self", "x_0", "t", "noise"]


def test_decoding_images_does_not_load_pytorch() -> None:
    """The processes that decode start quickly."""
    code = "import sys, diffusion_core.data.store; print('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
