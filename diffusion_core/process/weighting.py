"""Where training spends its samples: the density of the timesteps over the log-SNR, and the weight
that a loss gives them.

Of a loss on x_0 or v the weight is the one that it gives the error of epsilon, so that all losses
can be compared (Kingma & Gao 2023). All in NumPy, float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffusion_core.process.tables import ScheduleTables

MIN_SNR_GAMMA = 5.0
# By the loss: the weight at an SNR. The error of x_0 is that of epsilon by SNR; that of
# v = signal epsilon - spread x_0 is it by the signal squared, which is SNR / (1 + SNR).
WEIGHTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "epsilon": np.ones_like,
    "v": lambda snr: (1 + snr) / snr,
    "x_0": lambda snr: 1 / snr,
    "min-SNR": lambda snr: np.minimum(1, MIN_SNR_GAMMA / snr),
}


def density(schedule: ScheduleTables, weighting: str) -> tuple[np.ndarray, np.ndarray]:
    """Log-SNR values and the share of the training per unit of log-SNR there, both (T - 1,) or
    shorter: what is infinite is left out.

    The share of the timesteps, which are drawn evenly, times the weight of the loss; over the
    log-SNR it integrates to 1.
    """
    log_snr = schedule.log_snr[np.isfinite(schedule.log_snr)]
    middle, gap = (log_snr[1:] + log_snr[:-1]) / 2, log_snr[:-1] - log_snr[1:]
    weight = WEIGHTINGS[weighting](np.exp(middle))
    return middle, weight / weight.sum() / gap
