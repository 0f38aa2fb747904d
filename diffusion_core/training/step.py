"""One training step: the batch, the objective, the update, the averages. Nothing in it waits for
the device."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffusion_core.files import complain
from diffusion_core.process.objective import loss_per_image, make_target, min_snr_weight
from diffusion_core.runs.config import MAIN_AVERAGE, RunConfig
from diffusion_core.training.batches import Batch, load_pictures, make_batch, mixed_seed, to_device
from diffusion_core.training.context import FUSED, Setting

RATIO_EVERY = 20  # steps between two measurements of the update-to-weight ratio


class Stepped(NamedTuple):
    """What a step leaves to be logged; tensors on the device."""

    loss: Tensor  # (), the objective
    errors: Tensor  # (B,), each picture's plain error
    t: Tensor  # (B,)
    norm: Tensor  # (), of the gradient before clipping
    learning_rate: float
    update_ratio: Tensor | None  # (), norm of the update by norm of the weights


def one_step(setting: Setting, step: int) -> Stepped:
    """One update. A gradient that is not finite, and all after it, leave the weights as they are.

    Raises torch.OutOfMemoryError where not even one picture fits.
    """
    config, accelerator = setting.config, setting.accelerator
    batch = make_batch(
        config,
        setting.store,
        setting.train_index,
        step,
        timesteps=setting.schedule.timesteps,
        device=setting.device,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        resident=setting.resident,
    )
    loss, errors = gradients_in_parts(setting, batch)
    parameters = list(setting.model.parameters())
    if config.gradient_clip:
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    rate = learning_rate(config, step)
    for group in setting.optimizer.param_groups:
        group["lr"] = rate
    measure = step % RATIO_EVERY == 0
    before = [parameter.detach().clone() for parameter in parameters] if measure else None
    _step_unless_broken(setting, norm)
    ratio = None
    if before is not None:
        size = nn.utils.get_total_norm(before)
        torch._foreach_sub_(before, [parameter.detach() for parameter in parameters])
        ratio = nn.utils.get_total_norm(before) / size
    setting.optimizer.zero_grad(set_to_none=True)
    _follow(setting, step)
    return Stepped(loss, errors, batch.t, norm, rate, ratio)


def learning_rate(config: RunConfig, step: int) -> float:
    """Of step `step` (from 1): a linear rise over the warm-up, then constant."""
    return config.learning_rate * min(1.0, step / max(1, config.warmup_steps))


def objective(setting: Setting, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted and the plain error of each picture, both (B,)."""
    config, schedule = setting.config, setting.schedule
    x_0, labels, t, noise = batch
    x_t, _ = schedule.add_noise(x_0, t, noise)
    target = make_target(schedule, x_0, noise, t, config.prediction_type)
    prediction = model(x_t, t) if labels is None else model(x_t, t, labels)
    errors = loss_per_image(prediction.float(), target, config.loss)
    if not config.min_snr_gamma:
        return errors, errors
    weight = min_snr_weight(schedule, t, config.min_snr_gamma, config.prediction_type)
    return errors * weight, errors


def gradients_in_parts(setting: Setting, batch: Batch) -> tuple[Tensor, Tensor]:
    """Put the gradients of the batch's mean objective in place: (loss, each picture's error).

    `micro_batch` pictures at once; where the device has no room for them, half as many from here
    on. The sum over the parts is the gradient of the whole batch, to rounding (BatchNorm, which the
    lecture's network has, takes its statistics from each part).
    """
    while True:
        try:
            return _gradients(setting, batch)
        except torch.OutOfMemoryError:
            if setting.micro_batch == 1:
                raise
            setting.micro_batch = (setting.micro_batch + 1) // 2
            complain(f"Out of memory: taking {setting.micro_batch} pictures at once from here on.")
        setting.optimizer.zero_grad(set_to_none=True)
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()


def _gradients(setting: Setting, batch: Batch) -> tuple[Tensor, Tensor]:
    count = len(batch.t)
    losses, errors = [], []
    for first in range(0, count, setting.micro_batch):
        part = batch.part(first, setting.micro_batch)
        last = first + setting.micro_batch >= count
        # Processes exchange their gradients once, with the last part.
        exchange = nullcontext() if last else setting.accelerator.no_sync(setting.model)
        with exchange:
            weighted, plain = objective(setting, setting.model, part)
            loss = weighted.sum() / count
            setting.accelerator.backward(loss)
        losses.append(loss.detach())
        errors.append(plain.detach())
    return torch.stack(losses).sum(), torch.cat(errors)


def _step_unless_broken(setting: Setting, norm: Tensor) -> None:
    """Update the weights, unless this or an earlier gradient was not finite.

    Decided on the device, so that nothing waits: the fused kernels leave an update out where their
    `found_inf` is 1. The weights then stay those before the first bad step, which the log finds a
    moment later.
    """
    setting.broken.logical_or_(~norm.isfinite())
    if setting.device.type in FUSED:
        optimizer = setting.optimizer
        if isinstance(optimizer, AcceleratedOptimizer):
            optimizer = optimizer.optimizer
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.found_inf = setting.broken  # type: ignore[attr-defined]
    setting.optimizer.step()


def _follow(setting: Setting, step: int) -> None:
    """Move the averaged weights a little towards the new ones."""
    model = setting.bare_model
    for name, average in setting.averages.items():
        wanted = setting.config.ema_decay
        if name != MAIN_AVERAGE:
            wanted = setting.config.ema_decays[name]
        # The usual warm-up of the average: a short run is not held to its random start.
        average.multi_avg_fn = get_ema_multi_avg_fn(min(wanted, (1 + step) / (10 + step)))
        average.update_parameters(model)


@torch.inference_mode()
def validate(setting: Setting) -> Tensor:
    """The plain error () of the averaged weights on the held-out pictures, at fixed (t, epsilon).

    Timesteps are spread evenly over the schedule, so that the mean does not jump with the draw.
    Stays on the device.
    """
    config, device, schedule = setting.config, setting.device, setting.schedule
    model = setting.average
    model.eval()
    count = len(setting.validation_index)
    spread = (torch.arange(count, device=device) * schedule.timesteps) // count
    generator = torch.Generator(device).manual_seed(mixed_seed(config.seed, 0))
    errors = []
    for first in range(0, count, config.batch_size):
        rows = setting.validation_index[first : first + config.batch_size]
        x_0 = load_pictures(setting.store, rows, device, setting.resident)
        t = spread[first : first + config.batch_size]
        noise = torch.randn(x_0.shape, generator=generator, device=device)
        labels = None
        if setting.labelled:
            labels = to_device(torch.from_numpy(setting.store.labels[rows]), device)
        for start in range(0, len(rows), setting.micro_batch):
            part = slice(start, start + setting.micro_batch)
            x_t, _ = schedule.add_noise(x_0[part], t[part], noise[part])
            target = make_target(schedule, x_0[part], noise[part], t[part], config.prediction_type)
            args = (x_t, t[part]) if labels is None else (x_t, t[part], labels[part])
            with setting.accelerator.autocast():
                prediction = model(*args)
            errors.append(loss_per_image(prediction.float(), target, config.loss))
    return torch.cat(errors).mean()
