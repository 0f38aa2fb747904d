"""At which timestep of sampling an image is decided.

Branches of an image share its noise, x_T and then the fresh noise of each step, up to some timestep
and have their own noise from there on. How much the finished images differ says how much was still
undecided at that timestep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from diffusion_core.device import device_of
from diffusion_core.media.images import to_uint8
from diffusion_core.process.noise import image_noise
from diffusion_core.runs.checkpoint import LoadedModel
from diffusion_core.sampling.solvers import Noise, StepView
from diffusion_core.sampling.spec import SamplingSpec

OWN = 2**20  # the branches' own noise is that of the images of the seed from this number on


@dataclass(frozen=True, eq=False)
class Parting:
    """m branches that share their first noises, and how much they differ."""

    shared: int  # number of shared noises, including x_T
    timestep: float | None  # of the last x_t that they share; None where nothing is shared
    variance: float  # across the finished images, in [-1, 1], mean over the pixels
    mean: np.ndarray  # uint8 (H, W, C), the mean of the finished images
    deviation: np.ndarray  # (H, W), standard deviation across them, over the channels
    images: np.ndarray  # uint8 (m, H, W, C)


def partings(steps: int, count: int) -> list[int]:
    """At most `count` numbers of shared noises: 0, 1 (x_T alone), up to all but one; denser at the
    noisy end, where most is decided."""
    if steps < 2:
        return [0]
    way = np.linspace(0, 1, count - 1) ** 2
    return [0, *np.unique(1 + (way * (steps - 2)).round().astype(int)).tolist()]


def branch(
    spec: SamplingSpec,
    loaded: LoadedModel,
    number: int,
    count: int = 7,
    branches: int = 8,
    on_step: Callable[[StepView], None] | None = None,
    guide: LoadedModel | None = None,
) -> list[Parting]:
    """Image `number` of a request, from 0, sampled `branches` times from each of `count` partings.
    `guide`: see `SamplingSpec.make`.

    With a sampler that adds no noise in its steps x_T decides everything, and the variance is 0
    from the second parting on.
    """
    model, schedule, config = loaded
    device = device_of(model)
    shape = config.image_shape
    levels = spec.levels(schedule)
    one_class = spec.replace(label=spec.class_of(number) or spec.label)
    found = []
    for shared in partings(spec.steps, count):
        trunk = image_noise(spec.seed, 1, shape, device, number)
        # The same own noise at every parting: the variances differ by where they part alone.
        own = image_noise(spec.seed, branches, shape, device, OWN)
        noise = shared_first(trunk, own, shared)
        images = one_class.make(loaded, on_step, 0, branches, guide, noise=noise).float().cpu()
        found.append(parting(images, shared, levels[shared - 1].t if shared else None))
    return found


def shared_first(trunk: Noise, own: Noise, shared: int) -> Noise:
    """A source whose first `shared` noises are the trunk's for all branches, the rest their own."""
    taken = 0

    def draw() -> Tensor:
        nonlocal taken
        together, alone = trunk(), own()
        taken += 1
        return together.expand_as(alone) if taken <= shared else alone

    return draw


def parting(images: Tensor, shared: int, timestep: float | None) -> Parting:
    """From finished images (m, C, H, W) in [-1, 1], m at least 2."""
    variance = images.var(dim=0)
    return Parting(
        shared,
        timestep,
        float(variance.mean()),
        to_uint8(images.mean(dim=0, keepdim=True))[0],
        variance.mean(dim=0).sqrt().numpy(),
        to_uint8(images),
    )
