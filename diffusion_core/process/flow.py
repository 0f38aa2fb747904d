"""Rectified flow: straight lines between image and noise (Liu et al. 2023; Lipman et al. 2023).

x_t = (1 - s) x_0 + s epsilon with s = (t + 1) / timesteps, so that the last timestep is pure noise;
the network predicts the direction of the line, epsilon - x_0.
"""

from __future__ import annotations

import numpy as np
import torch

from diffusion_core.process.schedule import Schedule


class FlowSchedule(Schedule):
    """The forward process of a flow: `signal` is 1 - s, `spread` is s, `snr` ((1 - s) / s)^2.

    Raises ValueError for fewer than 2 timesteps.
    """

    is_flow = True

    def __init__(self, timesteps: int = 1000) -> None:
        super().__init__(timesteps)
        s = np.arange(1, timesteps + 1) / timesteps
        self.exact_signal, self.exact_spread = 1 - s, s
        self.signal = torch.from_numpy(1 - s).float()
        self.spread = torch.from_numpy(s).float()
        self.snr = torch.from_numpy(((1 - s) / s) ** 2).float()
