"""Batches of a distillation along paths: points of a teacher's sampling, with the image at its end.

A network that learns to answer from every point x_t of a path with the path's end samples in one
step what the teacher samples in many (Luhman & Luhman 2021, arXiv 2101.02388, for the first point;
all of them make it a consistency function: Song et al. 2023, arXiv 2303.01469, definition 1).
Nothing that the network itself has learned is a target, so nothing can drift. Such a pair is an
ordinary image with noise, which the usual objective takes: x_t = alpha x_0 + sigma epsilon, with
x_0 the end and the epsilon that follows. Its optimum is another one, for no other image goes with
that x_t.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_core.process.schedule import gather
from diffusion_core.sampling.levels import NoiseLevel, learned_levels
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.sample import predict_by
from diffusion_core.training.batches import Batch
from diffusion_core.training.context import TrainingContext

# Points of each path that a batch has: its noise, from which alone one step samples, and others.
# More cost fewer evaluations each, but there are fewer paths and fewer noises.
POINTS = 4


@torch.no_grad()
def on_paths(
    context: TrainingContext,
    teacher: nn.Module,
    batch: Batch,
    generator: torch.Generator,
    process: int = 0,
    processes: int = 1,
) -> Batch:
    """As many points of the teacher's paths as the batch has images, from its first noises and with
    their labels: POINTS of each path, the noise and others in turn.

    `generator`: of the CPU, for the choice of timesteps and points. The paths are those of the
    sampler that the teacher usually takes, clipped as it clips, in `consistency_steps`. The share
    of a process has its paths of the whole batch, where POINTS go into the share.
    """
    config, schedule, count = context.config, context.schedule, len(batch.t)
    points = min(POINTS, config.consistency_steps)
    paths = math.ceil(count / points)
    timesteps = path_timesteps(schedule.timesteps, config.consistency_steps, generator)
    labels = None if batch.labels is None else batch.labels[:paths]

    def answer(x_t: Tensor, level: NoiseLevel) -> Tensor:
        t = torch.full((paths,), int(level.t), device=x_t.device)
        with context.accelerator.autocast():
            found: Tensor = teacher(x_t, t, *(() if labels is None else (labels,)))
        return found.float()

    x_T = batch.noise[:paths]
    solve = samplers_for(schedule)[0].solve  # it adds no noise
    predict = predict_by(answer, config.prediction_type)
    steps = solve(predict, learned_levels(schedule, timesteps), x_T, lambda: torch.zeros_like(x_T))
    *all_points, end = [x_T, *(step.x_t for step in steps)]
    # Of all paths the noise, then of all a second point, until the batch is full.
    others = 1 + torch.randperm(config.consistency_steps - 1, generator=generator)
    numbers = process + processes * torch.arange(paths)  # of the paths in the whole batch
    turns = numbers * (points - 1) + torch.arange(points - 1)[:, None]
    at = torch.cat([torch.zeros(1, paths, dtype=torch.long), others[turns % len(others)]])
    at = at.flatten()[:count].to(x_T.device)
    path = torch.arange(count, device=x_T.device) % paths
    x_t, x_0 = torch.stack(all_points)[at, path], end.clamp(-1, 1)[path]
    t = torch.tensor(timesteps, device=x_T.device)[at]
    signal, spread = (gather(each, t, x_t.ndim) for each in (schedule.signal, schedule.spread))
    noise = (x_t - signal * x_0) / spread
    return Batch(x_0, None if labels is None else labels[path], t, noise)


def path_timesteps(timesteps: int, steps: int, generator: torch.Generator) -> list[int]:
    """As many falling timesteps: the last of the schedule, then others on a cosine.

    These are (T - 1)(1 + cos u) / 2, with angles u at random around equally spaced ones below pi.
    They are dense at both ends, as learned timesteps are: that makes the end of a path more exact.
    """
    found = [timesteps - 1]
    for part in range(1, steps):
        angle = (part - 0.5 + float(torch.rand((), generator=generator))) * math.pi / steps
        t = round((timesteps - 1) * (1 + math.cos(angle)) / 2)
        found.append(max(steps - 1 - part, min(found[-1] - 1, t)))  # no timestep twice
    return found
