"""How many images fit the memory at once: a batch that does not is taken in several parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from diffusion_core.device import free_memory, is_out_of_memory
from diffusion_core.files import complain
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.post_hoc import STORED
from diffusion_core.runs.presets import network_plan

if TYPE_CHECKING:
    from diffusion_core.training.context import TrainingContext

T = TypeVar("T")
SHARE_OF_FREE = 0.8  # the rest is left to what the estimate does not see
# Copies of the weights in float32: gradients, the optimizer's two moments, a sampling network.
COPIES = 4


class TogetherOutOfMemory(RuntimeError):
    """One of several processes has no memory for its part of a batch, and cannot go on alone."""


def fitting_micro_batch(config: RunConfig, device: torch.device, share: int) -> int:
    """The largest even part of `share` images that training can take at once on this device.

    An estimate from the network's own shapes, without computing anything; at least 1.
    """
    per_image = activation_bytes(config)
    network = network_plan(config.network, config.network_args)
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    averages = 1 + len(config.ema_decays) + (len(STORED) if config.average_snapshots else 0)
    others = int(config.learns_from_paths)  # the teacher
    if config.matching_share:
        others += COPIES  # the critic, its gradients and two moments
    fixed = weights * (COPIES + averages + others)
    fits = int((free_memory(device) * SHARE_OF_FREE - fixed) // per_image)
    parts = -(-share // max(1, fits))
    return -(-share // parts)


def in_parts_that_fit(
    context: TrainingContext, optimizer: torch.optim.Optimizer, compute: Callable[[], T]
) -> T:
    """What `compute` returns, which puts gradients in place, `micro_batch` images at once; where
    the device has no room for them, half as many from here on.

    Several processes take as many parts as each other, and wait for each other in them: where one
    has no room it cannot start again. Raises TogetherOutOfMemory there, and the out-of-memory error
    where not even one image fits.
    """
    while True:
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if context.micro_batch == 1 or not is_out_of_memory(error):
                raise
            half = (context.micro_batch + 1) // 2
            if context.accelerator.num_processes > 1:
                raise TogetherOutOfMemory(
                    f"Out of memory with {context.micro_batch} images at once. Resume the run with "
                    f"more processes, or start one with its settings and micro_batch={half}."
                ) from error
            context.micro_batch = half
            complain(f"Out of memory: taking {context.micro_batch} images at once from here on.")
        optimizer.zero_grad(set_to_none=True)
        if context.device.type == "cuda":
            torch.cuda.empty_cache()


def activation_bytes(config: RunConfig) -> int:
    """Bytes that one image's forward pass keeps for the backward pass, in float32."""
    network = network_plan(config.network, config.network_args)
    with torch.device("meta"):
        x = torch.empty(2, *config.image_shape)
        t = torch.zeros(2, dtype=torch.long)
    own = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # holds them, so that no id is used again

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept[id(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x, t)
    return max(1, sum(tensor.numel() * tensor.element_size() for tensor in kept.values()) // 2)
