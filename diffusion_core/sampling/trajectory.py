"""A recording of sampling: what changes in every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_core.sampling.levels import NoiseLevel
from diffusion_core.sampling.solvers import StepView

MOST_FRAMES = 60
MOST_IMAGES = 16
MOST_BYTES = 8 * 2**20  # of pixels, x_t and x_0 together, per visitor
EDGES = np.linspace(-4, 4, 65)  # of the histogram; values outside are counted at the ends
BINS = len(EDGES) - 1


@dataclass(frozen=True, eq=False)
class Trajectory:
    """S steps of n images, of which m images are kept at k of the steps."""

    timesteps: np.ndarray  # (S,) at which each step started, falling
    change_x_t: np.ndarray  # (S, n) root mean square change of x_t over the step
    change_x_0: np.ndarray  # (S, n) of the predicted x_0 since the step before; NaN in the first
    epsilon: np.ndarray  # (S, n) root mean square of the predicted noise; 1 for N(0, 1)
    kept: np.ndarray  # (k,) indices of the steps, the first and the last among them
    x_t: np.ndarray  # uint8 (k, m, H, W, C), after the step
    x_0: np.ndarray  # uint8 (k, m, H, W, C), predicted at its start
    counts: np.ndarray  # (k, m, BINS) histogram of an image's predicted noise over EDGES

    def evenly(self, count: int) -> np.ndarray:
        """Indices of at most `count` of the kept steps, evenly spread, the last among them."""
        return spread(len(self.kept), count)


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` of 0 to total - 1, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(int))


class Recorder:
    """Call it with every `StepView` of a walk down `levels`, then call `finish`.

    Everything stays on the device until then, so no step waits for a copy. The first images are
    kept, as many as MOST_IMAGES and MOST_BYTES allow.
    """

    def __init__(self, levels: Sequence[NoiseLevel]) -> None:
        self._start = levels[0]
        steps = len(levels) - 1
        self._kept = spread(steps, MOST_FRAMES)
        self._keep = set(self._kept.tolist())
        self._before: StepView | None = None
        self._timesteps: list[float] = []
        self._numbers: list[Tensor] = []  # (3, n) each
        # uint8 (m, C, H, W) each: x_t, x_0, and the bin of the histogram that epsilon is in.
        self._x_t: list[Tensor] = []
        self._x_0: list[Tensor] = []
        self._bins: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, view: StepView) -> None:
        before = self._before
        if before is None:  # x_T is what the first prediction was split from
            start = self._start.alpha * view.x_0 + self._start.sigma * view.epsilon
            change_x_0 = torch.full((len(start),), float("nan"), device=start.device)
        else:
            start = before.x_t
            change_x_0 = _rms(view.x_0 - before.x_0)
        self._before = view
        self._timesteps.append(view.timestep)
        self._numbers.append(torch.stack([_rms(view.x_t - start), change_x_0, _rms(view.epsilon)]))
        if view.index in self._keep:
            m = self.images(view.x_t.shape)
            self._x_t.append(_as_bytes(view.x_t[:m]))
            self._x_0.append(_as_bytes(view.x_0[:m]))
            place = view.epsilon[:m].float().sub(EDGES[0]).mul_(1 / (EDGES[1] - EDGES[0]))
            self._bins.append(place.clamp_(0, BINS - 1).byte())

    def images(self, shape: Sequence[int]) -> int:
        """How many of (n, C, H, W) are kept."""
        n, *sides = shape
        room = MOST_BYTES // (2 * len(self._kept) * int(np.prod(sides)))
        return min(n, MOST_IMAGES, max(1, room))

    def finish(self) -> Trajectory:
        """The recording. Raises ValueError before the last step."""
        if len(self._bins) < len(self._kept):
            raise ValueError("The walk has not ended yet.")
        change_x_t, change_x_0, epsilon = torch.stack(self._numbers, dim=1).cpu().numpy()
        bins = torch.stack(self._bins).flatten(2).cpu().numpy()
        return Trajectory(
            np.array(self._timesteps),
            change_x_t,
            change_x_0,
            epsilon,
            self._kept,
            _as_images(self._x_t),
            _as_images(self._x_0),
            np.array([[np.bincount(one, minlength=BINS) for one in step] for step in bins]),
        )


def _as_bytes(x: Tensor) -> Tensor:
    """As `images.to_uint8`, but on the device and still (n, C, H, W)."""
    return x.float().add(1).mul_(127.5).clamp_(0, 255).round_().byte()


def _as_images(frames: list[Tensor]) -> np.ndarray:
    return torch.stack(frames).cpu().permute(0, 1, 3, 4, 2).contiguous().numpy()


def _rms(x: Tensor) -> Tensor:
    """Over all but the first dimension: (n, ...) to (n,)."""
    return torch.linalg.vector_norm(x.flatten(1).float(), dim=1) / x[0].numel() ** 0.5
