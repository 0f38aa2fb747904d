"""The form of a network that samples fastest; it cannot be trained and its weights cannot be read.

A plain convolution on the CPU reorders its weights at every call, which takes half the time of a
single image with the lecture's network. Here they are reordered once, for the size of image that
each layer gets, and in bfloat16 where the hardware computes in it. A layer whose order depends on
how many images come at once, or on the number of threads, stays plain: to change one such order for
another takes up to fifty times as long as to make it. The rest stays float32: linear layers, which
see few numbers per image, and the norms. BatchNorm keeps both its modes, so the lecture's own
sampling works too. It cannot be folded into a convolution anyway: in the lecture's network a ReLU
stands between them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_core.cores import usable_cores
from diffusion_core.device import device_of

Convolution = nn.Conv2d | nn.ConvTranspose2d
Options = tuple[Any, ...]

COUNTS = (1, 32)  # images at once that a packed convolution is to be fast for


class PackedConvolution(nn.Module):
    """A convolution on the CPU with its weights in oneDNN's own order.

    Takes any floating-point (B, C, H, W) and returns `dtype`. `size`: (B, C, H, W) of what it is to
    be fast for; see `has_one_order`.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Convolution, dtype: torch.dtype, size: Sequence[int]) -> None:
        super().__init__()
        ops: Any = torch.ops.mkldnn
        transposed = isinstance(layer, nn.ConvTranspose2d)
        self.dtype = dtype
        self.options = options_of(layer)
        self.compute = (
            ops._convolution_transpose_pointwise if transposed else ops._convolution_pointwise
        )
        weight = in_order(layer.weight.detach().to(dtype), transposed, self.options, size)
        bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return self.compute(x, self.weight, self.bias, *self.options, "none", [], "")


def options_of(layer: Convolution) -> Options:
    """What oneDNN's operations take of a layer beside its weights."""
    found: list[Any] = [layer.padding, layer.stride, layer.dilation, layer.groups]
    if isinstance(layer, nn.ConvTranspose2d):
        found.insert(1, layer.output_padding)
    return tuple(found)


def in_order(weight: Tensor, transposed: bool, options: Options, size: Sequence[int]) -> Tensor:
    """A weight in the order that oneDNN wants for what comes in this size, (B, C, H, W)."""
    ops: Any = torch.ops.mkldnn
    reorder = (
        ops._reorder_convolution_transpose_weight if transposed else ops._reorder_convolution_weight
    )
    return reorder(weight, *options, list(size))


def has_one_order(layer: Convolution, dtype: torch.dtype, size: Sequence[int]) -> bool:
    """Whether oneDNN wants the weights of a layer in the same order for few images and for many, on
    one core and on all."""
    transposed = isinstance(layer, nn.ConvTranspose2d)
    return _has_one_order(
        tuple(layer.weight.shape), transposed, options_of(layer), tuple(size[1:]), dtype
    )


@functools.cache
def _has_one_order(
    shape: tuple[int, ...],
    transposed: bool,
    options: Options,
    size: tuple[int, ...],
    dtype: torch.dtype,
) -> bool:
    describe = torch.ops.mkldnn._get_mkldnn_serialized_md
    weight = torch.zeros(shape, dtype=dtype)
    orders = set()
    before = torch.get_num_threads()
    try:
        for threads in {1, usable_cores()}:  # see cores.py
            torch.set_num_threads(threads)
            for count in COUNTS:
                found = in_order(weight, transposed, options, (count, *size))
                orders.add(describe(found).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    return len(orders) == 1


class CastConvolution(nn.Module):
    """A convolution that computes in bfloat16 for any input type."""

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.layer = layer.to(torch.bfloat16).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(torch.bfloat16))


class CastGroupNorm(nn.Module):
    """A group norm in float32 for inputs that may be bfloat16: CUDA's needs one type for all."""

    def __init__(self, layer: nn.GroupNorm) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float()).to(x.dtype)


def for_sampling(network: nn.Module, half: bool, image: Sequence[int]) -> nn.Module:
    """Turn a network, on its device, into the form that samples fastest, in place; returns it.

    `half`: compute the convolutions in bfloat16. `image`: (C, H, W) of the images; others may be
    sampled too, only not so fast. The network is put in evaluation mode, without gradients; it may
    return bfloat16.
    """
    network.eval().requires_grad_(False)
    device = device_of(network)
    packed = device.type == "cpu" and can_pack(torch.bfloat16 if half else torch.float32)
    sizes = input_sizes(network, (1, *image)) if packed else {}
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Convolution):
                dtype = torch.bfloat16 if half else layer.weight.dtype
                if packed and has_one_order(layer, dtype, sizes[layer]):
                    setattr(parent, name, PackedConvolution(layer, dtype, sizes[layer]))
                elif half:
                    setattr(parent, name, CastConvolution(layer))
                elif device.type == "cpu":
                    layer.to(memory_format=torch.channels_last)
            elif isinstance(layer, nn.GroupNorm) and half and not packed:
                setattr(parent, name, CastGroupNorm(layer))
    return network.eval()  # with its new layers


def input_sizes(network: nn.Module, shape: Sequence[int]) -> dict[nn.Module, tuple[int, ...]]:
    """What each convolution of a network on the CPU gets of images of this shape, (B, C, H, W).

    Found by showing it such images: PyTorch's `meta` device, which would compute nothing, takes a
    second and much memory to begin with.
    """
    found: dict[nn.Module, tuple[int, ...]] = {}

    def remember(layer: nn.Module, given: tuple[Tensor]) -> None:
        found[layer] = tuple(given[0].shape)

    layers = [layer for layer in network.modules() if isinstance(layer, Convolution)]
    hooks = [layer.register_forward_pre_hook(remember) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(*shape), torch.zeros(shape[0], dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    return found


@functools.cache
def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this torch packs and computes as it should; bfloat16 needs a CPU that has it.

    The operations are those that torch.compile gives a frozen network. They are not public, so they
    are tried before they are believed.
    """
    values = torch.linspace(-1, 1, 36).reshape(2, 2, 3, 3)
    x = torch.linspace(-1, 1, 50).reshape(1, 2, 5, 5)
    try:
        for layer, plain in (
            (nn.Conv2d(2, 2, 3, padding=1, device="meta"), F.conv2d),
            (nn.ConvTranspose2d(2, 2, 3, padding=1, device="meta"), F.conv_transpose2d),
        ):
            layer.weight, layer.bias = nn.Parameter(values), nn.Parameter(values[0, 0, 0, :2])
            has_one_order(layer, dtype, x.shape)  # whether it can be asked
            packed = PackedConvolution(layer, dtype, x.shape)(x).float()
            wanted = plain(x, layer.weight, layer.bias, padding=1)
            if not torch.allclose(packed, wanted, atol=1e-4 if dtype == torch.float32 else 0.1):
                return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def memory_of(network: nn.Module) -> int:
    """Bytes of a network's weights and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
