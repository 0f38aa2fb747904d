"""The form of a network that samples fastest; it cannot be trained and its weights cannot be read.

A plain convolution on the CPU reorders its weights at every call, which takes half the time of a
single image with the lecture's network. Here they are reordered once, and in bfloat16 where the
hardware computes in it. The rest stays float32: linear layers, which see few numbers per image,
and the norms. BatchNorm keeps both its modes, so the lecture's own sampling works too. It
cannot be folded into a convolution anyway: in the lecture's network a ReLU stands between them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_core.device import device_of

Convolution = nn.Conv2d | nn.ConvTranspose2d


class PackedConvolution(nn.Module):
    """A convolution on the CPU with its weights in oneDNN's own order.

    Takes any floating-point (B, C, H, W) and returns `dtype`.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Convolution, dtype: torch.dtype) -> None:
        super().__init__()
        ops: Any = torch.ops.mkldnn
        self.dtype = dtype
        self.options: list[Any] = [layer.padding, layer.stride, layer.dilation, layer.groups]
        self.compute = ops._convolution_pointwise
        pack = ops._reorder_convolution_weight
        if isinstance(layer, nn.ConvTranspose2d):
            self.options.insert(1, layer.output_padding)
            self.compute = ops._convolution_transpose_pointwise
            pack = ops._reorder_convolution_transpose_weight
        weight = pack(layer.weight.detach().to(dtype), *self.options, [])
        bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return self.compute(x, self.weight, self.bias, *self.options, "none", [], "")


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


def for_sampling(network: nn.Module, half: bool) -> nn.Module:
    """Turn a network, on its device, into the form that samples fastest, in place; returns it.

    `half`: compute the convolutions in bfloat16. The network is put in evaluation mode, without
    gradients; it may return bfloat16.
    """
    network.requires_grad_(False)
    device = device_of(network)
    packed = device.type == "cpu" and can_pack(torch.bfloat16 if half else torch.float32)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Convolution):
                if packed:
                    dtype = torch.bfloat16 if half else layer.weight.dtype
                    setattr(parent, name, PackedConvolution(layer, dtype))
                elif half:
                    setattr(parent, name, CastConvolution(layer))
            elif isinstance(layer, nn.GroupNorm) and half and not packed:
                setattr(parent, name, CastGroupNorm(layer))
    return network.eval()


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
            packed = PackedConvolution(layer, dtype)(x).float()
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
