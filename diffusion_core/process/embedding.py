"""The sinusoidal embedding of the timestep as a layer; see `sinusoids`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


class SinusoidalPositionEmbeddings(nn.Module):
    """Timesteps (B,) to rows (B, emb_size): [sin(t f_0) ..., cos(t f_0) ...], in [-1, 1].

    The emb_size / 2 frequencies fall geometrically from 1 to 1/10000:
    f_i = exp(-i ln(10000) / (emb_size / 2 - 1)). `emb_size` must be even and at least 4.
    """

    def __init__(self, emb_size: int) -> None:
        super().__init__()
        if emb_size < 4 or emb_size % 2:
            raise ValueError(f"emb_size must be even and at least 4, not {emb_size}.")
        self.emb_size = emb_size

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        """Radians per timestep, (emb_size / 2,), from 1 down to 1/10000."""
        half = self.emb_size // 2
        index = torch.arange(half, device=device, dtype=torch.float32)
        return torch.exp(index * -(math.log(10000) / (half - 1)))

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies(t.device)[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


@torch.inference_mode()
def embed(layer: nn.Module, t: np.ndarray | list[int]) -> np.ndarray:
    """The output of a network's `time_mlp` for timesteps (N,), float32 (N, size), computed on the
    layer's device."""
    weight = next(layer.parameters(), None)
    device = weight.device if weight is not None else None
    return layer(torch.as_tensor(t, device=device)).float().cpu().numpy()
