"""Rectified flow: its algebra, and its samplers against diffusers and a known answer."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import Tensor, nn

from diffusion_core.models.unet import Unet
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.objective import (
    make_target,
    min_snr_weight,
    predict_epsilon,
    predict_x_0,
)
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.sampling.levels import spaced_timesteps
from diffusion_core.sampling.sample import sample

FLOW = "flow_prediction"


class Direction(nn.Module):
    """The exact direction of the flow to N(mean, std^2): E[epsilon - x_0 | x_t]."""

    def __init__(self, schedule: FlowSchedule, mean: float, std: float) -> None:
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        s = ((t + 1) / self.schedule.timesteps).double()[:, None, None, None]
        spread = (1 - s) ** 2 * self.std**2 + s**2
        gain = (s - (1 - s) * self.std**2) / spread
        return gain * (x - (1 - s) * self.mean) - self.mean


def exact_end(x_T: Tensor, mean: float, std: float) -> Tensor:
    """Where the exact flow carries the noise to: the same quantile of N(mean, std^2)."""
    return mean + std * x_T


@pytest.fixture
def network() -> Unet:
    torch.manual_seed(0)
    network = Unet(widths=[8, 16], blocks=1, attention_levels=[1], patch=1).eval()
    for parameter in network.parameters():  # its output starts at zero
        nn.init.normal_(parameter, std=0.1)
    return network


def test_the_line_goes_from_the_image_to_the_noise() -> None:
    schedule = FlowSchedule(10)
    x_0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    t = torch.tensor([4, 9])
    x_t, _ = schedule.add_noise(x_0, t, noise)
    assert torch.allclose(x_t[0], 0.5 * x_0[0] + 0.5 * noise[0])
    assert torch.equal(x_t[1], noise[1])  # the last timestep is pure noise


def test_image_and_noise_are_found_again_from_the_direction() -> None:
    schedule = FlowSchedule(50)
    x_0, noise, t = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4), torch.arange(0, 50, 10)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    direction = make_target(schedule, x_0, noise, t, FLOW)
    assert torch.equal(direction, noise - x_0)
    assert torch.allclose(predict_x_0(schedule, x_t, t, direction, FLOW), x_0, atol=1e-5)
    assert torch.allclose(predict_epsilon(schedule, x_t, t, direction, FLOW), noise, atol=1e-5)


def test_the_weighted_objective_is_the_same_on_the_direction_and_on_the_image() -> None:
    schedule = FlowSchedule(50)
    x_0, guess, t = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4), torch.arange(5, 50, 9)
    noise = torch.randn(5, 3, 4, 4)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    error = (guess - make_target(schedule, x_0, noise, t, FLOW)).square().flatten(1).mean(1)
    image = predict_x_0(schedule, x_t, t, guess, FLOW)
    image_error = (image - x_0).square().flatten(1).mean(1)
    on_direction = error * min_snr_weight(schedule, t, 5.0, FLOW)
    on_image = image_error * min_snr_weight(schedule, t, 5.0, "x_0")
    assert torch.allclose(on_direction, on_image, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_euler_equals_diffusers(network: Unet, steps: int) -> None:
    schedule = FlowSchedule(100)
    x_T = torch.randn(2, 3, 8, 8)
    ours = sample(
        network, schedule, 2, "euler", steps, prediction_type=FLOW, x_T=x_T, clip_x0=False
    )
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=100)
    walk = spaced_timesteps(100, steps)
    theirs.set_timesteps(sigmas=[(t + 1) / 100 for t in walk])
    x = x_T
    with torch.no_grad():
        for t, at in zip(walk, theirs.timesteps, strict=True):
            x = theirs.step(network(x, torch.full((2,), t)), at, x).prev_sample
    assert torch.allclose(ours, x.clamp(-1, 1), atol=1e-4)


def test_heun_equals_diffusers(network: Unet) -> None:
    schedule, steps = FlowSchedule(100), 10
    x_T = torch.randn(2, 3, 8, 8)
    ours = sample(network, schedule, 2, "heun", steps, prediction_type=FLOW, x_T=x_T, clip_x0=False)
    theirs = FlowMatchHeunDiscreteScheduler(num_train_timesteps=100)
    # Its own spacing ends at another sigma than ours; the method is compared on our steps.
    sigmas = torch.tensor([(t + 1) / 100 for t in spaced_timesteps(100, steps)])
    theirs.sigmas = torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2), torch.zeros(1)])
    theirs.timesteps = theirs.sigmas[:-1] * 100
    theirs.prev_derivative, theirs.dt, theirs._step_index = None, None, 0
    theirs._begin_index = 0
    x = x_T
    with torch.no_grad():
        for at in theirs.timesteps:
            t = torch.full((2,), round(float(at)) - 1)
            x = theirs.step(network(x, t), at, x).prev_sample
    assert torch.allclose(ours, x.clamp(-1, 1), atol=1e-4)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_samplers_converge_to_the_exact_flow_at_their_order(sampler: str, order: int) -> None:
    schedule = FlowSchedule(3200)
    model = Direction(schedule, mean=0.2, std=0.1)
    x_T = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        found = sample(
            model, schedule, 4, sampler, steps, prediction_type=FLOW, x_T=x_T, clip_x0=False
        )
        errors.append((found - exact_end(x_T, 0.2, 0.1)).abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.35)


def test_a_flow_and_a_diffusion_take_only_their_own_samplers(network: Unet) -> None:
    with pytest.raises(ValueError, match="choose one of euler, heun"):
        sample(network, FlowSchedule(10), 1, "ddim", 2, prediction_type=FLOW)
    with pytest.raises(ValueError, match="choose one of dpmpp_2m, ddim, ddpm"):
        sample(network, NoiseSchedule("linear", 10), 1, "plms", 2)


def test_a_flow_of_one_timestep_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="at least 2 timesteps"):
        FlowSchedule(1)
