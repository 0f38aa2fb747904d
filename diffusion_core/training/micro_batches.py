"""How many images fit the memory at once: a batch that does not is taken in several parts."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_core.device import free_memory
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.post_hoc import STORED
from diffusion_core.runs.presets import network_plan

SHARE_OF_FREE = 0.8  # the rest is left to what the estimate does not see
# Copies of the weights in float32: gradients, the optimizer's two moments, a sampling network.
COPIES = 4


def fitting_micro_batch(config: RunConfig, device: torch.device, share: int) -> int:
    """The largest even part of `share` images that training can take at once on this device.

    An estimate from the network's own shapes, without computing anything; at least 1.
    """
    per_image = activation_bytes(config)
    network = network_plan(config.network, config.network_args)
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    averages = 1 + len(config.ema_decays) + (len(STORED) if config.average_snapshots else 0)
    fixed = weights * (COPIES + averages)
    fits = int((free_memory(device) * SHARE_OF_FREE - fixed) // per_image)
    parts = -(-share // max(1, fits))
    return -(-share // parts)


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
