"""The schedule against the lecture's printed figures, against diffusers, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.process.schedule import NoiseSchedule, gather
from diffusion_core.process.tables import SCHEDULE_KINDS, make_betas

DIFFUSERS_NAMES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}
# The lecture's table: t, sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod.
LECTURE_TABLE = [
    (0, 0.9999, 0.0100),
    (30, 0.9831, 0.1830),
    (60, 0.9380, 0.3467),
    (90, 0.8684, 0.4959),
    (120, 0.7801, 0.6256),
    (150, 0.6800, 0.7332),
    (180, 0.5750, 0.8182),
    (210, 0.4717, 0.8817),
    (240, 0.3754, 0.9269),
    (270, 0.2898, 0.9571),
]


def four_digits(value: torch.Tensor) -> float:
    return round(value.item(), 4)


def any_schedule() -> st.SearchStrategy[NoiseSchedule]:
    """Schedules of every kind and of usual sizes."""
    return st.builds(
        lambda kind, timesteps, start, factor, rescale: NoiseSchedule(
            kind, timesteps, start, min(start * factor, 0.3), rescale
        ),
        st.sampled_from(list(SCHEDULE_KINDS)),
        st.integers(2, 1200),
        st.floats(1e-5, 1e-2),
        st.floats(1, 300),
        st.booleans(),
    )


# ---------------------------------------------------------------- the lecture's figures


@pytest.mark.parametrize(("t", "signal", "spread"), LECTURE_TABLE)
def test_the_default_schedule_has_the_lectures_coefficients(
    t: int, signal: float, spread: float
) -> None:
    schedule = NoiseSchedule()
    assert four_digits(schedule.sqrt_alphas_cumprod[t]) == signal
    assert four_digits(schedule.sqrt_one_minus_alphas_cumprod[t]) == spread


def test_the_default_schedule_begins_as_the_lecture_prints_it() -> None:
    schedule = NoiseSchedule()
    assert [four_digits(a) for a in schedule.alphas[:5]] == [0.9999, 0.9998, 0.9998, 0.9997, 0.9996]
    assert f"{schedule.betas[0].item():.4e}" == "1.0000e-04"
    assert schedule.betas[-1].item() == pytest.approx(0.02, rel=1e-6)
    assert schedule.posterior_variance[0].item() == 0
    assert four_digits(schedule.sqrt_recip_alphas[0]) == 1.0
    assert schedule.alphas_cumprod_prev[0].item() == 1.0


def test_the_eight_constants_are_float32_of_shape_timesteps() -> None:
    schedule = NoiseSchedule()
    assert len(schedule.TABLES) == 8
    for name in (*schedule.TABLES, "snr", "log_snr"):
        table = getattr(schedule, name)
        assert table.shape == (300,) and table.dtype == torch.float32, name


def test_the_eight_constants_follow_their_definitions_in_float64() -> None:
    """Written out again with plain Python numbers, as the definitions say."""
    schedule = NoiseSchedule("linear", 300, 1e-4, 0.02)
    bar_prev = 1.0
    for t in range(300):
        beta = 1e-4 + (0.02 - 1e-4) * t / 299
        bar = bar_prev * (1 - beta)
        wanted = {
            "betas": beta,
            "alphas": 1 - beta,
            "alphas_cumprod": bar,
            "alphas_cumprod_prev": bar_prev,
            "sqrt_recip_alphas": (1 / (1 - beta)) ** 0.5,
            "sqrt_alphas_cumprod": bar**0.5,
            "sqrt_one_minus_alphas_cumprod": (1 - bar) ** 0.5,
            "posterior_variance": beta * (1 - bar_prev) / (1 - bar),
            "snr": bar / (1 - bar),
            "log_snr": np.log(bar / (1 - bar)),
        }
        for name, value in wanted.items():
            assert getattr(schedule, name)[t].item() == pytest.approx(value, rel=2e-7, abs=1e-12)
        bar_prev = bar


# ---------------------------------------------------------------- against diffusers


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("kind", DIFFUSERS_NAMES)
def test_every_kind_has_diffusers_betas(kind: str, rescale: bool) -> None:
    """diffusers computes in float32, which leaves about six digits of alphas_cumprod."""
    theirs = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=DIFFUSERS_NAMES[kind],
        rescale_betas_zero_snr=rescale,
    )
    ours = NoiseSchedule(kind, 1000, 1e-4, 0.02, rescale_zero_terminal_snr=rescale)
    # A rescaled beta is 1 minus a ratio of two numbers that vanish: fewer digits of theirs hold.
    tolerance = 2e-3 if rescale else 2e-6
    assert torch.allclose(ours.betas, theirs.betas, rtol=1e-4, atol=tolerance)
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, atol=2e-5)


def test_a_rescaled_schedule_ends_in_pure_noise_and_begins_where_it_did() -> None:
    for kind in SCHEDULE_KINDS:
        plain = NoiseSchedule(kind, 100)
        rescaled = NoiseSchedule(kind, 100, rescale_zero_terminal_snr=True)
        assert rescaled.betas[-1].item() == 1
        assert rescaled.alphas_cumprod[-1].item() == 0 == rescaled.snr[-1].item()
        assert rescaled.log_snr[-1].item() == -float("inf")
        assert rescaled.sqrt_one_minus_alphas_cumprod[-1].item() == 1
        assert rescaled.alphas_cumprod[0].item() == pytest.approx(plain.alphas_cumprod[0].item())


@pytest.mark.parametrize("kind", DIFFUSERS_NAMES)
def test_add_noise_is_diffusers_add_noise(kind: str) -> None:
    theirs = DDPMScheduler(num_train_timesteps=300, beta_schedule=DIFFUSERS_NAMES[kind])
    ours = NoiseSchedule(kind, 300)
    x_0, noise = torch.randn(7, 3, 4, 5), torch.randn(7, 3, 4, 5)
    t = torch.tensor([0, 1, 50, 149, 298, 299, 50])
    x_t, returned = ours.add_noise(x_0, t, noise)
    assert returned is noise
    assert torch.allclose(x_t, theirs.add_noise(x_0, noise, t), atol=1e-5)


# ---------------------------------------------------------------- the forward process


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_the_closed_form_is_stepwise_noising(kind: str) -> None:
    """x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) z, step by step, has these coefficients."""
    schedule = NoiseSchedule(kind, 200)
    signal, variance = 1.0, 0.0
    for t, beta in enumerate(make_betas(kind, 200)):
        signal *= (1 - beta) ** 0.5
        variance = (1 - beta) * variance + beta
        assert schedule.sqrt_alphas_cumprod[t].item() == pytest.approx(signal, rel=1e-6)
        assert schedule.sqrt_one_minus_alphas_cumprod[t].item() == pytest.approx(
            variance**0.5, rel=1e-6
        )


def test_each_image_of_a_batch_gets_its_own_timestep() -> None:
    schedule = NoiseSchedule()
    x_0, noise, t = torch.randn(10, 3, 8, 8), torch.randn(10, 3, 8, 8), torch.arange(0, 300, 30)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    assert x_t.shape == (10, 3, 8, 8)
    for k, (_, signal, spread) in enumerate(LECTURE_TABLE):
        assert torch.allclose(x_t[k], signal * x_0[k] + spread * noise[k], atol=5e-4)


def test_noise_is_drawn_from_the_normal_distribution_where_none_is_given() -> None:
    x_0 = torch.zeros(4, 3, 64, 64)
    x_t, noise = NoiseSchedule().add_noise(x_0, torch.full((4,), 299))
    count = noise.numel()
    assert abs(noise.mean().item()) < 5 / count**0.5
    assert abs(noise.var().item() - 1) < 5 * (2 / count) ** 0.5
    assert torch.allclose(x_t, noise * NoiseSchedule().sqrt_one_minus_alphas_cumprod[299])


def test_gather_shapes_one_coefficient_an_image_so_that_it_broadcasts() -> None:
    table = torch.arange(5.0)
    picked = gather(table, torch.tensor([4, 0, 2]))
    assert picked.shape == (3, 1, 1, 1) and picked.flatten().tolist() == [4, 0, 2]
    assert gather(table, torch.tensor([1]), ndim=1).shape == (1,)


# ---------------------------------------------------------------- properties


@settings(max_examples=60)
@given(any_schedule())
def test_any_schedule_loses_its_image_step_by_step(schedule: NoiseSchedule) -> None:
    bar = schedule.exact_alphas_cumprod
    assert (np.diff(bar) < 0).all()
    assert bar[-1] >= 0 and bar[0] < 1
    assert (schedule.betas > 0).all() and (schedule.betas <= 1).all()
    assert torch.equal(schedule.alphas_cumprod_prev[1:], schedule.alphas_cumprod[:-1])
    assert schedule.alphas_cumprod_prev[0] == 1
    assert (schedule.posterior_variance >= 0).all()
    assert (schedule.posterior_variance <= schedule.betas).all()
    assert (schedule.log_snr.diff() < 0).all()


@settings(max_examples=60)
@given(any_schedule())
def test_the_square_roots_of_any_schedule_are_square_roots(schedule: NoiseSchedule) -> None:
    signal, spread = schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod
    assert torch.allclose(signal**2 + spread**2, torch.ones(schedule.timesteps), atol=1e-6)
    assert torch.allclose(signal**2, schedule.alphas_cumprod, atol=1e-6)
    finite = schedule.alphas > 0
    again = schedule.sqrt_recip_alphas[finite] ** 2 * schedule.alphas[finite]
    assert torch.allclose(again, torch.ones_like(again), atol=1e-5)
    assert torch.allclose(torch.exp(schedule.log_snr), schedule.snr, rtol=1e-4)


@settings(max_examples=30)
@given(any_schedule())
def test_a_schedules_settings_make_it_again(schedule: NoiseSchedule) -> None:
    settings: dict[str, Any] = schedule.settings()
    again = NoiseSchedule(**settings)
    assert np.array_equal(again.exact_alphas_cumprod, schedule.exact_alphas_cumprod)
    assert again.settings() == schedule.settings()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "quadratic"}, "Unknown schedule 'quadratic'; choose one of linear, scaled"),
        ({"timesteps": 1}, "at least 2 timesteps, not 1"),
        ({"beta_start": 0.0}, "0 < beta_start <= beta_end < 1, not 0.0 and 0.02"),
        ({"beta_start": 0.03}, "not 0.03 and 0.02"),
        ({"beta_end": 1.0}, "not 0.0001 and 1.0"),
        ({"beta_end": float("nan")}, "not 0.0001 and nan"),
    ],
)
def test_what_makes_no_schedule_is_refused_in_one_sentence(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        NoiseSchedule(**arguments)
