"""Power by frequency: of a wave, of white noise, and of the sum of an image and noise."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_core.process.spectrum import power_spectra


def test_the_power_of_a_wave_is_at_its_frequency_alone() -> None:
    size, cycles = 32, 5
    wave = np.cos(2 * np.pi * cycles * np.arange(size) / size)
    image = np.broadcast_to(wave, (3, size, size))
    spectra = power_spectra(image, np.zeros_like(image))
    assert spectra.cycles.tolist() == list(range(1, 17))
    assert spectra.cycles[spectra.image > 1e-9].tolist() == [cycles]
    # All of its energy, a half per pixel, is in that ring's frequencies.
    there = [
        (x, y)
        for x in range(-16, 16)
        for y in range(-16, 16)
        if cycles - 0.5 <= (x * x + y * y) ** 0.5 < cycles + 0.5
    ]
    assert spectra.image[cycles - 1] * len(there) == pytest.approx(size * size / 2)


def test_white_noise_has_power_1_at_every_frequency() -> None:
    noise = np.random.default_rng(0).standard_normal((3000, 16, 16))
    assert power_spectra(np.zeros_like(noise), noise).noise == pytest.approx(1, abs=0.05)


def test_the_power_of_a_sum_is_that_of_both_and_of_their_product() -> None:
    x_0, noise = np.random.default_rng(1).standard_normal((2, 3, 9, 9))
    spectra, (a, b) = power_spectra(x_0, noise), (0.6, -0.8)
    wanted = power_spectra(a * x_0 + b * noise, noise).image
    found = a**2 * spectra.image + b**2 * spectra.noise + 2 * a * b * spectra.cross
    assert found == pytest.approx(wanted, rel=1e-9)
