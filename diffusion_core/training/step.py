"""One training step: the batch, the objective, the update, the averages. Nothing in it waits for
the device."""

from __future__ import annotations

import functools
import itertools
import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from diffusion_core.evaluation.intervals import WIDTH
from diffusion_core.process.consistency import consistency_errors, consistency_weight
from diffusion_core.process.objective import (
    loss_per_image,
    make_target,
    min_snr_weight,
    predict_x_0,
    v_scale,
)
from diffusion_core.process.schedule import gather
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.runs.metrics import BEHIND, LOW
from diffusion_core.runs.post_hoc import power_decay
from diffusion_core.training.batches import (
    Batch,
    load_images,
    make_batch,
    mixed_seed,
    target_ratios,
    to_device,
)
from diffusion_core.training.context import FUSED, TrainingContext, begin_matching
from diffusion_core.training.matching import on_samples, teach_critic
from diffusion_core.training.micro_batches import in_parts_that_fit
from diffusion_core.training.paths import on_paths
from diffusion_core.training.perceptual import perceptual_distances

COMPARED = 64  # held-out images that averaged and raw weights are compared on, approximately
RATIO_EVERY = 20  # steps between two measurements of the update-to-weight ratio


class StepOutput(NamedTuple):
    """What a step leaves to be logged; tensors on the device."""

    loss: Tensor  # (), the objective; where its weights are learned, without them
    errors: Tensor  # (B,), each image's plain error
    t: Tensor  # (B,)
    norm: Tensor  # (), of the gradient before clipping
    learning_rate: float
    update_ratio: Tensor | None  # (), norm of the update by norm of the weights


def one_step(context: TrainingContext, step: int) -> StepOutput:
    """One update. A gradient that is not finite, and all after it, leave the weights as they are.

    Raises the out-of-memory error where not even one image fits.
    """
    config, accelerator = context.config, context.accelerator
    if context.critic is None and config.begun_to_match(step):
        begin_matching(context)
    batch = batch_of(context, step, accelerator.process_index, accelerator.num_processes)
    loss, errors = in_parts_that_fit(
        context, context.optimizer, lambda: gradients_in_parts(context, batch)
    )
    if context.weighting is not None:  # it is in no network that accelerate keeps the same
        for parameter in context.weighting.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
    parameters = list(context.model.parameters())
    if config.gradient_clip:
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    rate = learning_rate(config, step)
    for group in context.optimizer.param_groups:
        group["lr"] = rate
    measure = step % RATIO_EVERY == 0
    before = [parameter.detach().clone() for parameter in parameters] if measure else None
    _step_unless_broken(context, norm)
    ratio = None
    if before is not None:
        size = nn.utils.get_total_norm(before)
        torch._foreach_sub_(before, [parameter.detach() for parameter in parameters])
        ratio = nn.utils.get_total_norm(before) / size
    context.optimizer.zero_grad(set_to_none=True)
    if batch.samples is not None:
        teach_critic(context, batch, step, rate)
    _follow(context, step)
    return StepOutput(loss, errors, batch.t, norm, rate, ratio)


def batch_of(context: TrainingContext, step: int, process: int = 0, processes: int = 1) -> Batch:
    """The batch of a step, or the share of one of several processes: see `make_batch`."""
    batch = make_batch(
        context.config,
        context.store,
        context.train_index,
        step,
        schedule=context.schedule,
        device=context.device,
        process=process,
        processes=processes,
        resident=context.resident,
    )
    return _taught(context, batch, step, process, processes)


def _taught(
    context: TrainingContext, batch: Batch, step: int, process: int = 0, processes: int = 1
) -> Batch:
    """The batch, or in its place points of the teacher's paths or the network's own samples."""
    if context.teacher is None:
        return batch
    begun = context.config.begun_to_match(step)
    if begun and step % 2 and context.critic is not None:
        return on_samples(context, context.teacher, context.critic, batch, step, process, processes)
    generator = torch.Generator().manual_seed(mixed_seed(context.config.seed, step, 1))
    return on_paths(context, context.teacher, batch, generator, process, processes)


def learning_rate(config: RunConfig, step: int) -> float:
    """Of step `step` (from 1): a linear rise over the warm-up, then as `learning_rate_decay` says.

    From `restart_at` on both begin anew, and for the matching at `matching_rate`.
    """
    begun = config.restart_at if 0 < config.restart_at <= step else 1
    last, full = config.follows_until, config.learning_rate
    if config.begun_to_match(step):
        begun, last, full = max(begun, last + 1), config.steps, config.matching_rate
    done, total = step - begun + 1, last - begun + 1
    warmup = config.warmup_steps
    factor = min(1.0, done / max(1, warmup))
    if config.learning_rate_decay == "cosine" and total > warmup:
        share = max(0, done - warmup) / (total - warmup + 1)  # 1 after the last step
        factor *= (1 + math.cos(math.pi * share)) / 2
    elif config.learning_rate_decay == "inverse_sqrt":
        factor *= max(1.0, done / config.decay_after) ** -0.5
    return full * factor


def objective(context: TrainingContext, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted and the plain error of each image, both (B,)."""
    config, schedule = context.config, context.schedule
    weighted = errors = plain_errors(context, model, batch)
    if batch.r is not None:
        weighted = errors * consistency_weight(schedule, batch.t, batch.r)
    if gamma := config.min_snr_gamma:
        how = (config.prediction_type, config.loss_on == "v")
        weighted = errors * min_snr_weight(schedule, batch.t, gamma, *how)
    if context.weighting is not None:
        weighted = context.weighting(weighted, gather(schedule.snr, batch.t, 1))
    return weighted, errors


def plain_errors(context: TrainingContext, model: nn.Module, batch: Batch) -> Tensor:
    """The error (B,) of each image's prediction, or of v (see `loss_on`), and with
    `perceptual_weight` of its features. Where `r` is set, how far apart the images are that two
    noise levels lead to."""
    config, schedule = context.config, context.schedule
    x_0, labels, t, noise, augment, r, samples = batch
    told = {"labels": labels, "augment": augment}
    network = functools.partial(model, **{k: each for k, each in told.items() if each is not None})
    if r is not None:
        pair = (x_0, noise, t, r)
        return consistency_errors(network, schedule, *pair, config.prediction_type)
    x_t, _ = schedule.add_noise(x_0, t, noise)
    target = make_target(schedule, x_0, noise, t, config.prediction_type)
    prediction = network(x_t, t).float()
    if samples is not None:
        found = predict_x_0(schedule, x_t, t, prediction, config.prediction_type)
        return loss_per_image(found, x_0, "l2")
    extra: Tensor | float = 0.0
    if context.perceptual is not None:
        found = predict_x_0(schedule, x_t, t, prediction, config.prediction_type)
        extra = config.perceptual_weight * perceptual_distances(context.perceptual, found, x_0)
    if config.loss_on == "v":
        scale = v_scale(schedule, t, x_0.ndim, config.prediction_type)
        prediction, target = prediction * scale, target * scale
    return loss_per_image(prediction, target, config.loss) + extra


def gradients_in_parts(context: TrainingContext, batch: Batch) -> tuple[Tensor, Tensor]:
    """Put the gradients of the batch's mean objective in place: (loss, each image's error).

    `micro_batch` images at once. The sum over the parts is the gradient of the whole batch, to
    rounding (BatchNorm, which the lecture's network has, takes its statistics from each part).
    """
    count = len(batch.t)
    losses, errors = [], []
    for first in range(0, count, context.micro_batch):
        part = batch.part(first, context.micro_batch)
        last = first + context.micro_batch >= count
        # Processes exchange their gradients once, with the last part.
        exchange = nullcontext() if last else context.accelerator.no_sync(context.model)
        with exchange:
            weighted, plain = objective(context, context.model, part)
            loss = weighted.sum() / count
            context.accelerator.backward(loss)
        # A learned weighting makes all losses alike, and negative ones have no logarithm.
        said = loss if context.weighting is None else plain.sum() / count
        losses.append(said.detach())
        errors.append(plain.detach())
    return torch.stack(losses).sum(), torch.cat(errors)


def _step_unless_broken(context: TrainingContext, norm: Tensor) -> None:
    """Update the weights, unless this or an earlier gradient was not finite.

    Decided on the device, so that nothing waits: the fused kernels leave an update out where their
    `found_inf` is 1. The weights then stay those before the first bad step, which the log finds a
    moment later.
    """
    context.broken.logical_or_(~norm.isfinite())
    if context.device.type in FUSED:
        optimizer = context.optimizer
        if isinstance(optimizer, AcceleratedOptimizer):
            optimizer = optimizer.optimizer
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.found_inf = context.broken  # type: ignore[attr-defined]
    context.optimizer.step()


def _follow(context: TrainingContext, step: int) -> None:
    """Move the averaged weights a little towards the new ones; the first step's are the first."""
    for name, average in context.averages.items():
        wanted = context.config.ema_decay
        if name != MAIN_AVERAGE:
            wanted = context.config.ema_decays[name]
        # The usual warm-up of the average: a short run is not held to its random start.
        decay = min(wanted, (1 + step) / (10 + step)) if step > 1 else 0.0
        update_average(average, context.bare_model, decay)
    for length, average in context.powers.items():
        update_average(average, context.bare_model, power_decay(step, length))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """decay * average + (1 - decay) * model, of all weights and buffers; with 0 a copy.

    What PyTorch's `AveragedModel` computes. That copies its counter to the device each time, for
    which a GPU has to be waited for.
    """
    before, now = ([*network.parameters(), *network.buffers()] for network in (average, model))
    if not decay:
        torch._foreach_copy_(before, now)
        return
    floating = [tensor.is_floating_point() for tensor in before]
    torch._foreach_lerp_(
        list(itertools.compress(before, floating)),
        list(itertools.compress(now, floating)),
        1 - decay,
    )
    for old, new in zip(before, now, strict=True):
        if not old.is_floating_point():
            old.copy_(old * decay + new * (1 - decay))


@torch.inference_mode()
def validate(context: TrainingContext) -> dict[str, Tensor]:
    """The plain error () of the averaged weights on the held-out images, at fixed (t, epsilon), and
    how far it is behind that of the raw ones: see `metrics.BEHIND`.

    Timesteps are spread evenly over the schedule, so that the mean does not jump with the draw.
    Stays on the device.
    """
    config, device = context.config, context.device
    count = len(context.validation_index)
    spread = (torch.arange(count, device=device) * context.schedule.timesteps) // count
    generator = torch.Generator(device).manual_seed(mixed_seed(config.seed, 0))
    errors, of_both = [], []
    for first in range(0, count, config.batch_size):
        rows = context.validation_index[first : first + config.batch_size]
        x_0 = load_images(context.store, rows, device, context.resident)
        t = spread[first : first + config.batch_size]
        noise = torch.randn(x_0.shape, generator=generator, device=device)
        labels = None
        if context.labelled:
            labels = to_device(torch.from_numpy(context.store.labels[rows]), device)
        r = target_ratios(config, context.schedule, t, config.steps)  # of the last stage
        batch = _taught(context, Batch(x_0, labels, t, noise, r=r), step=0)
        averaged = _errors(context, context.average, batch)
        errors.append(averaged)
        # Of some images alone, evenly spread: the raw weights need not cost as much again.
        apart = max(1, count // COMPARED)
        some = slice(-first % apart, None, apart)
        if len(rows[some]):
            raw = _errors(context, context.bare_model, batch.of(some))
            of_both.append(torch.stack([averaged[some], raw]))
    found = {"validation_loss": torch.cat(errors).mean()}
    averaged, raw = torch.cat(of_both, 1)
    behind = (averaged - raw) / raw.mean()
    if len(behind) > 1:  # a single image has no interval
        error = behind.std() / len(behind) ** 0.5
        found |= {BEHIND: behind.mean(), BEHIND + LOW: behind.mean() - WIDTH * error}
    return found


def _errors(context: TrainingContext, model: nn.Module, batch: Batch) -> Tensor:
    """The plain errors (B,) of a network in evaluation mode, which it is not left in."""
    training, errors = model.training, []
    model.eval()
    for start in range(0, len(batch.t), context.micro_batch):
        with context.accelerator.autocast():
            errors.append(plain_errors(context, model, batch.part(start, context.micro_batch)))
    model.train(training)
    return torch.cat(errors)
