"""The two U-Nets: the lecture's `SimpleUnet`, kept to the parameter, and the improved `Unet`.

Both are called `model(x, t[, labels])` with x (B, C, H, W) and t (B,) integers and return the
prediction in the shape of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_core.process.embedding import SinusoidalPositionEmbeddings

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

# ---------------------------------------------------------------- the lecture's network


class Block(nn.Module):
    """One level of `SimpleUnet`: two convolutions with the time term between, then a resize.

    A down block takes (B, in, H, W) to (B, out, H/2, W/2); an up block takes (B, 2 in, H, W),
    the skip concatenated, to (B, out, 2H, 2W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, time_emb_size: int, up: bool = False
    ) -> None:
        super().__init__()
        self.time_mlp = nn.Linear(time_emb_size, out_channels)
        if up:
            self.conv1 = nn.Conv2d(2 * in_channels, out_channels, 3, padding=1)
            self.transform: nn.Module = nn.ConvTranspose2d(out_channels, out_channels, 4, 2, 1)
        else:
            self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            self.transform = nn.Conv2d(out_channels, out_channels, 4, 2, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bnorm1 = nn.BatchNorm2d(out_channels)
        self.bnorm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        # ReLU before the norm, as in the lecture; usually it comes after.
        h = self.bnorm1(self.relu(self.conv1(x)))
        h = h + self.time_terms(time)["bias"][..., None, None]
        h = self.bnorm2(self.relu(self.conv2(h)))
        return self.transform(h)

    def time_terms(self, time: Tensor) -> dict[str, Tensor]:
        """What the embedding gives each channel: the bias (B, out) that is added to it."""
        return {"bias": self.relu(self.time_mlp(time))}


# BatchNorm in training mode has no statistics of a single value.
SINGLE_PIXEL = (
    "The lecture's network halves 16 pixels to a single one, so BatchNorm in training mode needs "
    "two or more images at once; use larger images or more of them."
)


class SimpleUnet(nn.Module):
    """The lecture's network: 62,438,883 parameters, any H and W divisible by 8.

    Sides that are not divisible by 16 are padded with zeros on the right and at the bottom, and the
    result is cropped. Other `widths`, or one channel, give a network of the same kind that is not
    the lecture's. Raises ValueError for a single image of 16 pixels in training mode.
    """

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512, 1024), channels: int = 3
    ) -> None:
        super().__init__()
        check_widths(widths)
        self.channels = channels
        self.halvings = len(widths) - 1
        self.size_multiple = 2 ** max(0, self.halvings - 1)  # what H and W must be divisible by
        time_emb_size = 32
        down = tuple(widths)
        up = down[::-1]
        self.time_mlp = nn.Sequential(
            SinusoidalPositionEmbeddings(time_emb_size),
            nn.Linear(time_emb_size, time_emb_size),
            nn.ReLU(),
        )
        self.conv0 = nn.Conv2d(channels, down[0], 3, padding=1)
        self.downs = nn.ModuleList(Block(a, b, time_emb_size) for a, b in pairwise(down))
        self.ups = nn.ModuleList(Block(a, b, time_emb_size, up=True) for a, b in pairwise(up))
        self.output = nn.Conv2d(up[-1], channels, 1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        time = self.embed(t, labels)
        check_size(x, self.size_multiple)
        height, width = x.shape[-2:]
        whole = 2**self.halvings
        if self.training and len(x) == 1 and max(height, width) <= whole:
            raise ValueError(SINGLE_PIXEL)
        if height % whole or width % whole:
            x = F.pad(x, (0, -width % whole, 0, -height % whole))
        x = self.conv0(x)
        skips = []
        for down in self.downs:
            x = down(x, time)
            skips.append(x)
        for up in self.ups:
            # The deepest skip is x itself, so the first up block sees it twice.
            x = up(torch.cat((x, skips.pop()), dim=1), time)
        x = self.output(x)
        return x if x.shape[-2:] == (height, width) else x[..., :height, :width]

    def embed(self, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The embedding (B, 32) of the timesteps that all blocks get."""
        if labels is not None:
            raise ValueError("The lecture's network takes no labels.")
        return self.time_mlp(t)


# ---------------------------------------------------------------- the improved network


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice; the embedding scales and shifts the second norm.

    As in Dhariwal & Nichol 2021 (adaptive group normalisation). (B, in, H, W) to (B, out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, emb_size: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(group_count(in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.scale_shift = nn.Linear(emb_size, 2 * out_channels)
        self.norm2 = nn.GroupNorm(group_count(out_channels), out_channels)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        terms = self.time_terms(emb)
        h = self.norm2(h) * (1 + terms["scale"][..., None, None]) + terms["shift"][..., None, None]
        return self.skip(x) + self.conv2(F.silu(h))

    def time_terms(self, emb: Tensor) -> dict[str, Tensor]:
        """What the embedding gives each channel of the second norm: a scale and a shift, each
        (B, out)."""
        scale, shift = self.scale_shift(emb).chunk(2, dim=1)
        return {"scale": scale, "shift": shift}


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over the H x W positions; keeps the shape."""

    def __init__(self, channels: int, head_size: int = 64) -> None:
        super().__init__()
        wanted = max(1, channels // head_size)
        self.heads = next(heads for heads in range(wanted, 0, -1) if channels % heads == 0)
        self.norm = nn.GroupNorm(group_count(channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        qkv = qkv.transpose(-1, -2)
        if qkv.stride(-1) != 1:  # PyTorch's fast kernels take each position's numbers side by side
            qkv = qkv.contiguous()
        q, k, v = qkv.unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


class UnetBlock(nn.Module):
    """A residual block, followed by self-attention where the level has it."""

    def __init__(self, in_channels: int, out_channels: int, emb_size: int, attention: bool) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, emb_size)
        self.attention = SelfAttention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.attention(self.residual(x, emb))


class Unet(nn.Module):
    """A U-Net that works on `patch` x `patch` pixels at a time.

    - `widths`: channels of each level, from fine to coarse; each level halves H and W.
    - `blocks`: residual blocks per level.
    - `attention_levels`: the levels (0 is the finest) with self-attention.
    - `patch`: pixel-unshuffle factor of the stem; with 2, 64 x 64 costs what 32 x 32 does without.
    - `num_classes`: 0 for none; else `labels` (B,) in [0, num_classes) condition the network,
      and the label `num_classes`, or no labels at all, means "any class".
    - `augment_dim`: 0 for none; else `augment` (B, augment_dim) says how training has changed each
      image, and zeros, or none at all, that it is as it was.

    H and W must be divisible by patch * 2 ** (len(widths) - 1).
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 192),
        blocks: int = 2,
        attention_levels: Sequence[int] = (1, 2),
        patch: int = 2,
        num_classes: int = 0,
        augment_dim: int = 0,
    ) -> None:
        super().__init__()
        check_widths(widths)
        for name, value, least in (
            ("channels", channels, 1),
            ("blocks", blocks, 1),
            ("patch", patch, 1),
            ("num_classes", num_classes, 0),
            ("augment_dim", augment_dim, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")
        if unknown := sorted(set(attention_levels) - set(range(len(widths)))):
            raise ValueError(
                f"attention_levels has {', '.join(map(str, unknown))}; "
                f"there are levels 0 to {len(widths) - 1}."
            )
        emb_size = 4 * widths[0]
        self.channels = channels
        self.num_classes = num_classes
        self.patch = patch
        self.size_multiple = patch * 2 ** (len(widths) - 1)  # what H and W must be divisible by
        self.time_mlp = nn.Sequential(
            SinusoidalPositionEmbeddings(widths[0]),
            nn.Linear(widths[0], emb_size),
            nn.SiLU(),
            nn.Linear(emb_size, emb_size),
        )
        if num_classes:
            self.label_embedding = nn.Embedding(num_classes + 1, emb_size)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)

        self.downs = nn.ModuleList()
        skips = [widths[0]]
        width = widths[0]
        for level, out in enumerate(widths):
            if level:
                self.downs.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
            for _ in range(blocks):
                self.downs.append(UnetBlock(width, out, emb_size, level in attention_levels))
                width = out
                skips.append(width)

        self.middle = nn.ModuleList(
            [UnetBlock(width, width, emb_size, True), UnetBlock(width, width, emb_size, False)]
        )

        self.ups = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                attention = level in attention_levels
                self.ups.append(UnetBlock(width + skips.pop(), out, emb_size, attention))
                width = out
            if level:
                self.ups.append(
                    nn.Sequential(
                        nn.Upsample(scale_factor=2, mode="nearest"),
                        nn.Conv2d(width, width, 3, padding=1),
                    )
                )
        self.norm = nn.GroupNorm(group_count(width), width)
        self.output = zero_init(nn.Conv2d(width, channels * patch**2, 3, padding=1))
        if augment_dim:
            # As large as a class's. From zeros it grew so slowly that the changes leaked: after
            # 1,364 steps on 2,000 images 8 of 32 samples lay on their side or their roof.
            self.augment_embedding = nn.Linear(augment_dim, emb_size, bias=False)
            nn.init.normal_(self.augment_embedding.weight)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        emb = self.embed(t, labels, augment)
        check_size(x, self.size_multiple)

        x = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = [x]
        for down in self.downs:
            x = down(x, emb) if isinstance(down, UnetBlock) else down(x)
            skips.append(x)
        for level in self.middle:
            x = level(x, emb)
        for up in self.ups:
            x = up(torch.cat((x, skips.pop()), dim=1), emb) if isinstance(up, UnetBlock) else up(x)
        x = self.output(F.silu(self.norm(x)))
        return F.pixel_shuffle(x, self.patch)

    def embed(
        self, t: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """The embedding (B, 4 widths[0]) that all blocks get: of the timesteps, the classes and, in
        training, what was done to the images."""
        emb = self.time_mlp(t)
        if self.num_classes:
            if labels is None:
                labels = torch.full_like(t, self.num_classes)
            emb = emb + self.label_embedding(labels)
        elif labels is not None:
            raise ValueError("This network was built without classes; it takes no labels.")
        if augment is not None:
            emb = emb + self.augment_embedding(augment)
        return F.silu(emb)


def with_augment_dim(weights: dict[str, Tensor], augment_dim: int) -> dict[str, Tensor]:
    """The weights of a `Unet` for one with this `augment_dim`; what is not learned yet is random as
    in a new network, the same each time."""
    name, weights = "augment_embedding.weight", dict(weights)
    found = weights.pop(name, None)
    if augment_dim and found is None:
        size = (len(weights["time_mlp.3.bias"]), augment_dim)
        found = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return weights | {name: found} if augment_dim and found is not None else weights


def with_classes(
    weights: dict[str, Tensor],
    before: Sequence[str],
    now: Sequence[str],
    any_class_learned: bool = True,
) -> dict[str, Tensor]:
    """The weights of a `Unet` that knows the classes `before`, for one that is to learn `now`.

    Either may be empty. Classes of the same name keep their embedding and a new one starts as "any
    class"; without classes the network answers as it did for "any class", or for the mean of the
    classes where it has not learned that.
    """
    label, bias = "label_embedding.weight", "time_mlp.3.bias"
    weights = dict(weights)
    rows = weights.pop(label, None)
    if rows is None:
        any_class = torch.zeros_like(weights[bias]) if now else None
    else:
        any_class = rows[-1] if any_class_learned else rows[:-1].mean(dim=0)
    if now and any_class is not None:
        known = {} if rows is None else dict(zip(before, rows, strict=False))
        weights[label] = torch.stack([*(known.get(name, any_class) for name in now), any_class])
    elif any_class is not None:
        weights[bias] = weights[bias] + any_class
    return weights


def group_count(channels: int) -> int:
    """The most groups, up to 32, that divide the channels into 4 or more each; else one."""
    return next((g for g in (32, 16, 8, 4, 2) if channels % g == 0 and channels // g >= 4), 1)


def zero_init(layer: Layer) -> Layer:
    """Set a layer to zero, so that it adds nothing at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def check_widths(widths: Sequence[int]) -> None:
    """Raises ValueError for widths that cannot be the channels of a network's levels."""
    if not widths or min(widths) < 1:
        raise ValueError(f"widths is {list(widths)}; it takes one positive number per level.")


def check_size(x: Tensor, multiple: int) -> None:
    """Raises ValueError where the height or width of x (B, C, H, W) cannot be halved enough."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple or 0 in (height, width):
        raise ValueError(
            f"The image is {height}×{width}; this network needs height and width divisible "
            f"by {multiple}."
        )
