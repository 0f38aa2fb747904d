"""Features of an image by small trained networks.

The general network, for any data set, was trained without labels on several sets together, none of
them drawn cars: `docs/train_general_features.py`.

Classifiers for `cars` and `digits` are shipped in `assets/`; `docs/train_features.py` trains them.
They predict the kind of car (and its paint, light, scenery and direction, so that the features hold
more than the kind) and the digit. They were trained on images that no run trains on (cars of other
seeds) and on five sixths of the set (digits). A data source has one if there is a file
`assets/features-NAME.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
GENERAL, GENERAL_SIZE = "general.safetensors", 64  # pixels, side of its input
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


class GeneralNetwork(nn.Module):
    """A convolutional network whose features are components of the means of its stages' channels.

    Takes (B, 3, size, size) in [-1, 1]. `mean` and `projection` turn the means of all but the first
    stage into `features` numbers that have mean 0, variance 1 on average and no correlation over
    the images that it was trained on.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, widths: Sequence[int], features: int) -> None:
        super().__init__()
        stages, before = [_layer(3, widths[0], stride=2)], widths[0]
        for width in widths[1:]:
            stages.append(nn.Sequential(_layer(before, width, stride=2), _Residual(width)))
            before = width
        self.stages = nn.ModuleList(stages)
        self.pooled_width = sum(widths[1:])
        self.register_buffer("mean", torch.zeros(self.pooled_width))
        self.register_buffer("projection", torch.eye(self.pooled_width)[:, :features])

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each stage makes of it, (B, width, H, W), 0 or more; each half the size of the one
        before."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def pooled(self, x: Tensor) -> Tensor:
        """(B, sum(widths[1:])), 0 or more."""
        return torch.cat([x.mean((2, 3)) for x in self.maps(x)[1:]], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, features)."""
        return (self.pooled(x) - self.mean) @ self.projection


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
        found = [np.empty((0, self.model.width), np.float32)]
        shares = [np.empty((0, len(self.classes)), np.float32)]
        for x in _inputs(images, self.size, batch, self.model):
            features, logits = self.model(x)
            found.append(features.float().cpu().numpy())
            shares.append(logits[CLASS].float().softmax(1).cpu().numpy())
        return np.concatenate(found), np.concatenate(shares)


class GeneralNet:
    """The trained `GeneralNetwork`, for uint8 images of any size."""

    def __init__(self, model: GeneralNetwork) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.inference_mode()
    def features(self, images: np.ndarray, batch: int = 256) -> np.ndarray:
        """float32 (n, d) of uint8 images (n, H, W, C), C = 3, or 1 for grey; else ValueError."""
        found = [np.empty((0, self.model.projection.shape[1]), np.float32)]
        for x in _inputs(images, GENERAL_SIZE, batch, self.model):
            found.append(self.model(x).float().cpu().numpy())
        return np.concatenate(found)


def _inputs(images: np.ndarray, size: int, batch: int, model: nn.Module) -> Iterator[Tensor]:
    """Batches of `prepare`d images on the model's device. Raises ValueError."""
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"The images must be uint8 of shape (n, H, W, 3) or (n, H, W, 1), not "
            f"{images.dtype} of shape {images.shape}."
        )
    for start in range(0, len(images), batch):
        take_share()
        rows = torch.from_numpy(np.ascontiguousarray(images[start : start + batch]))
        yield prepare(rows.to(device_of(model)), size)


def prepare(images: Tensor, size: int) -> Tensor:
    """Input of the network, float32 (n, 3, size, size) in [-1, 1], of uint8 (n, H, W, C)."""
    return fit(images.permute(0, 3, 1, 2).float() / 127.5 - 1, size)


def fit(x: Tensor, size: int) -> Tensor:
    """Images (n, C, H, W) as (n, 3, size, size): scaled, grey ones as colour."""
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


def general_net(device: torch.device | str = "cpu") -> GeneralNet:
    """Load the network for any data set."""
    path = ASSETS / GENERAL
    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["diffusion_lab"])
    model = GeneralNetwork(recipe["widths"], recipe["features"])
    weights = safetensors.torch.load_file(path)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    compute_in_float32()
    return GeneralNet(model.to(device))
