"""What min-SNR teaches of pure noise, by small trainings: sampling starts there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.objective import loss_per_image, make_target, min_snr_weight
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.sampling.sample import sample

GREY = 0.6  # of all images, nearly
SHAPE = (1, 2, 2)
ZERO_SNR = NoiseSchedule("linear", 100, rescale_zero_terminal_snr=True)


class Network(nn.Module):
    """A small function of four pixels and the time."""

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.frequencies = torch.arange(1, 9) * torch.pi / timesteps
        self.layers = nn.Sequential(
            nn.Linear(20, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 4)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * self.frequencies
        return self.layers(torch.cat([x.flatten(1), angle.sin(), angle.cos()], 1)).reshape(x.shape)


def trained(schedule: Schedule, prediction_type: str, gamma: float, at_zero: float) -> Network:
    """`at_zero`: the weight where only noise is left."""
    torch.manual_seed(0)
    network = Network(schedule.timesteps)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(500):
        x_0 = GREY + 0.05 * torch.randn(64, *SHAPE)
        t, noise = torch.randint(schedule.timesteps, (64,)), torch.randn_like(x_0)
        x_t, _ = schedule.add_noise(x_0, t, noise)
        target = make_target(schedule, x_0, noise, t, prediction_type)
        weight = torch.ones(64)
        if gamma:
            weight = min_snr_weight(schedule, t, gamma, prediction_type)
            weight = weight.where(schedule.snr[t] > 0, at_zero)
        optimizer.zero_grad()
        (loss_per_image(network(x_t, t), target, "l2") * weight).mean().backward()
        optimizer.step()
    return network


@pytest.mark.parametrize(
    ("schedule", "prediction_type"),
    [(ZERO_SNR, "v_prediction"), (FlowSchedule(100), "flow_prediction")],
)
def test_images_come_out_right_because_pure_noise_has_a_weight(
    schedule: Schedule, prediction_type: str
) -> None:
    """With 1 there, and without min-SNR; with the formula's 0 they do not."""
    sampler = "euler" if schedule.is_flow else "ddim"

    def error(gamma: float, at_zero: float) -> float:
        network = trained(schedule, prediction_type, gamma, at_zero)
        images = sample(
            network,
            schedule,
            128,
            sampler,
            1,
            prediction_type=prediction_type,
            shape=SHAPE,
            clip_x0=False,
        )
        return float((images - GREY).abs().mean())

    assert error(gamma=5, at_zero=1) < 0.15
    assert error(gamma=0, at_zero=1) < 0.15
    assert error(gamma=5, at_zero=0) > 0.4
