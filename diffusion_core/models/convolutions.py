"""Other ways to compute a convolution on a CPU, with the same result to rounding.

A convolution, its gradient in the input and its gradient in the weight are three products; those of
a transposed convolution are the same three in another order. oneDNN, which PyTorch uses, is slow at
some of them: wide layers of few pixels, and layers that halve or double the sides. Here are

- `gemm`: the pixels under each position of the kernel side by side, and one product of matrices;
- `depth`: for an even kernel with stride 2, each 2 x 2 pixels as four channels, and a convolution
  with half the kernel and stride 1 (sub-pixel convolution, Shi et al. 2016, arXiv 1609.07009).

Which is fastest depends on the layer and the machine: `layer_ways.py` measures it.

In all functions x (B, C, H, W) is the larger side, y (B, K, H', W') the smaller one, w (K, C, k, k)
the weight that takes x to y, and all have one type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Way = Literal["plain", "gemm", "depth"]
PLAIN: Way = "plain"
GEMM: Way = "gemm"
DEPTH: Way = "depth"

Convolution = nn.Conv2d | nn.ConvTranspose2d


class Geometry(NamedTuple):
    """Of a square kernel."""

    kernel: int
    stride: int
    padding: int


class Ways(NamedTuple):
    """How the products of a layer are computed."""

    forward: Way = PLAIN
    grad_input: Way = PLAIN
    grad_weight: Way = PLAIN


def shrink(x: Tensor, w: Tensor, geometry: Geometry, way: Way) -> Tensor:
    """y of x: the convolution."""
    if way == PLAIN:
        return F.conv2d(x, w, None, geometry.stride, geometry.padding)
    if way == DEPTH:
        return F.conv2d(to_depth(padded(x, geometry.padding)), to_depth(w))
    columns, height, width = patches(x, geometry)
    y = columns @ _last(w).reshape(len(w), -1).t()
    return _first(y.view(len(x), height, width, len(w)))


def grow(y: Tensor, w: Tensor, geometry: Geometry, way: Way, sides: Sequence[int]) -> Tensor:
    """x of y: the transposed convolution, and the gradient in x of `shrink`. `sides`: of x."""
    kernel, stride, padding = geometry
    channels = w.shape[1]
    if way == PLAIN:
        smallest = [(side - 1) * stride - 2 * padding + kernel for side in y.shape[2:]]
        over = (sides[0] - smallest[0], sides[1] - smallest[1])
        return F.conv_transpose2d(y, w, None, stride, padding, over)
    if way == DEPTH:
        return cropped(from_depth(F.conv_transpose2d(y, to_depth(w))), padding)
    if stride == 1:
        flipped = w.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, channels)
        columns, _, _ = patches(y, Geometry(kernel, 1, kernel - 1 - padding))
        return _first((columns @ flipped).view(len(y), *sides, channels))
    columns = _last(y).reshape(-1, len(w)) @ _last(w).reshape(len(w), -1)
    return from_patches(columns, (len(y), channels, sides[0], sides[1]), geometry)


def weight(x: Tensor, y: Tensor, w: Tensor, geometry: Geometry, way: Way) -> Tensor:
    """The gradient in w of `shrink`, where y is that of its result. Of w only the shape counts."""
    kernel, stride, padding = geometry
    if way == PLAIN:
        return _plain_weight(x, y, w, stride, padding)
    if way == DEPTH:
        folded = to_depth(padded(x, padding))
        return from_depth(_plain_weight(folded, y, to_depth(w), 1, 0))
    columns, _, _ = patches(x, geometry)
    product = _last(y).reshape(-1, len(w)).t() @ columns
    return _first(product.view(len(w), kernel, kernel, w.shape[1]))


def _plain_weight(x: Tensor, y: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    sides: list[list[int]] = [[stride] * 2, [padding] * 2, [1, 1]]
    found = torch.ops.aten.convolution_backward(
        y, x, w, None, *sides, False, [0, 0], 1, [False, True, False]
    )
    return found[1]


# ---------------------------------------------------------------- pixels in another order


def _last(x: Tensor) -> Tensor:
    """Channels last."""
    return x.permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def padded(x: Tensor, padding: int) -> Tensor:
    """With zeros around, channels last in memory."""
    return _first(F.pad(_last(x), (0, 0, *[padding] * 4)).contiguous())


def cropped(x: Tensor, padding: int) -> Tensor:
    """Without what `padded` adds."""
    height, width = x.shape[2:]
    return x[..., padding : height - padding, padding : width - padding]


def patches(x: Tensor, geometry: Geometry) -> tuple[Tensor, int, int]:
    """The pixels under the kernel: (B H' W', k k C), row by row and channels last; and H', W'."""
    kernel, stride, padding = geometry
    wide = _last(padded(x, padding))
    windows = wide.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3)
    _, height, width, *_ = windows.shape
    return windows.reshape(-1, kernel**2 * x.shape[1]), height, width


def from_patches(columns: Tensor, shape: tuple[int, int, int, int], geometry: Geometry) -> Tensor:
    """The sum of all patches at their places in x of this shape: the adjoint of `patches`."""
    kernel, stride, padding = geometry
    batch, channels, height, width = shape
    tall, wide = height + 2 * padding, width + 2 * padding
    rows, places = ((side - kernel) // stride + 1 for side in (tall, wide))
    each = columns.view(batch, rows, places, kernel, kernel, channels)
    x = columns.new_zeros(batch, tall, wide, channels)
    for i in range(kernel):
        for j in range(kernel):
            there = (slice(i, i + stride * rows, stride), slice(j, j + stride * places, stride))
            x[:, there[0], there[1]] += each[:, :, :, i, j]
    return cropped(_first(x), padding)


def to_depth(x: Tensor) -> Tensor:
    """(B, C, 2H, 2W) to (B, 4C, H, W): each 2 x 2 pixels as channels."""
    batch, channels, height, width = x.shape
    pairs = _last(x).reshape(batch, height // 2, 2, width // 2, 2, channels)
    return _first(pairs.transpose(2, 3).reshape(batch, height // 2, width // 2, 4 * channels))


def from_depth(x: Tensor) -> Tensor:
    """(B, 4C, H, W) to (B, C, 2H, 2W): the inverse of `to_depth`."""
    batch, channels, height, width = x.shape
    pairs = _last(x).reshape(batch, height, width, 2, 2, channels // 4).transpose(2, 3)
    return _first(pairs.reshape(batch, 2 * height, 2 * width, channels // 4))


# ---------------------------------------------------------------- layers


class _Shrink(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry, ways: Ways) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.how = geometry, ways
        return shrink(x, w, geometry, ways.forward)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (x, w), (geometry, ways), needed = ctx.saved_tensors, ctx.how, ctx.needs_input_grad
        of_x = of_w = None
        if needed[0]:
            of_x = grow(grad, w, geometry, ways.grad_input, x.shape[2:])
        if needed[1]:
            of_w = weight(x, grad, w, geometry, ways.grad_weight)
        return of_x, of_w, None, None


class _Grow(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, w: Tensor, geometry: Geometry, ways: Ways, sides: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(y, w)
        ctx.how = geometry, ways
        return grow(y, w, geometry, ways.forward, sides)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (y, w), (geometry, ways), needed = ctx.saved_tensors, ctx.how, ctx.needs_input_grad
        of_y = of_w = None
        if needed[0]:
            of_y = shrink(grad, w, geometry, ways.grad_input)
        if needed[1]:
            of_w = weight(grad, y, w, geometry, ways.grad_weight)
        return of_y, of_w, None, None, None


class ConvolutionInWays(nn.Conv2d):
    """A convolution that computes as its `ways` say, in the type of autocast where that is on."""

    ways: Ways

    def forward(self, input: Tensor) -> Tensor:
        x, w, bias = _in_one_type(self, input)
        return _Shrink.apply(x, w, geometry_of(self), self.ways) + bias


class TransposedInWays(nn.ConvTranspose2d):
    """The same of a transposed convolution."""

    ways: Ways

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        y, w, bias = _in_one_type(self, input)
        kernel, stride, padding = geometry = geometry_of(self)
        sides = [(side - 1) * stride - 2 * padding + kernel for side in y.shape[2:]]
        return _Grow.apply(y, w, geometry, self.ways, sides) + bias


def _in_one_type(layer: Convolution, input: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """What a layer computes with: its input, its weight, and its bias (K, 1, 1) or 0."""
    dtype = input.dtype
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    bias = 0.0 if layer.bias is None else layer.bias.to(dtype)[:, None, None]
    return input.to(dtype), layer.weight.to(dtype), bias


def geometry_of(layer: Convolution) -> Geometry:
    return Geometry(layer.kernel_size[0], layer.stride[0], int(layer.padding[0]))


def set_ways(network: nn.Module, ways: Mapping[str, Ways]) -> None:
    """Let the convolutions of these names compute in these ways; their weights stay as they are."""
    for name, each in ways.items():
        layer: Any = network.get_submodule(name)
        layer.__class__ = ConvolutionInWays if isinstance(layer, nn.Conv2d) else TransposedInWays
        layer.ways = each
