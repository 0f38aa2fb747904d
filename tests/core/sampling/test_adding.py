"""A sampler is one function and one record, and so is a prediction type: added here, they are found
wherever samplers and prediction types are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion_core.cli.main import main, make_parser
from diffusion_core.process.objective import make_target, min_snr_weight, predict_epsilon
from diffusion_core.process.prediction import PREDICTION_TYPES, PredictionType
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.config import parse_settings, with_settings
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import Run
from diffusion_core.sampling import registry
from diffusion_core.sampling.capabilities import Capabilities
from diffusion_core.sampling.levels import NoiseLevel
from diffusion_core.sampling.metadata import read
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.solvers import Noise, Predict, Sampler, Steps, StepView
from tests.tiny_runs import TINY, write_run


def leap(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Takes the first predicted image for the image."""
    x_0, epsilon = predict(x_T, levels[0])
    yield StepView(0, 1, levels[0].t, x_0, x_0, epsilon)


LEAP = Sampler("leap", "Leap", leap, r"x_0 = \hat x_0", "$x$ is $x$.", usual_steps=3)
SCORE = PredictionType(  # -epsilon / spread: Song & Ermon 2019
    "score",
    "score",
    r"the score $-\epsilon / \sigma$",
    target=lambda x_0, noise, signal, spread: -noise / spread,
    to_x_0=lambda prediction, x_t, signal, spread: (x_t + spread**2 * prediction) / signal,
    to_epsilon=lambda prediction, x_t, signal, spread: -spread * prediction,
    snr_weight=lambda snr, gamma, signal, spread: spread.square() * (gamma / snr).clamp(max=1),
    learns_pure_noise=False,
)


def sample_a_grid(run: Path, out: Path, *arguments: str) -> None:
    options = ["--run", str(run), "--device", "cpu", "--n", "2", "--out", str(out)]
    assert main(["sample", *options, *arguments]) == 0


@pytest.fixture
def with_leap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", [*registry.REGISTRY, LEAP])


def test_a_sampler_that_is_added_is_found(with_leap: None, runs_dir: Path, tmp_path: Path) -> None:
    assert samplers_for(NoiseSchedule("cosine", 20))[-1] is LEAP
    ends_in_noise = NoiseSchedule("cosine", 20, rescale_zero_terminal_snr=True)
    assert LEAP not in samplers_for(ends_in_noise)

    run = write_run(runs_dir, "cars", 20)
    can = Capabilities.of(Run(run).checkpoint(20))
    assert can.samplers[-1] == "leap" and can.usual_steps["leap"] == 3

    words = make_parser().parse_args(["sample", "--run", str(run), "--sampler", "leap"])
    assert words.sampler == "leap"
    sample_a_grid(run, tmp_path / "grid.png", "--sampler", "leap")
    made = read((tmp_path / "grid.png").read_bytes())
    assert (made.spec.sampler, made.spec.steps) == ("leap", 3)
    assert made.spec.problems(can) == []


def test_a_sampler_that_is_not_there_is_refused(runs_dir: Path, tmp_path: Path) -> None:
    run = write_run(runs_dir, "cars", 20)
    with pytest.raises(SystemExit):
        sample_a_grid(run, tmp_path / "grid.png", "--sampler", "leap")


def test_a_prediction_type_that_is_added_is_found(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PREDICTION_TYPES, "score", SCORE)
    schedule = NoiseSchedule("cosine", 20)
    x_0, noise, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([3, 12])
    x_t, _ = schedule.add_noise(x_0, t, noise)
    target = make_target(schedule, x_0, noise, t, "score")
    assert torch.allclose(predict_epsilon(schedule, x_t, t, target, "score"), noise, atol=1e-5)
    assert min_snr_weight(schedule, t, 5.0, "score").shape == (2,)

    run = write_run(runs_dir, "cars", 20, config=TINY.replace(prediction_type="score"))
    checkpoint = Run(run).checkpoint(20)
    assert checkpoint.config.prediction_type == "score"
    can = Capabilities.of(checkpoint)
    assert "dpmpp_2m" in can.samplers and not can.flow
    sample_a_grid(run, tmp_path / "grid.png")
    assert read((tmp_path / "grid.png").read_bytes()).spec.problems(can) == []

    given = parse_settings(["prediction_type=score"])  # of --set
    assert with_settings(preset("small"), given).prediction_type == "score"
