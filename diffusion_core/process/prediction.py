"""What a network can be asked to predict, and the algebra between that, x_0 and epsilon.

With x_t = signal x_0 + spread epsilon; signal and spread broadcast over images (B, C, H, W). To add
a prediction type, write its functions and a `PredictionType` record in `PREDICTION_TYPES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Share = Tensor | float  # signal or spread


@dataclass(frozen=True)
class PredictionType:
    """A prediction type; `name` is used in settings and files."""

    name: str
    title: str
    formula: str  # Markdown with LaTeX, what the network answers with
    target: Callable[[Tensor, Tensor, Share, Share], Tensor]  # (x_0, noise, signal, spread)
    to_x_0: Callable[[Tensor, Tensor, Share, Share], Tensor]  # (prediction, x_t, signal, spread)
    to_epsilon: Callable[[Tensor, Tensor, Share, Share], Tensor]  # likewise
    # (snr, gamma, signal, spread), (B,) each but gamma: the weight of an image's loss under
    # min-SNR-gamma (Hang et al. 2023, section 3.4), which is min(SNR, gamma) on x_0.
    snr_weight: Callable[[Tensor, float, Tensor, Tensor], Tensor]
    flow: bool = False  # trained on a `FlowSchedule`
    # (signal, spread): what makes an error of the prediction one of v; None: not defined for it.
    v_scale: Callable[[Tensor, Tensor], Tensor] | None = None
    learns_pure_noise: bool = True  # says something about x_0 where signal is 0
    diffusers: str | None = None  # its name in diffusers' schedulers, where they know it


# The least share of noise by which an error of x_0 is divided (Li & He 2025, JiT, 2511.13720, where
# it is 0.05 too).
LEAST_SPREAD = 0.05


EPSILON = PredictionType(  # Ho et al. 2020
    "epsilon",
    "noise ε",
    r"the noise $\epsilon$",
    target=lambda x_0, noise, signal, spread: noise,
    to_x_0=lambda prediction, x_t, signal, spread: (x_t - spread * prediction) / signal,
    to_epsilon=lambda prediction, x_t, signal, spread: prediction,
    # min(SNR, gamma) / SNR, written so that SNR = 0 gives its limit 1.
    snr_weight=lambda snr, gamma, signal, spread: torch.clamp(gamma / snr, max=1.0),
    learns_pure_noise=False,
    diffusers="epsilon",
)
X_0 = PredictionType(
    "x_0",
    "image x₀",
    r"the clean image $x_0$",
    target=lambda x_0, noise, signal, spread: x_0,
    to_x_0=lambda prediction, x_t, signal, spread: prediction,
    to_epsilon=lambda prediction, x_t, signal, spread: (x_t - signal * prediction) / spread,
    snr_weight=lambda snr, gamma, signal, spread: snr.clamp(max=gamma),
    # v is (signal x_t - x_0) / spread, and the direction of a flow (x_t - x_0) / spread.
    v_scale=lambda signal, spread: 1 / spread.clamp(min=LEAST_SPREAD),
    diffusers="sample",
)
# v = signal epsilon - spread x_0, with signal^2 + spread^2 = 1 (Salimans & Ho 2022).
V_PREDICTION = PredictionType(
    "v_prediction",
    "velocity v",
    r"$v$, a mixture of noise and clean image from which either follows",
    target=lambda x_0, noise, signal, spread: signal * noise - spread * x_0,
    to_x_0=lambda prediction, x_t, signal, spread: signal * x_t - spread * prediction,
    to_epsilon=lambda prediction, x_t, signal, spread: spread * x_t + signal * prediction,
    snr_weight=lambda snr, gamma, signal, spread: snr.clamp(max=gamma) / (snr + 1),
    diffusers="v_prediction",
)
# The direction of a flow's line from image to noise (Liu et al. 2023).
FLOW_PREDICTION = PredictionType(
    "flow_prediction",
    "flow ε − x₀",
    r"the direction $\epsilon - x_0$ from the clean image to the noise",
    target=lambda x_0, noise, signal, spread: noise - x_0,
    to_x_0=lambda prediction, x_t, signal, spread: (x_t - spread * prediction) / (signal + spread),
    to_epsilon=lambda prediction, x_t, signal, spread: (
        (x_t + signal * prediction) / (signal + spread)
    ),
    snr_weight=lambda snr, gamma, signal, spread: (
        snr.clamp(max=gamma) * (spread / (signal + spread)).square()
    ),
    flow=True,
)

FLOW_X_0 = replace(X_0, name="flow_x_0", title="image x₀ of a flow", flow=True, diffusers=None)

PREDICTION_TYPES = {
    each.name: each for each in (EPSILON, X_0, V_PREDICTION, FLOW_PREDICTION, FLOW_X_0)
}


def prediction_type_of(name: str) -> PredictionType:
    """Raises ValueError with the names there are."""
    if name not in PREDICTION_TYPES:
        raise ValueError(
            f"Unknown prediction type {name!r}; choose one of {', '.join(PREDICTION_TYPES)}."
        )
    return PREDICTION_TYPES[name]
