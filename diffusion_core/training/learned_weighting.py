"""A weight for each noise level that is learned along with the network.

Noise levels are tasks whose errors differ by orders of magnitude. Kendall et al. 2018 (equation 10)
learn the uncertainty of each task; EDM2 (Karras et al. 2024, arXiv 2312.02696, equation 14 and
config C) does so over the noise level. The loss e becomes e / exp(u) + u with u a function of the
log-SNR: at its minimum exp(u) is the mean error of that noise level, so that every level has the
same loss, 1, and pulls the network as hard as every other one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FEATURES = 128
FURTHEST = 20.0  # log-SNR beyond which all counts as there, since it may be infinite
# EDM2 gives the network ln(sigma) / 4, which is minus an eighth of the log-SNR.
SCALE = -1 / 8


class LearnedWeighting(nn.Module):
    """u(log-SNR) as a linear layer, which starts at 0, on fixed random Fourier features."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # the same for all runs
        frequencies = 2 * math.pi * torch.randn(FEATURES, generator=generator)
        phases = 2 * math.pi * torch.rand(FEATURES, generator=generator)
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("phases", phases)
        self.weight = nn.Parameter(torch.zeros(FEATURES))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, errors: Tensor, snr: Tensor) -> Tensor:
        """The weighted errors (B,) of errors (B,) at signal-to-noise ratios (B,), which may be 0 or
        infinite. They may be negative."""
        u = self.log_error(snr)
        return errors / u.exp() + u

    def log_error(self, snr: Tensor) -> Tensor:
        """u (B,): what it has learned of the logarithm of the mean error."""
        x = SCALE * snr.log().clamp(-FURTHEST, FURTHEST)
        features = math.sqrt(2) * torch.cos(x[:, None] * self.frequencies + self.phases)
        return features @ self.weight + self.bias
