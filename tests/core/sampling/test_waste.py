"""Errors over the timesteps against closed forms: of the best predictor for Gaussian images, and of
those that know nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.sampling.waste import Errors, measure_errors, measured_timesteps
from tests.tiny_runs import tiny

SCHEDULE = NoiseSchedule("linear", 1000)
VARIANCE = 0.25  # of the images


class Network(nn.Module):
    """Predicts epsilon by a function of x_t and the timesteps."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(1))  # it has a device

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.function(x, t)


def errors_of(function: Callable[[Tensor, Tensor], Tensor], schedule=SCHEDULE) -> Errors:
    config = tiny(prediction_type="epsilon", class_conditional=False)
    loaded = LoadedModel(Network(function).eval(), schedule, config)
    x_0 = VARIANCE**0.5 * torch.randn(64, 3, 16, 16)
    noise = torch.randn_like(x_0)
    turns = measure_errors(
        loaded, x_0, noise, torch.zeros(3, 16, 16), measured_timesteps(schedule.timesteps, 9)
    )
    done = []
    while True:
        try:
            done.append(next(turns))
        except StopIteration as end:
            assert done == list(range(1, len(done) + 1))
            return end.value


def best(x: Tensor, t: Tensor) -> Tensor:
    """The noise that is expected where images are N(0, VARIANCE)."""
    bar = SCHEDULE.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    return (1 - bar).sqrt() / (bar * VARIANCE + 1 - bar) * x


def test_the_errors_are_those_of_the_closed_forms() -> None:
    errors = errors_of(best)
    bar = SCHEDULE.exact_alphas_cumprod[errors.t]
    wanted = {
        "network": VARIANCE * (1 - bar) / (bar * VARIANCE + 1 - bar),
        "mean_image": np.full(9, VARIANCE),
        "copy": (1 - bar) / bar,
    }
    for name, values in wanted.items():
        assert np.allclose(getattr(errors, name), values, rtol=0.03), name
    share = (1 - np.sqrt(1 - bar)) / np.sqrt(bar)
    noise = (share * np.sqrt(bar) - 1) ** 2 * VARIANCE + share**2 * (1 - bar)
    assert np.allclose(errors.noise, noise, rtol=0.03)
    # Nothing is to be known beyond the mean image at the end, and beyond x_t at the start.
    assert errors.wasted[[0, -1]].all() and not errors.wasted.all()


@pytest.mark.parametrize("function", [lambda x, t: x, lambda x, t: torch.zeros_like(x)])
def test_a_network_that_only_copies_is_wasted_everywhere(function) -> None:
    assert errors_of(function).wasted.all()


def test_a_timestep_that_leaves_nothing_of_the_image_is_left_out() -> None:
    errors = errors_of(lambda x, t: x, NoiseSchedule("linear", 10, rescale_zero_terminal_snr=True))
    assert errors.t[-1] < 9 and np.isfinite(errors.network).all()
