"""One step, looked at: what a network predicts from x_t, how wrong it is, and where a step leads.

Images are (1, C, H, W), values of clean ones from -1 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_core.device import device_of
from diffusion_core.process.objective import (
    loss_per_image,
    min_snr_weight,
    posterior,
    v_scale,
)
from diffusion_core.process.prediction import (
    FLOW_PREDICTION,
    V_PREDICTION,
    X_0,
    prediction_type_of,
)
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.sampling.levels import IMAGE, NoiseLevel, exact_tables
from diffusion_core.sampling.registry import sampler_of
from diffusion_core.sampling.sample import make_predict
from diffusion_core.sampling.solvers import Predict

LECTURE = "lecture"  # of STEPS: DDPM as the lecture takes its step
# The ways to take a step, by the sampler's name; of a flow there is one.
STEPS, FLOW_STEPS = ("ddpm", "ddim", LECTURE), ("euler",)


@dataclass(frozen=True)
class Asked:
    """What the network is told beside x_t."""

    t: int
    label: int | None = None  # None: any class, or it takes none
    guidance_scale: float = 1.0  # other than 1 only with a class


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a network predicts from an image with noise, beside the truth."""

    x_0: Tensor  # the image
    noise: Tensor
    x_t: Tensor
    predicted_x_0: Tensor
    predicted_noise: Tensor
    target: Tensor  # what the loss compares: what the network is trained to answer, and its answer
    answer: Tensor
    loss: float  # the run's own, of this image
    weight: float  # by which training multiplies it
    velocity: Tensor  # v, or the direction of a flow, of the image and its noise
    predicted_velocity: Tensor  # the same of what is predicted of both

    @property
    def weighted_loss(self) -> float:
        """What this image adds to the loss of training."""
        return self.weight * self.loss

    @property
    def is_finite(self) -> bool:
        """Whether there is a predicted image: not of a network whose training diverged."""
        return bool(self.predicted_x_0.isfinite().all())

    @property
    def x_0_error(self) -> float:
        """The root mean square of the predicted image, clamped to [-1, 1], minus the image;
        infinite where there is none."""
        if not self.is_finite:
            return math.inf
        clamped = self.predicted_x_0.clamp(-1, 1)
        return float((clamped - self.x_0).square().mean().sqrt())


def level_at(schedule: Schedule, t: int) -> NoiseLevel:
    """The level of a timestep; that of -1 is the image itself."""
    if t < 0:
        return IMAGE
    alphas, sigmas = exact_tables(schedule)
    return NoiseLevel(t, alphas[t], sigmas[t])


def predictor(loaded: LoadedModel, asked: Asked, *, clip_x0: bool) -> Predict:
    """`make_predict` for one image, the class and the guidance of `asked`."""
    device, label = device_of(loaded.model), asked.label
    return make_predict(
        loaded.model,
        loaded.config.prediction_type,
        clip_x0=clip_x0,
        labels=None if label is None else torch.tensor([label], device=device),
        guidance_scale=asked.guidance_scale,
    )


@torch.no_grad()
def predict(loaded: LoadedModel, x_0: Tensor, noise: Tensor, asked: Asked) -> Predicted:
    """Take an image to a timestep with this noise, and ask the network."""
    model, schedule, config = loaded
    device = device_of(model)
    x_0, noise = x_0.to(device), noise.to(device)
    t = torch.tensor([asked.t], device=device)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    level = level_at(schedule, asked.t)
    image, epsilon = predictor(loaded, asked, clip_x0=False)(x_t, level)
    kind = prediction_type_of(config.prediction_type)
    shares = level.alpha, level.sigma
    target, answer = kind.target(x_0, noise, *shares), kind.target(image, epsilon, *shares)
    on_v = config.loss_on == "v"
    if on_v:
        scale = v_scale(schedule, t, x_0.ndim, config.prediction_type)
        target, answer = target * scale, answer * scale
    velocity = (FLOW_PREDICTION if schedule.is_flow else V_PREDICTION).target
    weight = torch.ones(1)
    if config.min_snr_gamma:
        how = (config.min_snr_gamma, config.prediction_type, on_v)
        weight = min_snr_weight(schedule, t, *how)
    return Predicted(
        x_0,
        noise,
        x_t,
        image,
        epsilon,
        target,
        answer,
        loss_of(answer, target, config.loss),
        float(weight),
        velocity(x_0, noise, *shares),
        velocity(image, epsilon, *shares),
    )


def loss_of(answer: Tensor, target: Tensor, loss: str) -> float:
    """See `loss_per_image`, of one image."""
    return float(loss_per_image(answer, target, loss))


def dependence(loaded: LoadedModel, x_t: Tensor, asked: Asked, pixel: tuple[int, int]) -> Tensor:
    """How much each pixel of x_t moves one pixel (row, column) of the predicted image: (H, W).

    The root of the sum of squares of d x_0 / d x_t over the channels of both; never negative.
    """
    ask, level = predictor(loaded, asked, clip_x0=False), level_at(loaded.schedule, asked.t)
    with torch.enable_grad():
        x = x_t.detach().clone().to(device_of(loaded.model)).requires_grad_()
        values = ask(x, level)[0][0, :, pixel[0], pixel[1]]
        squares = torch.zeros_like(x[0, 0])
        for value in values:
            [gradient] = torch.autograd.grad(value, x, retain_graph=True)
            squares += gradient[0].square().sum(dim=0)
    return squares.sqrt()


def steps_from(loaded: LoadedModel, found: Predicted, asked: Asked, z: Tensor) -> dict[str, Tensor]:
    """x_{t-1} by each of STEPS, or of FLOW_STEPS, from the same x_t, prediction and fresh noise z.

    The samplers' own code takes the step. As in sampling, the predicted image is clamped to
    [-1, 1]; the lecture clamps x_{t-1} instead.
    """
    schedule = loaded.schedule
    levels = [level_at(schedule, asked.t), level_at(schedule, asked.t - 1)]

    def known(clip: bool) -> Predict:
        if not clip:
            return lambda x_t, level: (found.predicted_x_0, found.predicted_noise)
        image = found.predicted_x_0.clamp(-1, 1)
        return lambda x_t, level: (image, X_0.to_epsilon(image, x_t, level.alpha, level.sigma))

    z = z.to(found.x_t.device)
    made = {}
    for name in FLOW_STEPS if schedule.is_flow else STEPS:
        lecture = name == LECTURE
        sampler = sampler_of("ddpm" if lecture else name, schedule.is_flow)
        how = {"noise_term": "lecture", "clip_x_t": True} if lecture else {}
        [view] = sampler.solve(known(not lecture), levels, found.x_t, lambda: z, **how)
        made[name] = view.x_t
    return made


def posteriors(
    schedule: NoiseSchedule, found: Predicted, asked: Asked
) -> tuple[Tensor, Tensor, float]:
    """The means of q(x_{t-1} | x_t, x_0) for the predicted, clamped image and for the true one, and
    their variance; see `objective.posterior`."""
    t = torch.tensor([asked.t], device=found.x_t.device)
    predicted, variance = posterior(schedule, found.predicted_x_0.clamp(-1, 1), found.x_t, t)
    true, _ = posterior(schedule, found.x_0, found.x_t, t)
    return predicted, true, float(variance)
