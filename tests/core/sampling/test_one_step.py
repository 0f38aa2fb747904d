"""One step: its predictions by hand, its ways against diffusers, what a pixel depends on."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.objective import make_target
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.runs.presets import build_schedule
from diffusion_core.sampling.one_step import (
    Asked,
    Predicted,
    dependence,
    posteriors,
    predict,
    steps_from,
)
from tests.tiny_runs import tiny

SHAPE = (1, 3, 6, 6)
THEIRS = {"epsilon": "epsilon", "x_0": "sample", "v_prediction": "v_prediction"}


def drawn(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


X_0, NOISE, Z = drawn(0).clamp(-1, 1), drawn(1), drawn(2)


class Network(nn.Module):
    """A linear one, different for each t and class."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(drawn(3)[0, :, :3, :3].reshape(3, 3, 3).mean(2))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        label = 2 if labels is None else labels[:, None, None, None]
        return torch.einsum("oc,bchw->bohw", self.mix, x) + 0.01 * t[:, None, None, None] - label


def loaded(**changes: Any) -> LoadedModel:
    config = tiny(**changes)
    return LoadedModel(Network(), build_schedule(config), config)


@pytest.mark.parametrize(
    ("prediction_type", "schedule"),
    [
        *((name, {"kind": "linear", "timesteps": 50}) for name in THEIRS),
        ("flow_prediction", {"timesteps": 50}),
    ],
)
def test_the_prediction_is_the_networks_and_the_loss_that_of_training(
    prediction_type: str, schedule: dict[str, Any]
) -> None:
    model = loaded(prediction_type=prediction_type, schedule=schedule, loss="l1")
    found = predict(model, X_0, NOISE, Asked(20, label=1))
    t = torch.tensor([20])
    x_t, _ = model.schedule.add_noise(X_0, t, NOISE)
    target = make_target(model.schedule, X_0, NOISE, t, prediction_type)
    answer = model.model(x_t, t, torch.tensor([1]))
    torch.testing.assert_close(found.x_t, x_t)
    torch.testing.assert_close(found.target, target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.answer, answer, atol=1e-4, rtol=1e-4)
    assert found.loss == pytest.approx(float((answer - target).abs().mean().detach()), rel=1e-4)
    signal, spread = model.schedule.signal[20], model.schedule.spread[20]
    flow = model.schedule.is_flow
    velocity = NOISE - X_0 if flow else signal * NOISE - spread * X_0
    torch.testing.assert_close(found.velocity, velocity, atol=1e-5, rtol=1e-5)
    if prediction_type in ("v_prediction", "flow_prediction"):
        torch.testing.assert_close(found.predicted_velocity, answer, atol=1e-4, rtol=1e-4)
    back = model.schedule.add_noise(found.predicted_x_0, t, found.predicted_noise)[0]
    torch.testing.assert_close(back, x_t, atol=1e-3, rtol=1e-3)


def test_the_weighted_loss_is_what_training_adds_up() -> None:
    """min-SNR-gamma on v: min(SNR, gamma) / (SNR + 1), Hang et al. 2023."""
    schedule = {"kind": "linear", "timesteps": 50}
    model = loaded(prediction_type="v_prediction", schedule=schedule, min_snr_gamma=2.0)
    found = predict(model, X_0, NOISE, Asked(3))
    snr = float(model.schedule.snr[3])
    assert snr > 2
    assert found.weighted_loss == pytest.approx(found.loss * 2 / (snr + 1), rel=1e-5)


def test_a_network_that_has_diverged_predicts_no_image() -> None:
    model = loaded(prediction_type="epsilon")
    model.model.get_parameter("mix").data.fill_(torch.nan)
    found = predict(model, X_0, NOISE, Asked(5))
    assert not found.is_finite and found.x_0_error == float("inf")


def test_guidance_goes_from_any_class_beyond_the_class() -> None:
    model = loaded(prediction_type="epsilon")
    any_class, of_class, guided = (
        predict(model, X_0, NOISE, asked).answer
        for asked in (Asked(5), Asked(5, 1), Asked(5, 1, 3.0))
    )
    torch.testing.assert_close(guided, any_class + 3 * (of_class - any_class))


@pytest.mark.parametrize("t", [0, 1, 25, 49])
@pytest.mark.parametrize("prediction_type", THEIRS)
def test_ddpm_and_ddim_step_as_diffusers_does(
    prediction_type: str, t: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(prediction_type=prediction_type, schedule={"kind": "linear", "timesteps": 50})
    asked = Asked(t, label=0)
    found = predict(model, X_0, NOISE, asked)
    ours = steps_from(model, found, asked, Z)
    settings = {
        "num_train_timesteps": 50,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": THEIRS[prediction_type],
        "clip_sample": True,
    }
    ddpm = diffusers.DDPMScheduler(**settings)
    ddpm.set_timesteps(50)
    module = __import__(diffusers.DDPMScheduler.__module__, fromlist=["randn_tensor"])
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: Z)
    theirs = ddpm.step(found.answer, t, found.x_t).prev_sample
    torch.testing.assert_close(ours["ddpm"], theirs, atol=1e-4, rtol=1e-4)
    ddim = diffusers.DDIMScheduler(**settings, set_alpha_to_one=True)
    ddim.set_timesteps(50)
    theirs = ddim.step(found.answer, t, found.x_t, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(ours["ddim"], theirs, atol=1e-4, rtol=1e-4)


def test_the_lectures_step_is_its_formula() -> None:
    model = loaded(prediction_type="epsilon", schedule={"kind": "linear", "timesteps": 300})
    schedule = model.schedule
    assert isinstance(schedule, NoiseSchedule)
    asked = Asked(150)
    found = predict(model, X_0, NOISE, asked)
    mean = schedule.sqrt_recip_alphas[150] * (
        found.x_t
        - schedule.betas[150] * found.predicted_noise / schedule.sqrt_one_minus_alphas_cumprod[150]
    )
    theirs = (mean + schedule.posterior_variance[150] * Z).clamp(-1, 1)
    ours = steps_from(model, found, asked, Z)["lecture"]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_posteriors_are_the_ddpm_step_without_noise() -> None:
    model = loaded(prediction_type="x_0", schedule={"kind": "cosine", "timesteps": 20})
    asked = Asked(7)
    found = predict(model, X_0, NOISE, asked)
    assert isinstance(model.schedule, NoiseSchedule)
    predicted, true, variance = posteriors(model.schedule, found, asked)
    step = steps_from(model, found, asked, Z)["ddpm"]
    torch.testing.assert_close(step, predicted + variance**0.5 * Z, atol=1e-5, rtol=1e-5)
    perfect = Predicted(**{**vars(found), "predicted_x_0": X_0})
    torch.testing.assert_close(steps_from(model, perfect, asked, 0 * Z)["ddpm"], true)


def test_a_flow_steps_along_its_line() -> None:
    model = loaded(prediction_type="flow_prediction", schedule={"timesteps": 50})
    asked = Asked(20)
    found = predict(model, X_0, NOISE, asked)
    made = steps_from(model, found, asked, Z)
    assert list(made) == ["euler"]
    image = found.predicted_x_0.clamp(-1, 1)
    s, s_before = 21 / 50, 20 / 50
    epsilon = (found.x_t - (1 - s) * image) / s
    expected = (1 - s_before) * image + s_before * epsilon
    torch.testing.assert_close(made["euler"], expected, atol=1e-5, rtol=1e-5)


def test_a_pixel_depends_on_what_its_gradient_says() -> None:
    """Of the linear network d x_0 / d x_t is one matrix of channels, at the pixel alone."""
    model = loaded(prediction_type="epsilon", schedule={"kind": "linear", "timesteps": 50})
    found = predict(model, X_0, NOISE, Asked(20))
    gradient = dependence(model, found.x_t, Asked(20), (2, 4))
    signal, spread = model.schedule.signal[20], model.schedule.spread[20]
    matrix = (torch.eye(3) - spread * model.model.get_parameter("mix").detach()) / signal
    expected = torch.zeros(6, 6)
    expected[2, 4] = matrix.norm()
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def test_at_pure_noise_an_epsilon_prediction_says_nothing_of_the_image() -> None:
    schedule = {"kind": "linear", "timesteps": 20, "rescale_zero_terminal_snr": True}
    model = loaded(prediction_type="v_prediction", schedule=schedule)
    found = predict(model, X_0, NOISE, Asked(19))
    torch.testing.assert_close(found.x_t, NOISE)
    assert found.predicted_x_0.isfinite().all()
    for image in steps_from(model, found, Asked(19), Z).values():
        assert image.isfinite().all()
