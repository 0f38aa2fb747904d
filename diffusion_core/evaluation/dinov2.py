"""Features of DINOv2 (Oquab et al. 2023), from a weights file on this machine.

`DIFFUSION_LAB_DINOV2` names the file: one of those published in facebookresearch/dinov2 without
registers, such as `dinov2_vits14_pretrain.pth`, or the same tensors as safetensors. It is never
downloaded. The size of the network (S, B or L) is read from the tensors.

The Fréchet distance in these features agrees better with people than FID does (Stein et al. 2023,
arXiv 2306.04675, who use L). As there, images are resized to 224 x 224 pixels, and the features are
the class token after the last layer norm.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from diffusion_core.cores import take_share
from diffusion_core.device import compute_in_float32, device_of

SETTING = "DIFFUSION_LAB_DINOV2"
SIZE, PATCH, HEAD = 224, 14, 64  # pixels; features of an attention head
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which it was trained on


class VisionTransformer(nn.Module):
    """(B, 3, 14 h, 14 w), normalised by MEAN and SPREAD -> (B, width), the class token.

    Its tensors have the names of facebookresearch/dinov2.
    """

    def __init__(self, width: int, depth: int, places: int) -> None:
        """`places`: of the learned positions, 1 for the class token and a square number."""
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of its training only
        self.pos_embed = nn.Parameter(torch.zeros(1, places, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["proj"](x)
        positions = self.positions(*x.shape[2:])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + positions
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm(x[:, 0])
        return found

    def positions(self, height: int, width: int) -> Tensor:
        """The learned positions for so many patches, (1, 1 + height * width, features).

        Interpolated as in the published code, which scales by (patches + 0.1) / side.
        """
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(rest.shape[1] ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        plane = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        plane = F.interpolate(plane, scale_factor=scale, mode="bicubic")
        return torch.cat([first, plane.flatten(2).transpose(1, 2)], 1)


class Block(nn.Module):
    """Attention and a perceptron, each after a layer norm, scaled and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1["gamma"] * self.attention(self.norm1(x))
        inner = F.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2["gamma"] * self.mlp["fc2"](inner)

    def attention(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        rows = self.attn["qkv"](x).reshape(batch, tokens, 3, width // HEAD, HEAD)
        found = F.scaled_dot_product_attention(*rows.permute(2, 0, 3, 1, 4))
        mixed: Tensor = self.attn["proj"](found.transpose(1, 2).reshape(batch, tokens, width))
        return mixed


class DinoV2:
    """The trained network, for uint8 images of any size."""

    def __init__(self, model: VisionTransformer, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.name = name  # of its file

    @torch.inference_mode()
    def features(self, images: np.ndarray, batch: int = 32) -> np.ndarray:
        """float32 (n, width) of uint8 images (n, H, W, C), C = 3, or 1 for grey, n at least 1."""
        device = device_of(self.model)
        mean, spread = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, SPREAD))
        found = []
        for start in range(0, len(images), batch):
            take_share()
            rows = np.ascontiguousarray(images[start : start + batch].transpose(0, 3, 1, 2))
            x = torch.from_numpy(rows).to(device).float().expand(-1, 3, -1, -1)
            x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
            found.append(self.model((x / 255 - mean) / spread).float().cpu().numpy())
        return np.concatenate(found)


def load_dinov2(
    device: torch.device | str = "cpu", weights: Path | None = None
) -> tuple[DinoV2 | None, str]:
    """Load the network; returns (network, "") or (None, why not, "" without the setting).

    `weights`: its file, by default the one that the environment variable names.
    """
    named = os.environ.get(SETTING, "")
    if weights is None and not named:
        return None, ""
    path = weights or Path(named).expanduser()
    without = "FD-DINOv2 was not measured:"
    try:
        tensors = _read(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        return None, f"{without} {path} ({SETTING}) cannot be read: {reason}"
    model = _network(tensors)
    if model is None:
        return None, (
            f"{without} {path} ({SETTING}) does not hold the weights of a DINOv2 network of size "
            f"S, B or L without registers. Use a file such as dinov2_vits14_pretrain.pth."
        )
    compute_in_float32()
    return DinoV2(model.to(device), path.name), ""


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    return found if isinstance(found, dict) else {}


def _network(tensors: dict[str, Tensor]) -> VisionTransformer | None:
    """The network that exactly these tensors fit; None if there is none."""
    positions = tensors.get("pos_embed")
    if not isinstance(positions, Tensor) or positions.ndim != 3 or positions.shape[2] % HEAD:
        return None
    _, places, width = positions.shape
    side = round((places - 1) ** 0.5)
    depth = len({name.split(".")[1] for name in tensors if str(name).startswith("blocks.")})
    if side**2 != places - 1 or not side:
        return None
    with torch.device("meta"):
        model = VisionTransformer(width, depth, places)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if wanted != {name: getattr(tensor, "shape", None) for name, tensor in tensors.items()}:
        return None
    model.load_state_dict({name: each.float() for name, each in tensors.items()}, assign=True)
    return model
