"""One image and one noise at any timestep: exact scaling, the same ε always, the shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_core.media.images import to_uint8
from diffusion_core.process.noising import (
    fixed_noise,
    image_to_x_0,
    mean_and_std,
    noise_to_uint8,
    noised_at,
    noising_shapes,
    strip_timesteps,
)
from diffusion_core.process.schedule import NoiseSchedule


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
    mean, std = mean_and_std(first)
    assert abs(mean) < 0.04 and abs(std - 1) < 0.03


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


def test_the_walk_names_the_shapes_that_add_noise_goes_through() -> None:
    shapes = noising_shapes(NoiseSchedule(), torch.zeros(1, 3, 32, 32), strip_timesteps(300))
    assert [shape for _, _, shape in shapes] == [
        (10,),
        (300,),
        (10,),
        (10, 1, 1, 1),
        (10, 3, 32, 32),
        (10, 3, 32, 32),
    ]
