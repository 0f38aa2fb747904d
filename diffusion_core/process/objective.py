"""The training objective: what the network is asked to predict, the losses and their weights.

Shapes: images (B, C, H, W), timesteps (B,) integers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from diffusion_core.process.prediction import Share, prediction_type_of
from diffusion_core.process.schedule import NoiseSchedule, Schedule, gather

LOSSES: dict[str, Callable[..., Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "huber": F.huber_loss,  # with delta = 1
}


def make_target(
    schedule: Schedule, x_0: Tensor, noise: Tensor, t: Tensor, prediction_type: str
) -> Tensor:
    """What the network is asked to predict, shape of `x_0`; see `prediction.PREDICTION_TYPES`."""
    target = prediction_type_of(prediction_type).target
    return target(x_0, noise, *_signal_and_spread(schedule, t, x_0.ndim))


def predict_x_0(
    schedule: Schedule, x_t: Tensor, t: Tensor, prediction: Tensor, prediction_type: str
) -> Tensor:
    """As `to_x_0`, at timesteps of a schedule."""
    return to_x_0(prediction, x_t, *_signal_and_spread(schedule, t, x_t.ndim), prediction_type)


def predict_epsilon(
    schedule: Schedule, x_t: Tensor, t: Tensor, prediction: Tensor, prediction_type: str
) -> Tensor:
    """As `to_epsilon`, at timesteps of a schedule."""
    return to_epsilon(prediction, x_t, *_signal_and_spread(schedule, t, x_t.ndim), prediction_type)


def to_x_0(
    prediction: Tensor, x_t: Tensor, signal: Share, spread: Share, prediction_type: str
) -> Tensor:
    """The image that a prediction stands for where x_t = signal x_0 + spread epsilon.

    Not finite for an epsilon prediction where signal is 0 (a schedule rescaled to zero terminal
    SNR): the noise says nothing about the image there.
    """
    return prediction_type_of(prediction_type).to_x_0(prediction, x_t, signal, spread)


def to_epsilon(
    prediction: Tensor, x_t: Tensor, signal: Share, spread: Share, prediction_type: str
) -> Tensor:
    """The noise that a prediction stands for where x_t = signal x_0 + spread epsilon."""
    return prediction_type_of(prediction_type).to_epsilon(prediction, x_t, signal, spread)


def posterior(
    schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance (B, 1, 1, 1) of q(x_{t-1} | x_t, x_0).

    Ho et al. 2020, equations 6 and 7. At t = 0 the mean is x_0 and the variance 0.
    """
    beta = gather(schedule.betas, t, x_t.ndim)
    bar_prev = gather(schedule.alphas_cumprod_prev, t, x_t.ndim)
    one_minus_bar = gather(schedule.sqrt_one_minus_alphas_cumprod, t, x_t.ndim) ** 2
    alpha = gather(schedule.alphas, t, x_t.ndim)
    variance = gather(schedule.posterior_variance, t, x_t.ndim)
    # (1 - bar_prev) / (1 - bar) is variance / beta; a float32 1 - bar_prev would lose its digits.
    mean = bar_prev.sqrt() * beta / one_minus_bar * x_0 + alpha.sqrt() * variance / beta * x_t
    return mean, variance


def loss_per_image(prediction: Tensor, target: Tensor, loss: str = "l1") -> Tensor:
    """Mean error of each image, shape (B,), never negative. Raises ValueError."""
    if loss not in LOSSES:
        raise ValueError(f"Unknown loss {loss!r}; choose one of {', '.join(LOSSES)}.")
    return LOSSES[loss](prediction, target, reduction="none").flatten(1).mean(1)


def v_scale(schedule: Schedule, t: Tensor, ndim: int, prediction_type: str) -> Tensor:
    """What makes errors of a prediction errors of v, of a shape that broadcasts to `ndim` axes.

    So a network may answer with the image while the loss is that of the velocity, or of the
    direction of a flow (Li & He 2025, JiT, arXiv 2511.13720); limited where there is hardly any
    noise. Raises ValueError for a type that has none.
    """
    scale = prediction_type_of(prediction_type).v_scale
    if scale is None:
        raise ValueError(f"A loss on v is not defined for {prediction_type}; use x_0 or flow_x_0.")
    return scale(*_signal_and_spread(schedule, t, ndim))


def min_snr_weight(
    schedule: Schedule, t: Tensor, gamma: float, prediction_type: str, on_v: bool = False
) -> Tensor:
    """Weight of each image's loss, shape (B,): min-SNR-gamma (Hang et al. 2023, section 3.4).

    On x_0 the weight is min(SNR, gamma); for other prediction types, or with `on_v` for errors
    times `v_scale`, it is what makes the same objective of their error. Where SNR is 0 it is 1, as
    in the authors' code: sampling starts there, and with the formula's 0 the network would never
    learn that timestep.
    """
    weight = prediction_type_of(prediction_type).snr_weight
    snr = gather(schedule.snr, t, 1)
    found = weight(snr, gamma, *_signal_and_spread(schedule, t, 1))
    if on_v:
        found = found / v_scale(schedule, t, 1, prediction_type).square()
    return found.where(snr > 0, 1)


def _signal_and_spread(schedule: Schedule, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """The a and b of x_t = a x_0 + b epsilon, each of a shape that broadcasts."""
    return gather(schedule.signal, t, ndim), gather(schedule.spread, t, ndim)
