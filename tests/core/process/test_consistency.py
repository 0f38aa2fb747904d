"""The objective of a distillation, against values of the paper and a Gaussian's closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_core.process.consistency import (
    consistency_errors,
    consistency_weight,
    level_at,
    ratios,
    stage_of,
    target_ratio,
)
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.schedule import NoiseSchedule, Schedule

COSINE = NoiseSchedule("cosine", 1000)
PURE = NoiseSchedule("linear", 1000, rescale_zero_terminal_snr=True)
FLOW = FlowSchedule(1000)


def test_the_mapping_function_is_that_of_the_paper() -> None:
    """r / t = 1 - n(t) / q^a, n(t) = 1 + 8 sigmoid(-t): values worked out by hand."""
    t = torch.tensor([49, 74])  # as much noise as image, and three times as much
    schedule = FlowSchedule(100)
    assert ratios(schedule, t).tolist() == pytest.approx([1, 3])
    for stage, q, wanted in (
        (3, 2.0, [1 - 3.151531 / 8, 3 * (1 - 1.379407 / 8)]),
        (2, 4.0, [1 - 3.151531 / 16, 3 * (1 - 1.379407 / 16)]),
        (1, 256.0, [1 - 3.151531 / 256, 3 * (1 - 1.379407 / 256)]),
    ):
        assert target_ratio(schedule, t, stage, q).tolist() == pytest.approx(wanted)


def test_the_first_stage_compares_with_the_image_where_there_is_little_noise() -> None:
    r = target_ratio(COSINE, torch.tensor([0, 500, 600, 800]), 1)  # n(t) >= 2 up to a ratio of ln 7
    assert (r == 0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("schedule", [COSINE, PURE, FLOW], ids=["cosine", "pure noise", "flow"])
def test_levels_come_ever_closer_and_stay_in_order(schedule: Schedule) -> None:
    t = torch.arange(1000)
    gaps = torch.stack([ratios(schedule, t) - target_ratio(schedule, t, a) for a in range(1, 9)])
    assert gaps.isfinite().all()
    assert (gaps > 0).all()
    assert (gaps.diff(dim=0) <= 0).all()
    assert torch.equal(consistency_weight(schedule, t, target_ratio(schedule, t, 8)), 1 / gaps[-1])


@pytest.mark.parametrize("schedule", [COSINE, FLOW], ids=["cosine", "flow"])
def test_a_ratio_of_a_timestep_leads_back_to_it(schedule: Schedule) -> None:
    t = torch.arange(0, 999, 37)
    at, signal, spread = level_at(schedule, ratios(schedule, t))
    assert torch.allclose(at, t.float(), atol=0.01)
    assert torch.allclose(signal, schedule.signal[t], rtol=1e-4)
    assert torch.allclose(spread, schedule.spread[t], rtol=1e-4)
    between, *_ = level_at(
        schedule, (ratios(schedule, t[1:-1]) + ratios(schedule, t[1:-1] + 1)) / 2
    )
    assert ((between > t[1:-1]) & (between < t[1:-1] + 1)).all()


def test_below_the_noise_of_timestep_0_is_the_image() -> None:
    at, signal, spread = level_at(COSINE, torch.zeros(2))
    assert (at.tolist(), signal.tolist(), spread.tolist()) == ([0, 0], [1, 1], [0, 0])


def test_the_stages_share_the_steps() -> None:
    assert [stage_of(step, 8, 4) for step in range(1, 9)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [stage_of(step, 3, 8) for step in (1, 2, 3)] == [3, 6, 8]


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "x_0"])
def test_a_network_that_knows_the_image_has_no_error(prediction_type: str) -> None:
    x_0, noise = torch.randn(2, 4, 1, 2, 2)
    answer = {"x_0": lambda s, n: x_0, "epsilon": lambda s, n: noise}
    answer["v_prediction"] = lambda s, n: s * noise - n * x_0
    t = torch.tensor([0, 300, 700, 950])
    r = target_ratio(COSINE, t, 4)

    def network(x_t: Tensor, at: Tensor) -> Tensor:
        ratio = ratios(COSINE, at) if at.dtype == torch.long else r.where(r > 0, 0)
        _, signal, spread = (each.reshape(-1, 1, 1, 1) for each in level_at(COSINE, ratio))
        return answer[prediction_type](signal, spread)

    errors = consistency_errors(network, COSINE, x_0, noise, t, r, prediction_type)
    assert errors.abs().max() < 1e-3


def test_no_gradient_reaches_the_less_noisy_level() -> None:
    told = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        told.append(torch.is_grad_enabled())
        return x_t * weight

    weight = torch.ones((), requires_grad=True)
    x_0, noise, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([3, 500, 900])
    errors = consistency_errors(network, COSINE, x_0, noise, t, target_ratio(COSINE, t, 5), "x_0")
    assert errors.requires_grad
    assert told == [False, True]


# ---------------------------------------------------------------- a Gaussian

M, S = 0.3, 0.5  # of the values of the images


def exact_slope(signal: Tensor, spread: Tensor) -> Tensor:
    """Of f(x_t, t) = M + slope (x_t - signal M): the end of the path of the probability flow that
    x_t is on, where x_t is from N(signal M, signal^2 S^2 + spread^2)."""
    return S / (signal**2 * S**2 + spread**2).sqrt()


def best_slopes(schedule: NoiseSchedule, stage: int) -> list[float]:
    """The slopes at all timesteps of the best network for levels a stage apart: each is the
    regression on x_t of that of the level below, of which x_r has the same noise."""
    found = []
    lowest = schedule.exact_spread[0] / schedule.exact_signal[0]
    for a, b in zip(schedule.exact_signal, schedule.exact_spread, strict=True):
        slope = 1.0
        while b > 0:
            ratio = b / a * (1 - (1 + 8 / (1 + np.exp(b / a))) / 2**stage)
            ratio = ratio if ratio >= lowest else 0.0
            c = 1 / np.sqrt(1 + ratio**2)
            d = ratio * c
            slope *= (a * c * S**2 + b * d) / (a**2 * S**2 + b**2)
            a, b = c, d
        found.append(float(slope))
    return found


def test_the_closer_the_levels_the_nearer_is_the_best_network_to_the_end_of_the_path() -> None:
    schedule = NoiseSchedule("cosine", 20)
    exact = exact_slope(schedule.signal, schedule.spread)
    errors = [
        float((torch.tensor(best_slopes(schedule, stage)) / exact - 1)[2:].abs().max())
        for stage in (3, 5, 8, 10)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 0.02


def test_training_on_the_objective_finds_the_best_network() -> None:
    """An affine one: v = a(t) x_t + b(t), both tables over t with straight lines between."""
    schedule, stage = NoiseSchedule("cosine", 24), 3
    tables = torch.zeros(2, 24, requires_grad=True)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        low = t.floor().long().clamp(max=22)
        a, b = torch.lerp(tables[:, low], tables[:, low + 1], t.float() - low)
        return a.reshape(-1, 1, 1, 1) * x_t + b.reshape(-1, 1, 1, 1)

    optimizer = torch.optim.Adam([tables])
    t = torch.arange(24)
    r = target_ratio(schedule, t, stage)
    weight = consistency_weight(schedule, t, r)
    for left in np.linspace(1, 0, 300):
        optimizer.param_groups[0]["lr"] = 0.03 * left
        x_0, noise = torch.randn(2, 24, 1, 32, 32)
        given = (schedule, M + S * x_0, noise, t, r, "v_prediction")
        (consistency_errors(network, *given) * weight).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    a, b = tables.detach()[:, :20]  # beyond there is next to no image, and no weight
    signal, spread = schedule.signal[:20], schedule.spread[:20]
    slope, wanted = signal - spread * a, torch.tensor(best_slopes(schedule, stage)[:20])
    assert torch.allclose(slope, wanted, atol=0.02)
    assert torch.allclose(-spread * b, M * (1 - wanted * signal), atol=0.03)
    # A denoiser answers with the mean of the images that x_t may have been, which is another.
    denoiser = signal * S**2 / (signal**2 * S**2 + spread**2)
    assert float((slope - denoiser).abs().max()) > 0.1
