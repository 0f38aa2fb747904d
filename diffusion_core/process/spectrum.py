"""Power spectra of an image and its noise, averaged over rings of equal frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PowerSpectra:
    """By frequency, float64 (n,) each: the mean over a ring and over the channels.

    White noise N(0, 1) has an expected power of 1 at every frequency. The power of
    a x_0 + b epsilon is exactly a² `image` + b² `noise` + 2 a b `cross`.
    """

    cycles: np.ndarray  # per image: 1, 2, ..., H / 2
    image: np.ndarray
    noise: np.ndarray
    cross: np.ndarray  # the real part of the one's spectrum times the other's conjugate


def power_spectra(x_0: np.ndarray, noise: np.ndarray) -> PowerSpectra:
    """Of an image and noise, (C, H, H) each, H at least 2.

    The mean value and what is finer than H / 2 cycles along an axis is left out.
    """
    size = x_0.shape[-1]
    lines = np.fft.fftfreq(size, 1 / size)
    ring = np.rint(np.hypot(lines[:, None], lines)).astype(int)
    spectra = [np.fft.fft2(x.astype(np.float64), norm="ortho") for x in (x_0, noise)]

    def over_rings(power: np.ndarray) -> np.ndarray:
        sums = np.bincount(ring.ravel(), power.mean(axis=0).ravel())
        return (sums / np.bincount(ring.ravel()))[1 : size // 2 + 1]

    image, own = spectra
    return PowerSpectra(
        cycles=np.arange(1, size // 2 + 1),
        image=over_rings(np.abs(image) ** 2),
        noise=over_rings(np.abs(own) ** 2),
        cross=over_rings((image * own.conj()).real),
    )
