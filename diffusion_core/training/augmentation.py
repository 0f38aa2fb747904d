"""Augmentation that does not leak into the samples (EDM, Karras et al. 2022, appendix F).

A small set is overfitted soon. Images that are turned, moved and scaled are more of them, and a
network that is told how each was changed learns to generate unchanged ones: those of which it is
told nothing but zeros.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# What is told of an image, 0 for each change that was not made: flipped left to right, flipped
# upside down, cosine - 1 and sine of the quarter turns, scale, angle, and how far it moved to the
# right and down, these four in units of the constants below.
DIMENSIONS = 8
DOUBLINGS = 0.2  # standard deviation of the logarithm of the scale, to the base 2
LARGEST_ANGLE = math.pi / 12  # the paper takes all angles
SHIFT = 1 / 8  # standard deviation, as a share of the image's side


def draw_changes(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """(count, DIMENSIONS): what is done to each image, each change with this probability by itself.

    Of a flip and of quarter turns "not at all" is one of the equally likely outcomes, as in the
    paper.
    """
    device = generator.device
    chosen = (torch.rand(count, 6, generator=generator, device=device) < probability).float()
    coins = torch.rand(count, 4, generator=generator, device=device)
    normal = torch.randn(count, 3, generator=generator, device=device)
    turn = (4 * coins[:, 2]).floor() * (math.pi / 2)
    return torch.stack(
        [
            chosen[:, 0] * (coins[:, 0] < 0.5),
            chosen[:, 1] * (coins[:, 1] < 0.5),
            chosen[:, 2] * (turn.cos() - 1).round(),
            chosen[:, 2] * turn.sin().round(),
            chosen[:, 3] * normal[:, 0],
            chosen[:, 4] * (2 * coins[:, 3] - 1),
            chosen[:, 5] * normal[:, 1],
            chosen[:, 5] * normal[:, 2],
        ],
        dim=1,
    )


def change_images(images: Tensor, changes: Tensor) -> Tensor:
    """Images (B, C, S, S) in [-1, 1] with the changes (B, DIMENSIONS) made: flipped, turned,
    scaled, rotated and moved in this order. What comes in from outside mirrors the inside."""
    flip_x, flip_y, cosine, sine, scale, angle, right, down = changes.unbind(1)
    angle = LARGEST_ANGLE * angle
    # Each pixel is looked up where it was before: everything backwards, the last change first. Of
    # coordinates from -1 to 1.
    rotate = _rotation(angle.cos(), -angle.sin()) * (2 ** (-DOUBLINGS * scale))[:, None, None]
    flips = torch.stack([1 - 2 * flip_x, 1 - 2 * flip_y], dim=1)
    linear = flips[:, :, None] * (_rotation(1 + cosine, -sine) @ rotate)
    moved = linear @ (2 * SHIFT * torch.stack([right, down], dim=1))[:, :, None]
    grid = F.affine_grid(
        torch.cat([linear, -moved], dim=2), list(images.shape), align_corners=False
    )
    found = F.grid_sample(
        images, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    changed = (changes != 0).any(dim=1)[:, None, None, None]
    return torch.where(changed, found.clamp(-1, 1), images)


def _rotation(cosine: Tensor, sine: Tensor) -> Tensor:
    """(B, 2, 2), of coordinates that run to the right and down."""
    return torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
