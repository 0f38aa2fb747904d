"""Sampling that starts from something given: an image, a part of one, two noises.

`sample` takes the images and masks; the functions here work on levels and predictions, as the
samplers of `solvers.py` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_core.process.noise import Noise
from diffusion_core.sampling import registry
from diffusion_core.sampling.levels import NoiseLevel
from diffusion_core.sampling.solvers import Predict, Sampler, Steps, StepView
from diffusion_core.text import either


def check(
    n: int,
    image: Tensor | None,
    strength: float,
    mask: Tensor | None,
    resample: int,
    sampler: Sampler,
) -> None:
    """Raises ValueError with a sentence for arguments that do not fit together."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be above 0 and at most 1, not {strength:g}.")
    if not 1 <= resample <= 100:
        raise ValueError(f"resample must lie between 1 and 100, not {resample}.")
    if image is None:
        if mask is not None or strength != 1:
            raise ValueError("strength and mask need an image.")
        return
    if len(image) not in (1, n):
        raise ValueError(f"image needs one row, or one for each of {n}, not {len(image)}.")
    if mask is None:
        return
    if not sampler.one_step:
        raise ValueError(f"A mask needs {one_step_names(sampler.flow)}, not {sampler.name}.")
    right = mask.ndim == 4 and len(mask) in (1, n) and mask.shape[1] == 1
    if not right or mask.shape[2:] != image.shape[2:]:
        wanted = f"(1 or {n}, 1, {', '.join(map(str, image.shape[2:]))})"
        raise ValueError(f"mask must have the shape {wanted}, not {tuple(mask.shape)}.")


def one_step_names(flow: bool) -> str:
    """The samplers that a mask works with: "ddim, ddpm, euler or euler_ancestral"."""
    return either([each.name for each in registry.REGISTRY if each.one_step and each.flow == flow])


def last_steps(levels: Sequence[NoiseLevel], strength: float) -> list[NoiseLevel]:
    """The last round(strength * steps) steps of a walk, at least one (diffusers' img2img rounds
    down)."""
    kept = max(1, round(strength * (len(levels) - 1)))
    return list(levels[-kept - 1 :])


def noised(
    image: Tensor, levels: Sequence[NoiseLevel], strength: float, noise: Tensor
) -> tuple[list[NoiseLevel], Tensor]:
    """The last steps of a walk, and the image with the noise of their start: Meng et al. 2022,
    algorithm 1."""
    walk = last_steps(levels, strength)
    return walk, walk[0].alpha * image + walk[0].sigma * noise


def repaint(
    solve: Callable[..., Iterator[StepView]],
    predict: Predict,
    levels: Sequence[NoiseLevel],
    x_T: Tensor,
    noise: Noise,
    *,
    image: Tensor,
    mask: Tensor,
    resample: int = 1,
) -> Steps:
    """RePaint with jumps of one step: Lugmayr et al. 2022, algorithm 1, around a one-step sampler.

    After each step the part where `mask` is 1 is replaced by the image at the same noise level. A
    step is taken `resample` times, with noise added back in between, so that both parts fit.
    """
    x_t = x_T
    for index, (level, after) in enumerate(pairwise(levels)):
        times = resample if after.sigma > 0 else 1
        for time in range(times):
            [view] = solve(predict, [level, after], x_t, noise)
            known = after.alpha * image
            if after.sigma > 0:
                known = known + after.sigma * noise()
            landed = mask * known + (1 - mask) * view.x_t
            if time + 1 < times:
                keep = level.alpha / after.alpha
                x_t = keep * landed + (level.sigma**2 - (keep * after.sigma) ** 2) ** 0.5 * noise()
        x_t = landed
        yield StepView(index, len(levels) - 1, level.t, x_t, view.x_0, view.epsilon)


def invert(
    predict: Predict, levels: Sequence[NoiseLevel], image: Tensor, *, flow: bool = False
) -> Steps:
    """From an image to the noise from which `ddim` (for a `flow`, `euler`) leads back to it: Song
    et al. 2021, section 4.3. `levels` are those of sampling; exact in the limit of small steps.

    Each step starts from the image at its lower end and gives the network the timestep of its
    upper end, as diffusers' DDIMInverseScheduler does. The prediction is converted at that upper
    timestep. diffusers converts v and x_0 at the lower end, which is the same for epsilon and in
    the limit of small steps, but far worse in 50 steps.
    """
    x_t = image
    walk = list(levels)[::-1]
    for index, (here, there) in enumerate(pairwise(walk)):
        x_0, epsilon = predict(x_t, there)
        if flow:
            x_t = x_t + (there.sigma - here.sigma) * (epsilon - x_0)
        else:
            x_0 = (x_t - here.sigma * epsilon) / here.alpha
            x_t = there.alpha * x_0 + there.sigma * epsilon
        yield StepView(index, len(walk) - 1, there.t, x_t, x_0, epsilon)


def image_errors(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square difference of images (n, C, H, W) in [-1, 1], in 8-bit units (0 to 255), and
    peak signal-to-noise ratio in dB (infinite if equal); (n,) each."""
    rmse = 127.5 * (found - wanted).flatten(1).square().mean(1).sqrt()
    return rmse, 20 * torch.log10(255 / rmse)


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Interpolate two noises (C, H, W) along the great circle (Shoemake 1985): (k, C, H, W).

    `weights` (k,) in [0, 1]; 0 gives a. The length is interpolated linearly: a straight line would
    pass through shorter vectors, which are no noise of the schedule.
    """
    lengths = a.norm(), b.norm()
    w = weights.to(a).view(-1, *[1] * a.ndim)
    cosine = (a * b).sum() / (lengths[0] * lengths[1])
    angle = torch.acos(cosine.double().clamp(-1, 1))
    sine = torch.sin(angle)
    length = (1 - w) * lengths[0] + w * lengths[1]
    if sine < 1e-4:  # the same direction, or opposite ones, which have no single great circle
        return (1 - w) * a + w * b
    ends = (torch.sin((1 - w) * angle) * a / lengths[0], torch.sin(w * angle) * b / lengths[1])
    return (length * (ends[0] + ends[1]) / sine).to(a.dtype)
