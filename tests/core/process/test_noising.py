"""One image and one noise at any timestep: exact scaling, the same ε always, the shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from diffusion_core.media.images import to_uint8
from diffusion_core.process.noising import (
    fixed_noise,
    image_to_x_0,
    noise_to_uint8,
    noised_at,
    noised_step_by_step,
    noising_walk,
    standardised,
    strip_timesteps,
)
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import SCHEDULE_KINDS, USUAL_POINTS


def test_every_uint8_value_goes_to_minus_one_to_one_and_comes_back_the_same() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    x_0 = image_to_x_0(image)
    assert x_0.shape == (1, 3, 16, 16)
    assert (x_0.dtype, x_0.min().item(), x_0.max().item()) == (torch.float32, -1, 1)
    assert np.array_equal(to_uint8(x_0)[0], image)


def test_a_seed_is_always_the_same_noise_and_another_seed_another() -> None:
    first = fixed_noise(7, 64)
    assert first.shape == (1, 3, 64, 64)
    assert torch.equal(first, fixed_noise(7, 64))
    assert not torch.equal(first, fixed_noise(8, 64))
    assert abs(first.mean()) < 0.04 and abs(first.std() - 1) < 0.03


def test_the_noised_batch_is_the_formula_at_each_timestep() -> None:
    schedule = NoiseSchedule()
    x_0, noise = torch.rand(1, 3, 8, 8) * 2 - 1, fixed_noise(0, 8)
    timesteps = [0, 150, 299]
    for row, t in zip(noised_at(schedule, x_0, noise, timesteps), timesteps, strict=True):
        bar = schedule.exact_alphas_cumprod[t]
        wanted = bar**0.5 * x_0[0].double() + (1 - bar) ** 0.5 * noise[0].double()
        assert torch.allclose(row.double(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("timesteps", "wanted"),
    [
        (300, [0, 30, 60, 90, 120, 150, 180, 210, 240, 270]),
        (1000, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]),
        (19, [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]),
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (3, [0, 1, 2]),
        (2, [0, 1]),
    ],
)
def test_the_strip_is_the_lectures_and_evenly_spaced_for_every_T(
    timesteps: int, wanted: list[int]
) -> None:
    assert strip_timesteps(timesteps) == wanted


def test_shown_noise_is_grey_at_0_and_black_and_white_at_3() -> None:
    noise = torch.tensor([-9.0, -3.0, 0.0, 3.0, 9.0]).reshape(1, 1, 1, 5)
    assert noise_to_uint8(noise).ravel().tolist() == [0, 0, 128, 255, 255]


def test_the_walk_has_the_shapes_that_add_noise_goes_through_and_ends_in_its_product() -> None:
    schedule, timesteps = NoiseSchedule(), strip_timesteps(300)
    x_0 = torch.rand(1, 3, 32, 32)
    walk = noising_walk(schedule, x_0, timesteps)
    assert [tuple(result.shape) for _, _, result in walk] == [
        (10,),
        (300,),
        (10,),
        (10, 1, 1, 1),
        (10, 3, 32, 32),
        (10, 3, 32, 32),
    ]
    assert torch.equal(walk[-1][2], noised_at(schedule, x_0, torch.zeros_like(x_0), timesteps))


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_step_by_step_has_the_distribution_of_the_formula(kind: str, zero_snr: bool) -> None:
    schedule = NoiseSchedule(kind, 20, 1e-3, 0.3, zero_snr, points=USUAL_POINTS)
    x_0 = image_to_x_0(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    for t in (0, 9, 19):
        generator = torch.Generator().manual_seed(t)
        x_t = noised_step_by_step(schedule, x_0, t, 1000, generator)
        # Each value of each draw, then the sums over an image: the noise of pixels is independent.
        z = standardised(schedule, x_0, t, x_t)
        for found in (z.flatten(), z.sum(dim=(1, 2, 3)) / 48**0.5):
            assert kstest(found.numpy(), "norm").pvalue > 1e-3


def test_steps_that_share_their_noise_have_another_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule, x_0 = NoiseSchedule("linear", 20, 1e-3, 0.3), torch.zeros(1, 3, 4, 4)
    once = torch.randn(1000, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: once)
    x_t = noised_step_by_step(schedule, x_0, 9, 1000, torch.Generator())
    z = standardised(schedule, x_0, 9, x_t)
    assert kstest(z.flatten().numpy(), "norm").pvalue < 1e-9
