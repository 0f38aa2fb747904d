"""Samplers: from noise to pictures, as generators of steps.

A sampler is one function. `predict(x_t, t)` gives the predicted (x_0, epsilon) at the integer
timestep t; `noise()` gives fresh N(0, I) in the shape of x_T. Every sampler walks the timesteps
downwards and lands on alphas_cumprod = 1. They know nothing of networks, files or pages.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffusion_core.diffusion import Schedule, predict_epsilon, predict_x_0
from diffusion_core.flow import FlowSchedule
from diffusion_core.schedule import NoiseSchedule

SAMPLERS = ("ddpm", "ddim")
FLOW_SAMPLERS = ("euler", "heun")  # for models that predict the direction of a flow
TIMESTEP_SPACINGS = ("trailing", "leading", "linspace")
NOISE_TERMS = ("posterior", "lecture")

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Noise = Callable[[], Tensor]


class Cancelled(Exception):
    """Raise it in `on_step` to stop a sampling; it reaches the caller of `sample`."""


@dataclass(frozen=True)
class StepView:
    """What a sampler shows after each step; tensors (n, C, H, W), not to be written to."""

    index: int  # of this step, from 0
    steps: int  # how many there will be
    timestep: int  # where the step started
    x_t: Tensor  # the picture after the step
    x_0: Tensor  # the clean picture that the network predicted at `timestep`


def spaced_timesteps(timesteps: int, steps: int, spacing: str = "trailing") -> list[int]:
    """`steps` of the `timesteps` in falling order (Lin et al. 2024, table 2).

    `trailing` starts at the last timestep, `leading` ends at 0, `linspace` does both. Raises
    ValueError where steps is not in [1, timesteps].
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must lie between 1 and {timesteps}, not {steps}.")
    if spacing == "trailing":
        found = np.round(np.arange(timesteps, 0, -timesteps / steps))[:steps] - 1
    elif spacing == "leading":
        found = np.arange(steps)[::-1] * (timesteps // steps)
    elif spacing == "linspace":
        found = np.linspace(0, timesteps - 1, steps).round()[::-1]
    else:
        raise ValueError(
            f"Unknown timestep spacing {spacing!r}; choose one of {', '.join(TIMESTEP_SPACINGS)}."
        )
    return [int(t) for t in found]


def ddpm(
    predict: Predict,
    schedule: NoiseSchedule,
    x_T: Tensor,
    timesteps: Sequence[int],
    noise: Noise,
    *,
    noise_term: str = "posterior",
    clip_x_t: bool = False,
) -> Iterator[StepView]:
    """Ancestral sampling: Ho et al. 2020, algorithm 2, with the fixed variance of equation 7.

    `noise_term="lecture"` adds variance * z where the paper has sqrt(variance) * z, and
    `clip_x_t` clamps every x_t to [-1, 1]: both as in the lecture.
    """
    x_t = x_T
    for index, (t, bar, bar_prev) in enumerate(_walk(schedule, timesteps)):
        x_0, _ = predict(x_t, t)
        alpha = bar / bar_prev
        beta = 1 - alpha
        mean_x_0 = bar_prev**0.5 * beta / (1 - bar)
        mean_x_t = alpha**0.5 * (1 - bar_prev) / (1 - bar)
        x_t = mean_x_0 * x_0 + mean_x_t * x_t
        if bar_prev < 1:
            variance = beta * (1 - bar_prev) / (1 - bar)
            x_t = x_t + (variance if noise_term == "lecture" else variance**0.5) * noise()
        if clip_x_t:
            x_t = x_t.clamp(-1, 1)
        yield StepView(index, len(timesteps), t, x_t, x_0)


def ddim(
    predict: Predict,
    schedule: NoiseSchedule,
    x_T: Tensor,
    timesteps: Sequence[int],
    noise: Noise,
    *,
    eta: float = 0.0,
) -> Iterator[StepView]:
    """Song et al. 2021, equation 12; `eta` 0 adds no noise, 1 as much as DDPM (equation 16)."""
    x_t = x_T
    for index, (t, bar, bar_prev) in enumerate(_walk(schedule, timesteps)):
        x_0, epsilon = predict(x_t, t)
        sigma = eta * ((1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)) ** 0.5
        direction = max(1 - bar_prev - sigma**2, 0.0) ** 0.5
        x_t = bar_prev**0.5 * x_0 + direction * epsilon
        if sigma > 0:
            x_t = x_t + sigma * noise()
        yield StepView(index, len(timesteps), t, x_t, x_0)


def euler(
    predict: Predict, schedule: FlowSchedule, x_T: Tensor, timesteps: Sequence[int]
) -> Iterator[StepView]:
    """Euler's method on the flow's equation dx/ds = epsilon - x_0 (Liu et al. 2023)."""
    x_t = x_T
    for index, (t, s, s_next) in enumerate(_lines(schedule, timesteps)):
        x_0, epsilon = predict(x_t, t)
        x_t = x_t + (s_next - s) * (epsilon - x_0)
        yield StepView(index, len(timesteps), t, x_t, x_0)


def heun(
    predict: Predict, schedule: FlowSchedule, x_T: Tensor, timesteps: Sequence[int]
) -> Iterator[StepView]:
    """Heun's method on the same equation: the mean of the directions at both ends of each step.

    Two network evaluations a step; the last step, which lands on the picture, is Euler's
    (Karras et al. 2022, algorithm 1, with this flow's equation).
    """
    x_t = x_T
    after = [*timesteps[1:], None]
    for index, (t, s, s_next) in enumerate(_lines(schedule, timesteps)):
        x_0, epsilon = predict(x_t, t)
        direction = epsilon - x_0
        landed = x_t + (s_next - s) * direction
        if (t_next := after[index]) is not None:
            next_x_0, next_epsilon = predict(landed, t_next)
            landed = x_t + (s_next - s) * (direction + next_epsilon - next_x_0) / 2
        x_t = landed
        yield StepView(index, len(timesteps), t, x_t, x_0)


def _lines(schedule: FlowSchedule, timesteps: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """(t, s at t, s where the step lands); the last lands on 0."""
    s = [(t + 1) / schedule.timesteps for t in timesteps]
    return zip(timesteps, s, [*s[1:], 0.0], strict=True)


def samplers_for(schedule: Schedule) -> tuple[str, ...]:
    """The names that `sample` takes with this kind of schedule."""
    return FLOW_SAMPLERS if isinstance(schedule, FlowSchedule) else SAMPLERS


def _walk(schedule: NoiseSchedule, timesteps: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """(t, alphas_cumprod at t, alphas_cumprod where the step lands); the last lands on 1."""
    bars = [float(schedule.exact_alphas_cumprod[t]) for t in timesteps]
    return zip(timesteps, bars, [*bars[1:], 1.0], strict=True)


def picture_noise(
    seed: int, n: int, shape: Sequence[int], device: torch.device | str = "cpu", first: int = 0
) -> Noise:
    """A source of N(0, I) of shape (n, *shape) in which picture k has a stream of its own.

    The streams are made on the CPU from (seed, first + k): the same picture on every device and
    in every batch size.
    """
    generators = []
    for k in range(first, first + n):
        state = int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0])
        generators.append(torch.Generator().manual_seed(state >> 1))

    def draw() -> Tensor:
        if not generators:
            return torch.empty(0, *shape, device=device)
        rows = [torch.randn(*shape, generator=generator) for generator in generators]
        return torch.stack(rows).to(device)

    return draw


def make_predict(
    model: nn.Module,
    schedule: Schedule,
    prediction_type: str = "epsilon",
    *,
    clip_x0: bool = True,
    labels: Tensor | None = None,
    guidance_scale: float = 1.0,
    one_by_one: bool = False,
) -> Predict:
    """The network as a sampler sees it: `predict(x_t, t) -> (x_0, epsilon)`.

    `clip_x0` clamps x_0 to [-1, 1] and gives the epsilon that belongs to the clamped picture.
    `guidance_scale` other than 1 needs `labels`: any + scale * (labelled - any), Ho & Salimans
    2022, equation 6 with scale = 1 + w. `one_by_one` shows the network one picture at a time.
    """
    if guidance_scale != 1.0 and labels is None:
        raise ValueError("guidance_scale needs labels; without classes leave it at 1.")

    def network(x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            return model(x_t, t)
        if guidance_scale == 1.0:
            return model(x_t, t, labels)
        any_class = torch.full_like(labels, cast(int, model.num_classes))
        both = model(x_t.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([labels, any_class]))
        labelled, unlabelled = both.float().chunk(2)
        return unlabelled + guidance_scale * (labelled - unlabelled)

    def predict(x_t: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        t = torch.full((len(x_t),), timestep, device=x_t.device, dtype=torch.long)
        if one_by_one:
            each = [slice(k, k + 1) for k in range(len(x_t))]
            rows = [network(x_t[k], t[k], None if labels is None else labels[k]) for k in each]
            prediction = torch.cat(rows).float()
        else:
            prediction = network(x_t, t, labels).float()
        x_0 = predict_x_0(schedule, x_t, t, prediction, prediction_type)
        if not clip_x0:
            return x_0, predict_epsilon(schedule, x_t, t, prediction, prediction_type)
        x_0 = x_0.clamp(-1, 1)
        return x_0, predict_epsilon(schedule, x_t, t, x_0, "x_0")

    return predict


@torch.inference_mode()
def sample_steps(
    model: nn.Module,
    schedule: Schedule,
    n: int,
    sampler: str = "ddpm",
    steps: int | None = None,
    seed: int = 0,
    prediction_type: str = "epsilon",
    x_T: Tensor | None = None,
    timestep_spacing: str = "trailing",
    clip_x0: bool = True,
    labels: Tensor | None = None,
    guidance_scale: float = 1.0,
    *,
    shape: tuple[int, int, int] = (3, 64, 64),
    eta: float = 0.0,
    noise_term: str = "posterior",
    clip_x_t: bool = False,
    training_mode: bool = False,
) -> Generator[StepView, None, None]:
    """The steps of `sample`, one `StepView` each; the same arguments.

    `training_mode` samples as the lecture does, with the network left in training mode and one
    picture at a time, so that BatchNorm uses the statistics of a batch of one; the network's
    buffers and mode are put back afterwards. Raises ValueError for unknown names and values.
    """
    if sampler not in (known := samplers_for(schedule)):
        raise ValueError(
            f"{sampler!r} is no sampler for this model; choose one of {', '.join(known)}."
        )
    if noise_term not in NOISE_TERMS:
        raise ValueError(
            f"Unknown noise term {noise_term!r}; choose one of {', '.join(NOISE_TERMS)}."
        )
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}.")
    for name, given in (("x_T", x_T), ("labels", labels)):
        if given is not None and len(given) != n:
            raise ValueError(f"{name} needs a row for each of the {n} pictures, not {len(given)}.")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    noise = picture_noise(seed, n, shape if x_T is None else x_T.shape[1:], device)
    # Drawn even where x_T is given, so that its own noise never comes back as a step's noise.
    drawn = noise()
    start = drawn if x_T is None else x_T.to(device)
    walk = spaced_timesteps(
        schedule.timesteps, schedule.timesteps if steps is None else steps, timestep_spacing
    )
    predict = make_predict(
        model,
        schedule,
        prediction_type,
        clip_x0=clip_x0,
        labels=None if labels is None else labels.to(device),
        guidance_scale=guidance_scale,
        one_by_one=training_mode,
    )
    with _mode(model, training_mode):
        if isinstance(schedule, FlowSchedule):
            yield from (euler if sampler == "euler" else heun)(predict, schedule, start, walk)
        elif sampler == "ddpm":
            yield from ddpm(
                predict, schedule, start, walk, noise, noise_term=noise_term, clip_x_t=clip_x_t
            )
        else:
            yield from ddim(predict, schedule, start, walk, noise, eta=eta)


def sample(
    model: nn.Module,
    schedule: Schedule,
    n: int,
    sampler: str = "ddpm",
    steps: int | None = None,
    seed: int = 0,
    prediction_type: str = "epsilon",
    x_T: Tensor | None = None,
    timestep_spacing: str = "trailing",
    clip_x0: bool = True,
    labels: Tensor | None = None,
    guidance_scale: float = 1.0,
    on_step: Callable[[StepView], None] | None = None,
    **options: Any,
) -> Tensor:
    """Draw n pictures: (n, C, H, W) in [-1, 1], on the model's device.

    - `model(x, t[, labels])`: any module, x (B, C, H, W), t (B,) integers.
    - `sampler`: `ddpm` or `ddim`; `euler` or `heun` with a `FlowSchedule`.
    - `steps`: how many of the schedule's timesteps to walk; None for all of them.
    - `seed`: picture k of a seed is the same picture whatever `n` is.
    - `x_T`: start from this noise (n, C, H, W) instead of the seed's.
    - `labels`: (n,) integers for a network with classes.
    - `on_step`: called with every `StepView`; raising `Cancelled` in it stops cleanly.
    - `options`: the keyword arguments of `sample_steps` (`shape`, `eta`, and the lecture's
      `noise_term="lecture"`, `clip_x_t=True`, `training_mode=True`).
    """
    steps_taken = sample_steps(
        model,
        schedule,
        n,
        sampler,
        steps,
        seed,
        prediction_type,
        x_T,
        timestep_spacing,
        clip_x0,
        labels,
        guidance_scale,
        **options,
    )
    view = None
    # Closed here, so that a cancelled sampling has put the network's mode back when it returns.
    with closing(steps_taken):
        for view in steps_taken:
            if on_step is not None:
                on_step(view)
    assert view is not None
    return view.x_t.clamp(-1, 1)


# The lecture's own sampling as options of `sample`, its two slips included.
LECTURE_SAMPLING: dict[str, Any] = {
    "sampler": "ddpm",
    "clip_x0": False,
    "noise_term": "lecture",
    "clip_x_t": True,
    "training_mode": True,
}


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Hold the network in training or evaluation mode; put mode and BatchNorm buffers back."""
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    model.train(training)
    try:
        yield
    finally:
        for module, was in modes.items():
            module.training = was
        if training:
            for norm, buffers in zip(norms, kept, strict=True):
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])
