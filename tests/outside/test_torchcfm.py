"""The flow against torchcfm's conditional flow matching, whose time runs the other way."""

from __future__ import annotations

import torch
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.objective import make_target


def test_x_t_and_the_direction_are_theirs() -> None:
    schedule = FlowSchedule(100)
    generator = torch.Generator().manual_seed(1)
    x_0, noise = torch.randn(2, 4, 3, 5, 5, generator=generator)
    t = torch.tensor([0, 30, 98, 99])
    x_t, _ = schedule.add_noise(x_0, t, noise)
    direction = make_target(schedule, x_0, noise, t, "flow_prediction")
    # Theirs goes from noise (time 0) to the image (time 1).
    time = 1 - schedule.spread[t]
    matcher = ConditionalFlowMatcher(sigma=0.0)
    _, there, flow = matcher.sample_location_and_conditional_flow(noise, x_0, t=time)
    assert torch.allclose(x_t, there, atol=1e-6)
    assert torch.allclose(direction, -flow, atol=1e-6)
