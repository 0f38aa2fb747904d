"""Sinusoidal embeddings of the timestep (Vaswani et al. 2017, as used by Ho et al. 2020)."""

from __future__ import annotations

import math

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

    def forward(self, t: Tensor) -> Tensor:
        half = self.emb_size // 2
        index = torch.arange(half, device=t.device, dtype=torch.float32)
        frequencies = torch.exp(index * -(math.log(10000) / (half - 1)))
        angles = t.float()[:, None] * frequencies[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
