"""Training a small network on points, and sampling with it or with the exact answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusion_core.playground.data import Data
from diffusion_core.playground.network import (
    CLASSES,
    EMBEDDING,
    Adam,
    Weights,
    backward,
    forward,
    initial_weights,
    time_features,
)
from diffusion_core.playground.random import Random
from diffusion_core.playground.settings import SAMPLERS, Settings
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.schedule import NoiseSchedule, Schedule
from diffusion_core.sampling.levels import NoiseLevel, make_levels
from diffusion_core.sampling.solvers import ddim, ddpm, euler

ANY = -1  # the label for any class
CLIP = 3.0  # the predicted x_0 is kept in a square, as images are kept in [-1, 1]

# (points (N, 2), timesteps (N,), labels (N,)) to the prediction (N, 2).
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Model:
    """A network that predicts epsilon, or for a flow epsilon - x_0, and how it was trained."""

    settings: Settings
    objective: str  # "epsilon" or "flow"
    schedule: Schedule
    features: np.ndarray  # of each timestep
    weights: Weights
    optimizer: Adam
    random: Random  # of the batches
    losses: list[float] = field(default_factory=list)  # of each step

    def inputs(self, x: np.ndarray, t: np.ndarray, labels: np.ndarray) -> np.ndarray:
        told = [x, self.features[t]]
        if self.settings.classes:
            told.append((labels[:, None] == np.arange(CLASSES)).astype(np.float64))
        return np.concatenate(told, axis=1)

    def __call__(self, x: np.ndarray, t: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return forward(self.weights, self.inputs(x, t, labels))[0]


def make_schedule(settings: Settings, objective: str) -> Schedule:
    """With the project's usual ends of β for the kinds that take them."""
    if objective == "flow":
        return FlowSchedule(settings.timesteps)
    return NoiseSchedule(settings.kind, settings.timesteps)


def start(settings: Settings, objective: str) -> Model:
    """A network before training. Raises ValueError for an unknown objective."""
    if objective not in ("epsilon", "flow"):
        raise ValueError(f"Unknown objective {objective!r}; choose epsilon or flow.")
    inputs = 2 + EMBEDDING + (CLASSES if settings.classes else 0)
    random = Random(settings.seed, "weights")
    weights = initial_weights(random, inputs, settings.width, settings.layers)
    return Model(
        settings,
        objective,
        make_schedule(settings, objective),
        time_features(settings.timesteps),
        weights,
        Adam(weights, settings.learning_rate),
        Random(settings.seed, "batches"),
    )


def train_step(model: Model, data: Data) -> None:
    """One step: a batch with replacement, its timesteps and noise, L2 loss, Adam."""
    settings, random, schedule = model.settings, model.random, model.schedule
    rows = random.integers(len(data.points), settings.batch)
    t = random.integers(settings.timesteps, settings.batch)
    epsilon = random.normals(settings.batch)
    labels = data.labels[rows]
    if settings.classes:
        labels = np.where(random.uniforms(settings.batch) < settings.dropout, ANY, labels)
    x_0 = data.points[rows]
    x_t = schedule.exact_signal[t, None] * x_0 + schedule.exact_spread[t, None] * epsilon
    target = epsilon - x_0 if schedule.is_flow else epsilon
    prediction, kept = forward(model.weights, model.inputs(x_t, t, labels))
    error = prediction - target
    model.losses.append(float((error**2).mean()))
    model.optimizer.step(backward(model.weights, kept, 2 * error / error.size))


def train(settings: Settings, data: Data, objective: str = "epsilon") -> Model:
    """A network after `settings.steps` steps."""
    model = start(settings, objective)
    for _ in range(settings.steps):
        train_step(model, data)
    return model


def exact_model(data: Data, schedule: Schedule) -> Predictor:
    """What a perfect network predicts: the expected target given x_t, in closed form.

    The data are the points, each as likely. At x_t point k has the weight
    exp(-|x_t - signal x_k|^2 / (2 spread^2)), and the expected x_0 is the weighted mean.
    The score is -epsilon / spread.
    """

    def predict(x: np.ndarray, t: np.ndarray, labels: np.ndarray) -> np.ndarray:
        signal, spread = schedule.exact_signal[t, None], schedule.exact_spread[t, None]
        away = ((x[:, None] - signal[:, None] * data.points) ** 2).sum(axis=2)
        away = away / (2 * spread**2)
        away[(labels[:, None] != ANY) & (labels[:, None] != data.labels)] = np.inf
        weights = np.exp(away.min(axis=1, keepdims=True) - away)
        x_0 = weights @ data.points / weights.sum(axis=1, keepdims=True)
        epsilon = (x - signal * x_0) / spread
        return epsilon - x_0 if schedule.is_flow else epsilon

    return predict


def sample(settings: Settings, model: Model, data: Data, sampler: str) -> np.ndarray:
    """The particles after each step, (sampling_steps + 1, particles, 2); the first are x_T.

    `sampler`: one of `settings.SAMPLERS`; "exact" is DDIM with `exact_model`. With classes the
    particles are of class 0 and 1 in turns, guided by `settings.guidance_scale`. Raises ValueError
    for a sampler that does not go with the model.
    """
    if SAMPLERS.get(sampler) != model.objective:
        raise ValueError(f"The sampler {sampler!r} does not go with a model of {model.objective}.")
    count, schedule = settings.particles, model.schedule
    labels = np.arange(count) % CLASSES if settings.classes else np.full(count, ANY)
    ask = exact_model(data, schedule) if sampler == "exact" else model
    scale = settings.guidance_scale if settings.classes else 1.0

    def predict(x: np.ndarray, level: NoiseLevel) -> tuple[np.ndarray, np.ndarray]:
        t = np.full(count, int(level.t))
        prediction = ask(x, t, labels)
        if scale != 1:
            other = ask(x, t, np.full(count, ANY))
            prediction = other + scale * (prediction - other)
        x_0 = x - level.sigma * prediction
        if not schedule.is_flow:
            x_0 = x_0 / level.alpha
        x_0 = np.clip(x_0, -CLIP, CLIP)
        return x_0, (x - level.alpha * x_0) / level.sigma

    # The solvers are written for tensors, but compute with arrays too.
    solvers: dict[str, Any] = {"ddpm": ddpm, "ddim": ddim, "exact": ddim, "flow": euler}
    levels = make_levels(schedule, min(settings.sampling_steps, settings.timesteps))
    x_T = Random(settings.seed, "x_T").normals(count)
    random = Random(settings.seed, "noise")
    steps = solvers[sampler](predict, levels, x_T, lambda: random.normals(count))
    return np.stack([x_T, *(step.x_t for step in steps)])
