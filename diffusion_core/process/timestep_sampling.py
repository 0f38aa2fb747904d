"""Which timesteps training draws how often.

Drawn evenly, most timesteps of a schedule are nearly all image or nearly all noise, where there is
little to learn. Densities over the log-SNR put them where image and noise are as strong as each
other. All in NumPy, float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# By the sampling: the density over the log-SNR, up to a factor, of its distance from the centre in
# widths.
DENSITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # Of the share of noise of a flow: the logit-normal of Esser et al. 2024, section 3.1.
    "logit_normal": lambda distance: np.exp(-(distance**2) / 2),
    "laplace": lambda distance: np.exp(-np.abs(distance)),  # Hang et al. 2024 (2407.03297)
}
TIMESTEP_SAMPLINGS = ("uniform", *DENSITIES)
# Sampling starts at the noisiest timesteps, which hardly any density draws: this share of the
# images is drawn evenly, so that none is left unlearned.
UNIFORM_SHARE = 0.1


def timestep_shares(log_snr: np.ndarray, sampling: str, centre: float, width: float) -> np.ndarray:
    """The probability (T,) with which each timestep is drawn; they sum to 1.

    `log_snr` (T,): of each timestep, falling; infinite where there is no noise or no image, which
    is drawn with the even share alone. `centre` and `width` (above 0) are those of the density over
    the log-SNR. Raises ValueError for an unknown sampling.
    """
    if sampling not in TIMESTEP_SAMPLINGS:
        raise ValueError(
            f"Unknown timestep sampling {sampling!r}; choose one of "
            f"{', '.join(TIMESTEP_SAMPLINGS)}."
        )
    even = np.full(len(log_snr), 1 / len(log_snr))
    if sampling == "uniform":
        return even
    finite = np.isfinite(log_snr)
    known = log_snr[finite]
    # A timestep stands for the piece of the log-SNR that is nearest to it.
    shares = np.zeros(len(log_snr))
    shares[finite] = DENSITIES[sampling]((known - centre) / width) * np.abs(np.gradient(known))
    total = shares.sum()
    if not total > 0:  # no timestep lies near the centre
        return even
    return (1 - UNIFORM_SHARE) * shares / total + UNIFORM_SHARE * even
