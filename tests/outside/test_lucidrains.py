"""Schedules, the posterior and the conversions against lucidrains' denoising-diffusion-pytorch."""

from __future__ import annotations

import denoising_diffusion_pytorch.denoising_diffusion_pytorch as lucidrains
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.objective import make_target, posterior, predict_epsilon, predict_x_0
from diffusion_core.process.schedule import NoiseSchedule

THEIRS = {"linear": "linear", "cosine": "cosine"}
OBJECTIVES = {"epsilon": "pred_noise", "x_0": "pred_x0", "v_prediction": "pred_v"}


class Nothing(nn.Module):
    """Stands in for a network: only the process around it is compared."""

    channels, self_condition, random_or_learned_sinusoidal_cond = 3, False, False
    out_dim = 3


def process(
    kind: str, timesteps: int, objective: str = "pred_noise"
) -> lucidrains.GaussianDiffusion:
    return lucidrains.GaussianDiffusion(
        Nothing(), image_size=4, timesteps=timesteps, beta_schedule=kind, objective=objective
    )


def images() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x_0, noise = torch.randn(2, 5, 3, 4, 4, generator=generator)
    return x_0, noise, torch.tensor([0, 1, 100, 900, 998])


@pytest.mark.parametrize("kind", THEIRS)
def test_the_noise_levels_are_theirs(kind: str) -> None:
    ours, theirs = NoiseSchedule(kind, 1000), process(kind, 1000)
    # Theirs are rounded to float32 once they are computed.
    assert np.allclose(ours.exact_alphas_cumprod, theirs.alphas_cumprod, rtol=1e-5, atol=1e-9)
    assert torch.allclose(ours.betas, theirs.betas, rtol=1e-5)
    assert torch.allclose(ours.posterior_variance, theirs.posterior_variance, rtol=1e-4)


@pytest.mark.parametrize("kind", THEIRS)
def test_noising_and_the_posterior_are_theirs(kind: str) -> None:
    ours, theirs = NoiseSchedule(kind, 1000), process(kind, 1000)
    x_0, noise, t = images()
    x_t, _ = ours.add_noise(x_0, t, noise)
    assert torch.allclose(x_t, theirs.q_sample(x_0, t, noise), atol=1e-5)
    mean, variance = posterior(ours, x_0, x_t, t)
    their_mean, their_variance, _ = theirs.q_posterior(x_0, x_t, t)
    assert torch.allclose(mean, their_mean, rtol=1e-3, atol=1e-4)
    assert torch.allclose(variance, their_variance, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("prediction_type", OBJECTIVES)
def test_targets_and_what_follows_from_a_prediction_are_theirs(prediction_type: str) -> None:
    ours, theirs = NoiseSchedule("linear", 1000), process("linear", 1000)
    x_0, noise, t = images()
    x_t, _ = ours.add_noise(x_0, t, noise)
    target = make_target(ours, x_0, noise, t, prediction_type)
    expected = {
        "epsilon": noise,
        "x_0": x_0,
        "v_prediction": theirs.predict_v(x_0, t, noise),
    }[prediction_type]
    assert torch.allclose(target, expected, atol=1e-5)
    guess = target + 0.1
    x_0_there = {
        "epsilon": lambda: theirs.predict_start_from_noise(x_t, t, guess),
        "x_0": lambda: guess,
        "v_prediction": lambda: theirs.predict_start_from_v(x_t, t, guess),
    }[prediction_type]()
    found = predict_x_0(ours, x_t, t, guess, prediction_type)
    assert torch.allclose(found, x_0_there, rtol=1e-3, atol=1e-4)
    noise_there = theirs.predict_noise_from_start(x_t, t, x_0_there)
    found = predict_epsilon(ours, x_t, t, guess, prediction_type)
    assert torch.allclose(found[1:], noise_there[1:], rtol=1e-2, atol=1e-2)  # t = 0: few digits


@pytest.mark.parametrize("prediction_type", OBJECTIVES)
def test_min_snr_weights_are_theirs(prediction_type: str) -> None:
    from diffusion_core.process.objective import min_snr_weight

    ours = NoiseSchedule("cosine", 1000)
    theirs = lucidrains.GaussianDiffusion(
        Nothing(),
        image_size=4,
        timesteps=1000,
        beta_schedule="cosine",
        objective=OBJECTIVES[prediction_type],
        min_snr_loss_weight=True,
        min_snr_gamma=5,
    )
    found = min_snr_weight(ours, torch.arange(1000), 5.0, prediction_type)
    assert torch.allclose(found, theirs.loss_weight, rtol=1e-3, atol=1e-6)
