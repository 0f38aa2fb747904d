"""Distance of two images in the features of a network: what a distilled one is asked to keep.

Zhang et al. 2018 (arXiv 1801.03924, equation 1), without learned weights. Distillations are taught
with it by Luhman & Luhman 2021 (arXiv 2101.02388) and Song et al. 2023 (arXiv 2303.01469).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_core.evaluation.features import GENERAL_SIZE, GeneralNetwork, fit

# Shorter vectors of channels are not scaled to length 1: their direction says nothing, and its
# gradient would be large. Those of images are between 0.5 and 25 long.
SHORTEST = 0.01


def perceptual_distances(network: GeneralNetwork, images: Tensor, wanted: Tensor) -> Tensor:
    """How far apart images (B, C, H, W) in [-1, 1] of any size are, (B,), with gradients by
    `images` alone; C = 3, or 1 for grey.

    The squared distance of the channels of each place, scaled to length 1: its mean over a stage,
    added up over the stages of the network. Between 0 and 2 for each of them, as no feature is
    negative.
    """
    with torch.no_grad():
        targets = network.maps(fit(wanted, GENERAL_SIZE))
    found = network.maps(fit(images, GENERAL_SIZE))
    apart = [
        (_unit(ours) - _unit(theirs)).square().sum(1).mean((1, 2))
        for ours, theirs in zip(found, targets, strict=True)
    ]
    return torch.stack(apart).sum(0)


def _unit(maps: Tensor) -> Tensor:
    return F.normalize(maps, dim=1, eps=SHORTEST)
