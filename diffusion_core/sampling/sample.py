"""Sampling: a network, a schedule and a method make images.

The methods themselves are in `methods.py`, one function each, the noise levels that they walk down
in `levels.py`, what starts from a given image in `edits.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffusion_core.device import device_of
from diffusion_core.process.flow import FlowSchedule
from diffusion_core.process.objective import Schedule, to_epsilon, to_x_0
from diffusion_core.sampling import edits, solvers
from diffusion_core.sampling.levels import NoiseLevel, make_levels
from diffusion_core.sampling.solvers import Noise, Predict, StepView

# By their names; for models that predict the direction of a flow there are others.
SAMPLERS: dict[str, Callable[..., Iterator[StepView]]] = {
    "dpmpp_2m": solvers.dpmpp_2m,
    "ddim": solvers.ddim,
    "ddpm": solvers.ddpm,
    "dpmpp_2m_sde": solvers.dpmpp_2m_sde,
    "unipc": solvers.unipc,
    "heun": solvers.heun,
    "euler": solvers.euler,
    "euler_ancestral": solvers.euler_ancestral,
    "lms": solvers.lms,
}
FLOW_SAMPLERS: dict[str, Callable[..., Iterator[StepView]]] = {
    "euler": solvers.euler,
    "heun": solvers.flow_heun,
}
# These divide by alpha, which is 0 where a schedule ends in pure noise.
FROM_PURE_NOISE = ("ddim", "ddpm", "euler")
# What each is good with; ddpm wants all of them.
USUAL_STEPS = {"dpmpp_2m": 20, "ddim": 50, "dpmpp_2m_sde": 25, "unipc": 20, "heun": 25, "euler": 50}
USUAL_STEPS |= {"euler_ancestral": 50, "lms": 25}


class Cancelled(Exception):
    """Raise it in `on_step` to stop a sampling; it reaches the caller of `sample`."""


def samplers_for(schedule: Schedule) -> tuple[str, ...]:
    """The names that `sample` takes with this schedule, the usual one first."""
    if isinstance(schedule, FlowSchedule):
        return tuple(FLOW_SAMPLERS)
    ends_in_noise = schedule.exact_alphas_cumprod[-1] <= 0
    return tuple(name for name in SAMPLERS if name in FROM_PURE_NOISE or not ends_in_noise)


def usual_steps(sampler: str, schedule: Schedule) -> int:
    """How many to walk where nobody says."""
    return min(USUAL_STEPS.get(sampler, schedule.timesteps), schedule.timesteps)


def count_evaluations(
    sampler: str,
    levels: Sequence[NoiseLevel],
    *,
    guided: bool = False,
    guidance_interval: tuple[float, float] | None = None,
    resample: int = 1,
) -> int:
    """How often a sampler asks the network for one image on its walk down `levels`.

    `guided`: by a guidance scale other than 1, which asks twice within the interval. `resample`: of
    a walk with a mask.
    """
    asked = [level.t for level in levels[:-1]]
    if sampler == "heun":  # also at the end of each step but the last
        asked += asked[1:]
    asked = asked[:-1] * resample + asked[-1:]
    if not guided:
        return len(asked)
    low, high = guidance_interval or (-math.inf, math.inf)
    return len(asked) + sum(low <= t <= high for t in asked)


def image_noise(
    seed: int, n: int, shape: Sequence[int], device: torch.device | str = "cpu", first: int = 0
) -> Noise:
    """A source of N(0, I) of shape (n, *shape) in which image k has a stream of its own.

    The streams are made on the CPU from (seed, first + k): the same image on every device and
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
    prediction_type: str = "epsilon",
    *,
    clip_x0: bool = True,
    labels: Tensor | None = None,
    guidance_scale: float = 1.0,
    negative_labels: Tensor | None = None,
    guidance_interval: tuple[float, float] | None = None,
    one_by_one: bool = False,
) -> Predict:
    """The network as a sampler sees it: `predict(x_t, level) -> (x_0, epsilon)`.

    `clip_x0` clamps x_0 to [-1, 1] and gives the epsilon that belongs to the clamped image.
    `guidance_scale` other than 1 needs `labels`: other + scale * (labelled - other), Ho & Salimans
    2022, equation 6 with scale = 1 + w; other is the prediction for any class, or for
    `negative_labels` (B,). `guidance_interval` (low, high) guides where low <= t <= high only, and
    costs nothing elsewhere (Kynkäänniemi et al. 2024). `one_by_one` shows the network one image
    at a time.
    """
    if guidance_scale != 1.0 and labels is None:
        raise ValueError("guidance_scale needs labels; without classes leave it at 1.")
    others = negative_labels
    if labels is not None and guidance_scale != 1.0 and others is None:
        others = torch.full_like(labels, cast(int, model.num_classes))
    low, high = guidance_interval or (-math.inf, math.inf)

    def network(x_t: Tensor, t: Tensor, rows: slice, guided: bool) -> Tensor:
        if labels is None:
            return model(x_t, t)
        if others is None or not guided:
            return model(x_t, t, labels[rows])
        both = torch.cat([labels[rows], others[rows]])
        labelled, other = model(x_t.repeat(2, 1, 1, 1), t.repeat(2), both).float().chunk(2)
        return other + guidance_scale * (labelled - other)

    def predict(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        # Between the schedule's own timesteps the network is told a fraction.
        kind = torch.long if float(level.t).is_integer() else torch.float32
        t = torch.full((len(x_t),), level.t, device=x_t.device, dtype=kind)
        guided = guidance_scale != 1.0 and low <= level.t <= high
        if one_by_one:
            each = [slice(k, k + 1) for k in range(len(x_t))]
            prediction = torch.cat([network(x_t[k], t[k], k, guided) for k in each]).float()
        else:
            prediction = network(x_t, t, slice(None), guided).float()
        point = (x_t, level.alpha, level.sigma)
        x_0 = to_x_0(prediction, *point, prediction_type)
        if not clip_x0:
            return x_0, to_epsilon(prediction, *point, prediction_type)
        x_0 = x_0.clamp(-1, 1)
        return x_0, to_epsilon(x_0, *point, "x_0")

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
    negative_labels: Tensor | None = None,
    guidance_interval: tuple[float, float] | None = None,
    first: int = 0,
    noise: Noise | None = None,
    image: Tensor | None = None,
    strength: float = 1.0,
    mask: Tensor | None = None,
    resample: int = 1,
) -> Generator[StepView, None, None]:
    """The steps of `sample`, one `StepView` each; the same arguments.

    `training_mode` samples as the lecture does, with the network left in training mode and one
    image at a time, so that BatchNorm uses the statistics of a batch of one; the network's
    buffers and mode are put back afterwards.

    - `negative_labels` (n,), `guidance_interval`: see `make_predict`.
    - `first`: these are images first to first + n - 1 of the seed.
    - `noise`: a source of noises (n, C, H, W) instead of the seed's; the first is x_T.
    - `image` (n or 1, C, H, W) in [-1, 1]: start from it, noised, and walk only the last
      round(strength * steps) steps (SDEdit, Meng et al. 2022).
    - `mask` (n or 1, 1, H, W): keep the image where it is 1 and draw anew where it is 0; every
      step is taken `resample` times (RePaint, see `edits.repaint`).

    Raises ValueError for unknown names and values.
    """
    if sampler not in (known := samplers_for(schedule)):
        raise ValueError(
            f"{sampler!r} is no sampler for this model; choose one of {', '.join(known)}."
        )
    if noise_term not in solvers.NOISE_TERMS:
        raise ValueError(
            f"Unknown noise term {noise_term!r}; choose one of {', '.join(solvers.NOISE_TERMS)}."
        )
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}.")
    edits.check(n, image, strength, mask, resample, sampler)
    for name, given in (("x_T", x_T), ("labels", labels), ("negative_labels", negative_labels)):
        if given is not None and len(given) != n:
            raise ValueError(f"{name} needs a row for each of the {n} images, not {len(given)}.")
    device = device_of(model)
    if noise is None:
        like = image if x_T is None else x_T
        noise = image_noise(seed, n, shape if like is None else like.shape[1:], device, first)
    # Drawn even where x_T is given, so that its own noise never comes back as a step's noise.
    drawn = noise()
    start = drawn if x_T is None else x_T.to(device)
    total = schedule.timesteps if steps is None else steps
    levels = make_levels(schedule, total, timestep_spacing)
    predict = make_predict(
        model,
        prediction_type,
        clip_x0=clip_x0,
        labels=None if labels is None else labels.to(device),
        guidance_scale=guidance_scale,
        negative_labels=None if negative_labels is None else negative_labels.to(device),
        guidance_interval=guidance_interval,
        one_by_one=training_mode,
    )
    options: dict[str, Any] = {}
    if sampler == "ddpm":
        options = {"noise_term": noise_term, "clip_x_t": clip_x_t}
    elif sampler == "ddim":
        options = {"eta": eta}
    kinds = FLOW_SAMPLERS if isinstance(schedule, FlowSchedule) else SAMPLERS
    method = functools.partial(kinds[sampler], **options)
    if image is not None:
        image = image.to(device)
        levels, start = edits.noised(image, levels, strength, start)
    if mask is not None:
        assert image is not None  # see `edits.check`
        method = functools.partial(
            edits.repaint, method, image=image, mask=mask.to(device), resample=resample
        )
    with _mode(model, training_mode):
        yield from method(predict, levels, start, noise)


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
    """Draw n images: (n, C, H, W) in [-1, 1], on the model's device.

    - `model(x, t[, labels])`: any module, x (B, C, H, W), t (B,) integers.
    - `sampler`: a name of SAMPLERS, with a `FlowSchedule` of FLOW_SAMPLERS.
    - `timestep_spacing`: see `levels.make_levels`.
    - `steps`: how many of the schedule's timesteps to walk; None for all of them.
    - `seed`: image k of a seed is the same image whatever `n` is.
    - `x_T`: start from this noise (n, C, H, W) instead of the seed's.
    - `labels`: (n,) integers for a network with classes.
    - `on_step`: called with every `StepView`; raising `Cancelled` in it stops cleanly.
    - `options`: the keyword arguments of `sample_steps`: `shape`, `eta`, the lecture's
      `noise_term="lecture"`, `clip_x_t=True`, `training_mode=True`, and those for guidance and for
      starting from an image.
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


@torch.inference_mode()
def invert(
    model: nn.Module,
    schedule: Schedule,
    images: Tensor,
    steps: int | None = None,
    prediction_type: str = "epsilon",
    timestep_spacing: str = "trailing",
    labels: Tensor | None = None,
    on_step: Callable[[StepView], None] | None = None,
) -> Tensor:
    """The noise x_T (n, C, H, W) from which DDIM with as many steps, `clip_x0=False` and the same
    labels draws `images` (n, C, H, W) in [-1, 1]; see `edits.invert`.

    Raises ValueError where the schedule ends in pure noise: nothing of the image is left there.
    """
    total = schedule.timesteps if steps is None else steps
    levels = make_levels(schedule, total, timestep_spacing)
    flow = isinstance(schedule, FlowSchedule)
    if levels[0].alpha <= 0 and not flow:
        raise ValueError("A walk that ends in pure noise cannot be inverted.")
    device = device_of(model)
    predict = make_predict(
        model,
        prediction_type,
        clip_x0=False,
        labels=None if labels is None else labels.to(device),
    )
    x_t = images.to(device)
    with _mode(model, False):
        for view in edits.invert(predict, levels, x_t, flow=flow):
            x_t = view.x_t
            if on_step is not None:
                on_step(view)
    return x_t


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
    turned = [module for module in model.modules() if module.training != training]
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if training else []
    kept = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    for module in turned:
        module.training = training
    try:
        yield
    finally:
        for module in turned:
            module.training = not training
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
