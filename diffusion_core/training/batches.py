"""The batch of each training step, a function of (seed, step) alone.

So a resumed run sees the batches of an uninterrupted one, there is no generator state to save, and
the number of processes does not change the sequence.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffusion_core.data.split import batches_per_epoch
from diffusion_core.data.store import ImageStore
from diffusion_core.process.consistency import stage_of, target_ratio
from diffusion_core.process.schedule import Schedule
from diffusion_core.process.timestep_sampling import timestep_shares
from diffusion_core.runs.config import RunConfig
from diffusion_core.training.augmentation import change_images, draw_changes


class Batch(NamedTuple):
    """One process's share of a step."""

    x_0: Tensor  # (B, C, H, W) in [-1, 1]
    labels: Tensor | None  # (B,), num_classes for "any class"
    t: Tensor  # (B,) integers
    noise: Tensor  # (B, C, H, W)
    augment: Tensor | None = None  # (B, DIMENSIONS), what was done to x_0; None: nothing
    r: Tensor | None = None  # (B,), of the level to be consistent with: see `target_ratios`
    samples: Tensor | None = None  # (B, C, H, W), which are to become x_0: see `matching`

    def part(self, first: int, count: int) -> Batch:
        """At most `count` of its rows, from `first` on."""
        return self.of(slice(first, first + count))

    def of(self, rows: slice) -> Batch:
        labels = None if self.labels is None else self.labels[rows]
        augment = None if self.augment is None else self.augment[rows]
        r = None if self.r is None else self.r[rows]
        samples = None if self.samples is None else self.samples[rows]
        return Batch(self.x_0[rows], labels, self.t[rows], self.noise[rows], augment, r, samples)


def make_batch(
    config: RunConfig,
    store: ImageStore,
    index: np.ndarray,
    step: int,
    *,
    schedule: Schedule,
    device: torch.device,
    process: int = 0,
    processes: int = 1,
    resident: Tensor | None = None,
) -> Batch:
    """The share of process number `process` in the batch of `step` (from 1).

    `index` (N,) are the store's rows that are trained on. The whole batch's timesteps and noise
    are drawn in every process, and each takes its rows. `resident`: see `load_images`.
    """
    rows = index[batch_positions(config, len(index), step)]
    generator = torch.Generator(device).manual_seed(mixed_seed(config.seed, step))
    count = config.batch_size
    size = (count, *config.image_shape)
    t = draw_timesteps(config, schedule, count, generator)
    noise = torch.randn(size, generator=generator, device=device)
    flip = torch.rand(count, generator=generator, device=device) < 0.5
    drop = torch.rand(count, generator=generator, device=device) < config.label_dropout
    # Without an augmentation there is none to draw, and the rest is as it was.
    changes = draw_changes(count, config.augment, generator) if config.augment else None
    mine = slice(process, None, processes)
    # The nearest noise is that of the whole batch, whatever the number of processes.
    first, then = (slice(None), mine) if config.immiscible else (mine, slice(None))
    t, noise, flip, drop, rows = t[first], noise[first], flip[first], drop[first], rows[first]
    x_0 = load_images(store, rows, device, resident)
    if config.random_flip:
        x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
    if changes is not None:
        changes = changes[first]
        x_0 = change_images(x_0, changes)
        changes = changes[then]
    if config.immiscible:
        noise = nearest_noise(x_0, noise)
    x_0, t, noise, drop, rows = x_0[then], t[then], noise[then], drop[then], rows[then]
    labels = None
    classes = config.network_args.get("num_classes")
    if classes:
        labels = to_device(torch.from_numpy(store.labels[rows]), device)
        labels = torch.where(drop, classes, labels)
    return Batch(x_0, labels, t, noise, changes, target_ratios(config, schedule, t, step))


def target_ratios(config: RunConfig, schedule: Schedule, t: Tensor, step: int) -> Tensor | None:
    """The `r` of a batch with timesteps t (B,) at a step."""
    if not config.distilled or config.learns_from_paths:
        return None
    stage = stage_of(step, config.steps, config.consistency_stages)
    return target_ratio(schedule, t, stage, config.consistency_q)


def draw_timesteps(
    config: RunConfig, schedule: Schedule, count: int, generator: torch.Generator
) -> Tensor:
    """(count,) timesteps as `timestep_sampling` has them, on the device of the generator."""
    device = generator.device
    if config.timestep_sampling == "uniform":
        return torch.randint(schedule.timesteps, (count,), generator=generator, device=device)
    how = (config.timestep_sampling, config.timestep_log_snr, config.timestep_width)
    up_to = _cumulative_shares(schedule, *how).to(device)
    at = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
    return torch.searchsorted(up_to, at, right=True).clamp(max=schedule.timesteps - 1)


@functools.lru_cache(maxsize=4)
def _cumulative_shares(schedule: Schedule, sampling: str, centre: float, width: float) -> Tensor:
    with np.errstate(divide="ignore"):
        log_snr = 2 * (np.log(schedule.exact_signal) - np.log(schedule.exact_spread))
    return torch.from_numpy(timestep_shares(log_snr, sampling, centre, width).cumsum())


def nearest_noise(x_0: Tensor, noise: Tensor) -> Tensor:
    """The noises (B, C, H, W) in the order in which their squared distances to the images
    (B, C, H, W), added up, are the least: immiscible diffusion (Li et al. 2024, algorithm 1).

    All noises stay, so together they are what they were. Waits for the device.
    """
    # |x - n|^2 = |x|^2 + |n|^2 - 2 x n, and the squares add up to the same in every order.
    cost = -(x_0.flatten(1) @ noise.flatten(1).T)
    _, order = linear_sum_assignment(cost.cpu().numpy())
    return noise[torch.from_numpy(order).to(noise.device)]


def load_images(
    store: ImageStore, rows: np.ndarray, device: torch.device, resident: Tensor | None = None
) -> Tensor:
    """Rows of the store as float32 in [-1, 1], shape (B, C, H, W); scaled on the device.

    `resident`: the whole store on the device, if it fits there.
    """
    if resident is not None:
        images = resident[to_device(torch.from_numpy(rows), device)]
    else:
        images = to_device(torch.from_numpy(store.read(rows)), device)
    return images.float().div_(127.5).sub_(1)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting: only pinned memory is copied to CUDA while the loop continues."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def batch_positions(config: RunConfig, count: int, step: int) -> np.ndarray:
    """Which of `count` training images step `step` (from 1) sees, shape (batch_size,).

    A new order every epoch, drawn from (seed, epoch); the last, incomplete batch is dropped.
    """
    per_epoch = batches_per_epoch(count, config.batch_size)
    epoch, batch = divmod(step - 1, per_epoch)
    order = epoch_order(config.seed, epoch, count)
    return order[batch * config.batch_size : (batch + 1) * config.batch_size]


@functools.lru_cache(maxsize=1)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers, well mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
