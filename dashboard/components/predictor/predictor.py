"""An image with noise and what a run predicts from it, which follow the page's timestep.

The engine computes both in the browser, so the server is not asked while t moves.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from dashboard.components.assemble import component
from dashboard.components.engine.engine import worker_script

HTML = """
<div class="predictor">
  <figure><canvas class="noisy" role="img" aria-label="The image with noise"></canvas>
    <figcaption><i>x</i><sub><i>t</i></sub></figcaption></figure>
  <figure><canvas class="predicted" role="img"></canvas>
    <figcaption>predicted <i>x</i><sub>0</sub></figcaption></figure>
  <p class="said" role="status"></p>
</div>
"""


def show_predictor(
    address: str,
    image: np.ndarray,
    timesteps: int,
    *,
    seed: int,
    label: int | None,
    guidance: float,
    key: str,
) -> None:
    """`address` of the model, relative to the page; `image` is uint8 (H, H, C), `timesteps` are
    those of the model, `seed` is that of the noise, `label` None for any class."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    data = {
        "address": address,
        "pixels": base64.b64encode(planes.tobytes()).decode(),
        "size": len(image),
        "timesteps": timesteps,
        "asked": {"seed": seed, "label": label, "guidance": guidance},
        "worker": worker_script(),
    }
    component(Path(__file__), HTML)(key=key, data=data)
