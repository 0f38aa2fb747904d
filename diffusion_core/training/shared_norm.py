"""BatchNorm of a batch that several processes share: its statistics are those of all images.

PyTorch's `SyncBatchNorm` does the same on GPUs alone, and waits in each layer until the GPU has
told how many images every process has. Here all have as many, which `check_share` sees to.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SharedBatchNorm(nn.BatchNorm2d):
    """Takes (B, C, H, W) in each process, with the same B, H and W in all."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, var = statistics(input)
        with torch.no_grad():
            values = dist.get_world_size() * input.numel() // input.shape[1]
            unbiased = var * (values / (values - 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked.add_(1)
        return _Normalize.apply(input, self.weight, self.bias, mean, var, self.eps)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of each channel of all processes' images, in float32."""
    # The second and third are only to be of the type that the results shall have.
    unused = torch.zeros(x.shape[1], device=x.device)
    own = torch.stack(torch.batch_norm_update_stats(x.detach(), unused, unused.clone(), 0.0))
    each = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(each, own)
    means, variances = torch.stack(each, dim=1)
    mean = means.mean(dim=0)
    return mean, (variances + (means - mean).square()).mean(dim=0)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Ioffe & Szegedy 2015, arXiv 1502.03167, section 3, with the sums over all processes."""
        x, weight, mean, var = ctx.saved_tensors
        # As if the statistics were constants: of weight and bias, whose sums the rest needs.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack((of_bias, of_weight))
        dist.all_reduce(sums)
        values = dist.get_world_size() * x.numel() // x.shape[1]
        scale = (var + ctx.eps).rsqrt()
        of_mean, of_scale = (weight * scale * each / values for each in sums)
        slope = scale * of_scale
        wide = [each[:, None, None] for each in (weight * scale, slope, of_mean - mean * slope)]
        of_x = (grad * wide[0] - x * wide[1] - wide[2]).to(x.dtype)
        return of_x, of_weight, of_bias, None, None, None


def share_norms(network: nn.Module) -> None:
    """Let every BatchNorm of the network take its statistics from all processes, in place."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = SharedBatchNorm
