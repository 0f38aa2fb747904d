"""Features and class of an image by a small trained classifier.

Classifiers for `cars` and `digits` are shipped in `assets/`; `docs/train_features.py` trains them.
They predict the kind of car (and its paint, light, scenery and direction, so that the features hold
more than the kind) and the digit. They were trained on images that no run trains on (cars of other
seeds) and on five sixths of the set (digits). A data source has one if there is a file
`assets/features-NAME.safetensors`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from diffusion_core.cores import take_share
from diffusion_core.data.sources import SOURCES
from diffusion_core.device import compute_in_float32, device_of

ASSETS = Path(__file__).parent / "assets"
CLASS = "class"  # the name of the head that predicts the class


class Classifier(nn.Module):
    """A small convolutional network with a linear head for each attribute.

    Takes (B, 3, size, size) in [-1, 1]. The features are the last layer, pooled over the image.
    """

    def __init__(self, widths: list[int], heads: dict[str, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for number, width in enumerate(widths):
            layers.append(_layer(before, width, stride=2))
            if number >= 2:
                layers.append(_Residual(width))
            before = width
        self.width = before  # of the features
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(before, n) for name, n in heads.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (B, widths[-1]), 0 or more, and the logits of each head."""
        features = self.body(x).mean((2, 3))
        return features, {name: head(features) for name, head in self.heads.items()}


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = _layer(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


def _layer(before: int, width: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


class FeatureNet:
    """A trained `Classifier`, for uint8 images of any size."""

    def __init__(self, model: Classifier, classes: tuple[str, ...], size: int) -> None:
        self.model = model.eval().requires_grad_(False)
        self.classes = classes  # in the order of the data set's labels
        self.size = size  # pixels, side of its input

    def to(self, device: torch.device | str) -> FeatureNet:
        """Move the network in place; returns self."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def features(self, images: np.ndarray, batch: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """Compute features (n, d) and class probabilities (n, classes), both float32.

        `images`: uint8 (n, H, W, C), C = 3, or 1 for grey; others raise ValueError.
        """
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"The images must be uint8 of shape (n, H, W, 3) or (n, H, W, 1), not "
                f"{images.dtype} of shape {images.shape}."
            )
        device = device_of(self.model)
        found = [np.empty((0, self.model.width), np.float32)]
        shares = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(images), batch):
            take_share()
            rows = torch.from_numpy(np.ascontiguousarray(images[start : start + batch]))
            features, logits = self.model(prepare(rows.to(device), self.size))
            found.append(features.float().cpu().numpy())
            shares.append(logits[CLASS].float().softmax(1).cpu().numpy())
        return np.concatenate(found), np.concatenate(shares)


def prepare(images: Tensor, size: int) -> Tensor:
    """Input of the network, float32 (n, 3, size, size) in [-1, 1], of uint8 (n, H, W, C)."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    if x.shape[2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.expand(-1, 3, -1, -1)


def feature_net(
    data: str, channels: int = 3, image_size: int = 64, device: torch.device | str = "cpu"
) -> FeatureNet | None:
    """Load the classifier for a data set such as `cars:N`; None if there is none.

    It takes colour and grey images (`channels` 3 and 1) of an `image_size` of 16 or more.
    """
    kind = data.partition(":")[0]
    path = ASSETS / f"features-{kind}.safetensors"
    if kind not in SOURCES or not path.is_file() or channels not in (1, 3) or image_size < 16:
        return None
    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["diffusion_lab"])
    model = Classifier(recipe["widths"], recipe["heads"])
    weights = safetensors.torch.load_file(path)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    compute_in_float32()
    return FeatureNet(model, tuple(recipe["classes"]), recipe["size"]).to(device)
