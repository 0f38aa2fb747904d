"""The density of training over the log-SNR against its closed form, and the weights against the
losses of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_core.process.objective import make_target, min_snr_weight, predict_epsilon
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import ScheduleTables
from diffusion_core.process.weighting import MIN_SNR_GAMMA, WEIGHTINGS, density

RAMP = ScheduleTables("designed", 401, points=((0, 8), (1, -8)))


def test_over_an_even_log_snr_the_density_is_even_and_that_of_x_0_is_exponential() -> None:
    log_snr, share = density(RAMP, "epsilon")
    assert np.allclose(share, 1 / 16)
    log_snr, share = density(RAMP, "x_0")
    wanted = np.exp(-log_snr) / (np.exp(8) - np.exp(-8))
    assert np.allclose(share, wanted, rtol=1e-3)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_all_shares_together_are_one_also_where_the_snr_ends_at_zero(weighting: str) -> None:
    schedule = ScheduleTables("cosine", 200, rescale_zero_terminal_snr=True)
    log_snr, share = density(schedule, weighting)
    edges = schedule.log_snr[:-1]
    assert np.sum(share * (edges[:-1] - edges[1:])) == pytest.approx(1)
    assert np.isfinite(log_snr).all() and np.isfinite(share).all()


@pytest.mark.parametrize(
    ("weighting", "prediction_type"),
    [("epsilon", "epsilon"), ("v", "v_prediction"), ("x_0", "x_0")],
)
def test_a_weight_is_the_loss_by_the_squared_error_of_epsilon(
    weighting: str, prediction_type: str
) -> None:
    schedule = NoiseSchedule("linear", 50)
    t = torch.arange(50)
    x_0, noise, error = torch.randn(3, 50, 1, 4, 4)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    target = make_target(schedule, x_0, noise, t, prediction_type)
    epsilon = predict_epsilon(schedule, x_t, t, target + error, prediction_type)
    ratio = error.square().flatten(1).sum(1) / (epsilon - noise).square().flatten(1).sum(1)
    snr = schedule.exact.snr
    assert np.allclose(ratio, WEIGHTINGS[weighting](snr), rtol=2e-2)
    capped = min_snr_weight(schedule, t, MIN_SNR_GAMMA, prediction_type) * ratio
    assert np.allclose(capped, WEIGHTINGS["min-SNR"](snr), rtol=2e-2)
