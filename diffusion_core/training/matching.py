"""Distribution matching: late in a distillation, every other step has no image as its target.

A network that is to hit the end of a path in one step answers with a mean of what is near, which is
blurred. Distribution matching (DMD; Yin et al. 2024, arXiv 2311.18828) asks only that all its
samples together be distributed as the teacher's. A critic, at first a copy of the teacher, learns
to denoise the samples. Where it and the teacher disagree about a sample with noise, the sample is
led from what the critic predicts to what the teacher does. As in DMD2 (arXiv 2405.14867) there are
also samples of a second step, made of the network's own first. The steps between go on along paths,
as DMD does: without them the samples drifted to what is most typical (a moon in every sky).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_core.process.objective import predict_x_0
from diffusion_core.process.prediction import LEAST_SPREAD
from diffusion_core.process.schedule import gather
from diffusion_core.training.batches import Batch, mixed_seed
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.micro_batches import in_parts_that_fit

# The noise at which the critic and the teacher are asked, as shares of the timesteps. DMD has 0.02
# for the least. With little noise there is little to disagree about, and divided by it, what the
# critic does not know yet is much: samples of a tiny run became worse.
LEAST_NOISE, MOST_NOISE = 0.2, 0.98
# The critic's learning rate by that of the network: it has to keep up with what the network
# samples (DMD2, section 4.2).
CRITIC_RATE = 4.0


@torch.no_grad()
def on_samples(
    context: TrainingContext,
    teacher: nn.Module,
    critic: nn.Module,
    batch: Batch,
    step: int,
    process: int = 0,
    processes: int = 1,
) -> Batch:
    """What the network samples from the noise and labels of a batch, and in `x_0` where each sample
    is led: by (critic - teacher) / mean |sample - teacher| (DMD, equations 7 and 8).

    Every other one is a first step, from noise; the rest are second steps at random timesteps.
    """
    schedule, count = context.schedule, len(batch.t)
    seed = mixed_seed(context.config.seed, step, 1)
    draw, noise = _chance(context, count, seed, process, processes)
    t = torch.full_like(batch.t, schedule.timesteps - 1)
    x_t, labels = batch.noise, batch.labels
    first = predict(context, context.bare_model, x_t, t, labels).clamp(-1, 1)
    second = (process + processes * torch.arange(count, device=context.device)) % 2 == 1
    t = torch.where(second, draw(0, schedule.timesteps), t)
    again, _ = schedule.add_noise(first, t, noise())
    x_t = torch.where(second[:, None, None, None], again, x_t)
    samples = predict(context, context.bare_model, x_t, t, labels).clamp(-1, 1)
    at = (round(share * schedule.timesteps) for share in (LEAST_NOISE, MOST_NOISE))
    asked = draw(*at)
    noisy, _ = schedule.add_noise(samples, asked, noise())
    wanted = predict(context, teacher, noisy, asked, labels)
    apart = (samples - wanted).abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-4)
    lead = (predict(context, critic, noisy, asked, labels) - wanted) / apart
    x_0 = samples - lead
    signal, spread = (gather(each, t, x_t.ndim) for each in (schedule.signal, schedule.spread))
    return Batch(x_0, labels, t, (x_t - signal * x_0) / spread, samples=samples)


def teach_critic(context: TrainingContext, batch: Batch, step: int, rate: float) -> None:
    """One update of the critic towards denoising the samples of a batch, with the error of v."""
    critic, optimizer = context.critic, context.critic_optimizer
    assert critic is not None and optimizer is not None and batch.samples is not None
    schedule, accelerator = context.schedule, context.accelerator
    share = (accelerator.process_index, accelerator.num_processes)
    seed = mixed_seed(context.config.seed, step, 2)
    draw, draw_noise = _chance(context, len(batch.t), seed, *share)
    t, noise, samples = draw(0, schedule.timesteps), draw_noise(), batch.samples

    def gradients() -> None:
        for first in range(0, len(t), context.micro_batch):
            part = slice(first, first + context.micro_batch)
            x_0, at = samples[part], t[part]
            labels = None if batch.labels is None else batch.labels[part]
            x_t, _ = schedule.add_noise(x_0, at, noise[part])
            error = predict(context, critic, x_t, at, labels) - x_0
            of_v = error / gather(schedule.spread, at, error.ndim).clamp(min=LEAST_SPREAD)
            (of_v.square().flatten(1).mean(1).sum() / len(t)).backward()

    in_parts_that_fit(context, optimizer, gradients)
    parameters = list(critic.parameters())
    for parameter in parameters:  # as accelerate does for the network, which it prepared
        parameter.grad = accelerator.reduce(parameter.grad, "mean")
    if context.config.gradient_clip:
        nn.utils.clip_grad_norm_(parameters, context.config.gradient_clip)
    for group in optimizer.param_groups:
        group["lr"] = CRITIC_RATE * rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def predict(
    context: TrainingContext, network: nn.Module, x_t: Tensor, t: Tensor, labels: Tensor | None
) -> Tensor:
    """The clean images (B, C, H, W) that a network predicts."""
    with context.accelerator.autocast():
        found = network(x_t, t, *(() if labels is None else (labels,)))
    return predict_x_0(context.schedule, x_t, t, found.float(), context.config.prediction_type)


def _chance(
    context: TrainingContext, count: int, seed: int, process: int, processes: int
) -> tuple[Callable[[int, int], Tensor], Callable[[], Tensor]]:
    """What draws whole numbers (count,) and noise (count, C, H, W): those of the share that a
    process has of all, whose `count` it is."""
    generator = torch.Generator(context.device).manual_seed(seed)
    size = (count * processes, *context.config.image_shape)
    how: dict[str, Any] = {"generator": generator, "device": context.device}
    mine = slice(process, None, processes)
    return (
        lambda low, high: torch.randint(low, high, size[:1], **how)[mine],
        lambda: torch.randn(size, **how)[mine],
    )
