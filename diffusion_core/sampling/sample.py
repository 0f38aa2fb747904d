"""Sampling: a network, a schedule and a sampler generate images.

The samplers are in `solvers.py`, the noise levels that they walk down in `levels.py`, what starts
from a given image in `edits.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffusion_core.cores import take_share
from diffusion_core.device import device_of
from diffusion_core.process.noise import Noise, image_noise
from diffusion_core.process.prediction import X_0, prediction_type_of
from diffusion_core.process.schedule import Schedule
from diffusion_core.sampling import edits
from diffusion_core.sampling.levels import NoiseLevel, learned_levels, make_levels
from diffusion_core.sampling.registry import samplers_for, unknown_sampler, usual_spacing
from diffusion_core.sampling.solvers import VARIANCES, Predict, Sampler, StepView


class Cancelled(Exception):
    """Raise it in `on_step` to stop sampling; it reaches the caller of `sample`."""


@dataclass(frozen=True)
class SamplingOptions:
    """The options of `sample` and `sample_steps`, n images of shape (C, H, W)."""

    sampler: str = "ddpm"  # the name of one of `registry.samplers_for(schedule)`
    steps: int | None = None  # timesteps to walk; None for all of the schedule's
    seed: int = 0
    prediction_type: str = "epsilon"
    x_T: Tensor | None = None  # start from this noise (n, C, H, W) instead of the seed's
    timestep_spacing: str | None = None  # see `levels.make_levels`; None for the sampler's usual
    clip_x0: bool = True  # clamp the predicted image to [-1, 1]
    labels: Tensor | None = None  # (n,) integers, for a network with classes
    guidance_scale: float = 1.0  # see `make_predict`, as for the next four
    negative_labels: Tensor | None = None  # (n,) integers
    guidance_interval: tuple[float, float] | None = None  # timesteps, both included
    guide: nn.Module | None = None  # a weaker network, for autoguidance
    guide_prediction_type: str | None = None  # None for that of the model
    shape: tuple[int, int, int] = (3, 64, 64)  # of an image; that of x_T or image where given
    eta: float = 0.0  # ddim: 0 adds no noise, 1 as much as ddpm
    noise_term: str = "posterior"  # ddpm: one of `solvers.VARIANCES`
    clip_x_t: bool = False  # ddpm: clamp every x_t to [-1, 1], as the lecture does
    # The lecture's way: the network stays in training mode and sees one image at a time, so that
    # BatchNorm uses the statistics of a batch of one. Its buffers and mode are put back afterwards.
    training_mode: bool = False
    exact: bool = False  # show the network one image at a time; see `sample`
    first: int = 0  # generate images first to first + n - 1 of the seed
    noise: Noise | None = None  # noises (n, C, H, W) instead of the seed's; the first is x_T
    # Start from this image (n or 1, C, H, W) in [-1, 1], noised, and walk only the last
    # round(strength * steps) steps (SDEdit, Meng et al. 2022).
    image: Tensor | None = None
    strength: float = 1.0
    # (n or 1, 1, H, W): keep the image where it is 1, generate again where it is 0, with `resample`
    # passes per step (RePaint, see `edits.repaint`).
    mask: Tensor | None = None
    resample: int = 1
    # Walk these, falling, which may lie between two of the schedule's, instead of spaced ones.
    timesteps: Sequence[float] = ()

    @classmethod
    def of(cls, *options: Any, **more: Any) -> SamplingOptions:
        """From the arguments of `sample`; `picture` is an older name of `image`."""
        if "picture" in more:
            more["image"] = more.pop("picture")
        return cls(*options, **more)

    def check(self, schedule: Schedule, n: int) -> Sampler:
        """The sampler. Raises ValueError with a sentence for what cannot be."""
        known = samplers_for(schedule) + samplers_for(schedule, distilled=True)
        sampler = next((each for each in known if each.name == self.sampler), None)
        if sampler is None:
            raise unknown_sampler(self.sampler, [each.name for each in known])
        if self.noise_term not in VARIANCES:
            raise ValueError(
                f"Unknown noise term {self.noise_term!r}; choose one of {', '.join(VARIANCES)}."
            )
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}.")
        if self.timesteps and self.steps not in (None, len(self.timesteps)):
            raise ValueError(f"timesteps needs one for each of {self.steps} steps.")
        edits.check(n, self.image, self.strength, self.mask, self.resample, sampler)
        for name in ("x_T", "labels", "negative_labels"):
            given = getattr(self, name)
            if given is not None and len(given) != n:
                raise ValueError(f"{name} needs {n} rows, one per image, not {len(given)}.")
        return sampler


def make_predict(
    model: nn.Module,
    prediction_type: str = "epsilon",
    *,
    clip_x0: bool = True,
    labels: Tensor | None = None,
    guidance_scale: float = 1.0,
    negative_labels: Tensor | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guide: nn.Module | None = None,
    guide_prediction_type: str | None = None,
    one_by_one: bool = False,
) -> Predict:
    """The network as a sampler sees it: `predict(x_t, level) -> (x_0, epsilon)`.

    `clip_x0` clamps x_0 to [-1, 1] and gives the epsilon that belongs to the clamped image.
    `guidance_scale` other than 1 extrapolates from another prediction to the network's own:
    other + scale * (own - other). The other is that of

    - `guide`, a weaker network for the same schedule and the same labels (autoguidance: Karras et
      al. 2024, arXiv 2406.02507, equation 3), of the same prediction type unless
      `guide_prediction_type` names its own;
    - without a guide the same network, for any class or for `negative_labels` (B,); this needs
      `labels` (Ho & Salimans 2022, equation 6 with scale = 1 + w).

    `guidance_interval` (low, high) guides where low <= t <= high only, and costs nothing elsewhere
    (Kynkäänniemi et al. 2024). `one_by_one` shows the network one image at a time. Raises
    ValueError for guidance without labels and without a guide, and with both a guide and
    `negative_labels`.
    """
    predicts = prediction_type_of(prediction_type)
    others = negative_labels
    if guide is not None and others is not None:
        raise ValueError("A guide and negative labels exclude each other.")
    if guide is None and guidance_scale != 1.0:
        if labels is None:
            raise ValueError("guidance_scale needs labels or a guide; else leave it at 1.")
        if others is None:
            others = torch.full_like(labels, cast(int, model.num_classes))
    guide_predicts = prediction_type_of(guide_prediction_type or prediction_type)
    low, high = guidance_interval or (-math.inf, math.inf)

    def network(x_t: Tensor, t: Tensor, level: NoiseLevel, rows: slice, guided: bool) -> Tensor:
        of_rows = () if labels is None else (labels[rows],)
        if not guided:
            return model(x_t, t, *of_rows)
        if guide is not None:
            own, other = model(x_t, t, *of_rows).float(), guide(x_t, t, *of_rows).float()
            if guide_predicts is not predicts:
                point = (x_t, level.alpha, level.sigma)
                x_0 = guide_predicts.to_x_0(other, *point)
                epsilon = guide_predicts.to_epsilon(other, *point)
                other = predicts.target(x_0, epsilon, level.alpha, level.sigma)
        else:
            assert labels is not None and others is not None
            both = torch.cat([labels[rows], others[rows]])
            own, other = model(x_t.repeat(2, 1, 1, 1), t.repeat(2), both).float().chunk(2)
        return other + guidance_scale * (own - other)

    def answer(x_t: Tensor, level: NoiseLevel) -> Tensor:
        # Between the schedule's own timesteps the network is told a fraction.
        kind = torch.long if float(level.t).is_integer() else torch.float32
        t = torch.full((len(x_t),), level.t, device=x_t.device, dtype=kind)
        guided = guidance_scale != 1.0 and low <= level.t <= high
        take_share()
        if one_by_one:
            # Cloned, so that memory is aligned alike for each: it can decide how sums are rounded.
            each = [slice(k, k + 1) for k in range(len(x_t))]
            return torch.cat(
                [network(x_t[k].clone(), t[k], level, k, guided) for k in each]
            ).float()
        return network(x_t, t, level, slice(None), guided).float()

    return predict_by(answer, prediction_type, clip_x0=clip_x0)


def predict_by(
    answer: Callable[[Tensor, NoiseLevel], Tensor], prediction_type: str, *, clip_x0: bool = True
) -> Predict:
    """`predict` for what a network answers at a level; see `make_predict`."""
    predicts = prediction_type_of(prediction_type)

    def predict(x_t: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        prediction = answer(x_t, level)
        point = (x_t, level.alpha, level.sigma)
        x_0 = predicts.to_x_0(prediction, *point)
        if not clip_x0:
            return x_0, predicts.to_epsilon(prediction, *point)
        x_0 = x_0.clamp(-1, 1)
        return x_0, X_0.to_epsilon(x_0, *point)

    return predict


@torch.inference_mode()
def sample_steps(
    model: nn.Module, schedule: Schedule, n: int, *options: Any, **more: Any
) -> Generator[StepView, None, None]:
    """The steps of `sample`, one `StepView` each; the same arguments but `on_step`.

    Raises ValueError for unknown names and values.
    """
    how = SamplingOptions.of(*options, **more)
    found = how.check(schedule, n)
    device = device_of(model)
    noise, image = how.noise, how.image
    if noise is None:
        like = image if how.x_T is None else how.x_T
        shape = how.shape if like is None else like.shape[1:]
        noise = image_noise(how.seed, n, shape, device, how.first)
    # Taken even where x_T is given, so that its own noise never comes back as a step's noise.
    first_noise = noise()
    start = first_noise if how.x_T is None else how.x_T.to(device)
    total = schedule.timesteps if how.steps is None else how.steps
    if how.timesteps:
        levels = learned_levels(schedule, how.timesteps)
    else:
        spacing = how.timestep_spacing or usual_spacing(found, schedule)
        levels = make_levels(schedule, total, spacing)
    predict = make_predict(
        model,
        how.prediction_type,
        clip_x0=how.clip_x0,
        labels=_on(device, how.labels),
        guidance_scale=how.guidance_scale,
        negative_labels=_on(device, how.negative_labels),
        guidance_interval=how.guidance_interval,
        guide=how.guide,
        guide_prediction_type=how.guide_prediction_type,
        one_by_one=how.training_mode or how.exact,
    )
    solve = functools.partial(found.solve, **{name: getattr(how, name) for name in found.options})
    if image is not None:
        image = image.to(device)
        levels, start = edits.noised(image, levels, how.strength, start)
    if how.mask is not None:
        assert image is not None  # see `edits.check`
        solve = functools.partial(
            edits.repaint, solve, image=image, mask=how.mask.to(device), resample=how.resample
        )
    # Between two steps somebody else may sample with the same network.
    views = solve(predict, levels, start, noise)
    while True:
        with _mode(model, how.training_mode), _mode(how.guide, False):
            view = next(views, None)
        if view is None:
            return
        yield view


def _on(device: torch.device, labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels.to(device)


def sample(
    model: nn.Module,
    schedule: Schedule,
    n: int,
    sampler: str = "ddpm",
    steps: int | None = None,
    seed: int = 0,
    prediction_type: str = "epsilon",
    x_T: Tensor | None = None,
    timestep_spacing: str | None = None,
    clip_x0: bool = True,
    labels: Tensor | None = None,
    guidance_scale: float = 1.0,
    on_step: Callable[[StepView], None] | None = None,
    **options: Any,
) -> Tensor:
    """Generate n images: (n, C, H, W) in [-1, 1], on the model's device.

    - `model(x, t[, labels])`: any module; x is (B, C, H, W), t is (B,) integers.
    - `on_step`: called with every `StepView`; raising `Cancelled` in it stops cleanly.
    - The other arguments and `options` are the fields of `SamplingOptions`.

    Image k of a seed is the same image whatever n and the batch are: its noise depends on the seed
    and k alone. What the network answers is rounded, and a processor may round differently for
    another batch size. In bfloat16 images therefore agree to rounding (a few of 255 grey levels);
    a float32 network (`load_model(..., exact=True)`) with `exact` gives identical bits in every
    batch on one device. `exact` evaluates the network image by image, because packed and
    multithreaded float32 convolutions too may round by batch size. On a CPU core that takes 1.5
    (preset `small`) to 2.2 times (`lecture`) as long as a float32 network in batches of 16, and
    2.4 to 5 times as long as the usual form of the network; on a GPU more.
    """
    how = (sampler, steps, seed, prediction_type, x_T, timestep_spacing, clip_x0)
    steps_taken = sample_steps(model, schedule, n, *how, labels, guidance_scale, **options)
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
    timesteps: Sequence[float] = (),
) -> Tensor:
    """The noise x_T (n, C, H, W) from which DDIM with as many steps, `clip_x0=False` and the same
    labels leads to `images` (n, C, H, W) in [-1, 1]; see `edits.invert`.

    Raises ValueError where the schedule ends in pure noise: nothing of the image is left there.
    """
    total = schedule.timesteps if steps is None else steps
    if timesteps:
        levels = learned_levels(schedule, timesteps)
    else:
        levels = make_levels(schedule, total, timestep_spacing)
    if levels[0].alpha <= 0 and not schedule.is_flow:
        raise ValueError("A walk that ends in pure noise cannot be inverted.")
    device = device_of(model)
    predict = make_predict(model, prediction_type, clip_x0=False, labels=_on(device, labels))
    x_t = images.to(device)
    with _mode(model, False):
        for view in edits.invert(predict, levels, x_t, flow=schedule.is_flow):
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
def _mode(model: nn.Module | None, training: bool) -> Iterator[None]:
    """Hold the network in training or evaluation mode; put mode and BatchNorm buffers back."""
    if model is None:
        yield
        return
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
