"""The algebra between x_0, epsilon and v, the posterior, and the losses.

Shapes: images (B, C, H, W), timesteps (B,) integers. Knows nothing of networks or loops.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_core.process.schedule import NoiseSchedule, Schedule, gather

PREDICTION_TYPES = ("epsilon", "x_0", "v_prediction", "flow_prediction")
LOSSES = ("l1", "l2", "huber")


def make_target(
    schedule: Schedule, x_0: Tensor, noise: Tensor, t: Tensor, prediction_type: str
) -> Tensor:
    """What the network is asked to predict, shape of `x_0`.

    `epsilon`: the noise (Ho et al. 2020). `x_0`: the image. `v_prediction`:
    v = sqrt(alphas_cumprod) * epsilon - sqrt(1 - alphas_cumprod) * x_0 (Salimans & Ho 2022).
    `flow_prediction`: epsilon - x_0, the direction of a `FlowSchedule`'s line (Liu et al. 2023).
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "x_0":
        return x_0
    if prediction_type == "flow_prediction":
        return noise - x_0
    if prediction_type == "v_prediction":
        signal, spread = _signal_and_spread(schedule, t, x_0.ndim)
        return signal * noise - spread * x_0
    raise unknown_prediction_type(prediction_type)


def predict_x_0(
    schedule: Schedule, x_t: Tensor, t: Tensor, prediction: Tensor, prediction_type: str
) -> Tensor:
    """The image that a prediction stands for; see `to_x_0`."""
    return to_x_0(prediction, x_t, *_signal_and_spread(schedule, t, x_t.ndim), prediction_type)


def predict_epsilon(
    schedule: Schedule, x_t: Tensor, t: Tensor, prediction: Tensor, prediction_type: str
) -> Tensor:
    """The noise that a prediction stands for; see `to_epsilon`."""
    return to_epsilon(prediction, x_t, *_signal_and_spread(schedule, t, x_t.ndim), prediction_type)


def to_x_0(
    prediction: Tensor,
    x_t: Tensor,
    signal: Tensor | float,
    spread: Tensor | float,
    prediction_type: str,
) -> Tensor:
    """The image that a prediction stands for where x_t = signal x_0 + spread epsilon.

    An epsilon prediction cannot say anything about x_0 where alphas_cumprod is 0 (a schedule
    rescaled to zero terminal SNR): the result is then not finite; train such a model on v or x_0.
    """
    if prediction_type == "x_0":
        return prediction
    if prediction_type == "epsilon":
        return (x_t - spread * prediction) / signal
    if prediction_type == "v_prediction":
        return signal * x_t - spread * prediction
    if prediction_type == "flow_prediction":
        return (x_t - spread * prediction) / (signal + spread)
    raise unknown_prediction_type(prediction_type)


def to_epsilon(
    prediction: Tensor,
    x_t: Tensor,
    signal: Tensor | float,
    spread: Tensor | float,
    prediction_type: str,
) -> Tensor:
    """The noise that a prediction stands for where x_t = signal x_0 + spread epsilon."""
    if prediction_type == "epsilon":
        return prediction
    if prediction_type == "x_0":
        return (x_t - signal * prediction) / spread
    if prediction_type == "v_prediction":
        return spread * x_t + signal * prediction
    if prediction_type == "flow_prediction":
        return (x_t + signal * prediction) / (signal + spread)
    raise unknown_prediction_type(prediction_type)


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
    """Mean error of each image, shape (B,), never negative. Huber has delta = 1."""
    functions: dict[str, Callable[..., Tensor]] = {
        "l1": F.l1_loss,
        "l2": F.mse_loss,
        "huber": F.huber_loss,
    }
    if loss not in functions:
        raise ValueError(f"Unknown loss {loss!r}; choose one of {', '.join(LOSSES)}.")
    return functions[loss](prediction, target, reduction="none").flatten(1).mean(1)


def min_snr_weight(schedule: Schedule, t: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Weight of each image's loss, shape (B,): min-SNR-gamma (Hang et al. 2023, section 3.4).

    On x_0 the weight is min(SNR, gamma); the same objective is min(SNR, gamma) / SNR on epsilon,
    min(SNR, gamma) / (SNR + 1) on v. On a direction epsilon - x_0 it is min(SNR, gamma) times the
    square of spread / (signal + spread), which is s on a flow's line.
    """
    snr = gather(schedule.snr, t, 1)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "x_0":
        return clipped
    if prediction_type == "epsilon":
        # min(SNR, gamma) / SNR, written so that SNR = 0 gives its limit 1.
        return torch.clamp(gamma / snr, max=1.0)
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    if prediction_type == "flow_prediction":
        signal, spread = _signal_and_spread(schedule, t, 1)
        return clipped * (spread / (signal + spread)).square()
    raise unknown_prediction_type(prediction_type)


def _signal_and_spread(schedule: Schedule, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """The a and b of x_t = a x_0 + b epsilon, each of a shape that broadcasts."""
    return gather(schedule.signal, t, ndim), gather(schedule.spread, t, ndim)


def unknown_prediction_type(name: str) -> ValueError:
    return ValueError(
        f"Unknown prediction type {name!r}; choose one of {', '.join(PREDICTION_TYPES)}."
    )
