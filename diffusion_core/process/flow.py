"""Rectified flow: straight lines between image and noise (Liu et al. 2023; Lipman et al. 2023).

x_t = (1 - s) x_0 + s epsilon with s = (t + 1) / timesteps, so that the last timestep is pure noise;
the network predicts the direction of the line, epsilon - x_0. The algebra between the predictions
is in `diffusion.py`, the samplers are in `samplers.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_core.process.schedule import gather


class FlowSchedule:
    """The forward process of a flow, with the words that `NoiseSchedule` has for its own.

    Attributes, float32 tensors of shape (timesteps,): `signal` (1 - s), `spread` (s) and `snr`
    ((1 - s) / s)^2. Raises ValueError for fewer than 2 timesteps.
    """

    signal: Tensor
    spread: Tensor
    snr: Tensor

    def __init__(self, timesteps: int = 1000) -> None:
        if timesteps < 2:
            raise ValueError(f"A schedule needs at least 2 timesteps, not {timesteps}.")
        self.timesteps = timesteps
        s = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
        self.signal = (1 - s).float()
        self.spread = s.float()
        self.snr = ((1 - s) / s).square().float()

    def to(self, device: torch.device | str) -> FlowSchedule:
        """Move the tables to `device`, in place; returns self."""
        for name in ("signal", "spread", "snr"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def add_noise(
        self, x_0: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The point of the line at t: (x_t, noise), both (B, C, H, W).

        `x_0` is (B, C, H, W) in [-1, 1], `t` is (B,) integers in [0, timesteps); `noise` is drawn
        from N(0, I) where none is given.
        """
        if noise is None:
            noise = torch.randn_like(x_0)
        signal, spread = gather(self.signal, t, x_0.ndim), gather(self.spread, t, x_0.ndim)
        return signal * x_0 + spread * noise, noise
