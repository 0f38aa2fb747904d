"""Muon (Jordan 2024; Liu et al. 2025, arXiv 2502.16982): steps of equal length in all directions.

The momentum of each convolution, as the matrix (out, in * height * width), is replaced by the
nearest matrix of which all singular values are about 1. Other weights, and those of the first and
the last layer, follow AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# The quintic of Newton and Schulz that Jordan 2024 tuned: fast to about 1, not exactly there.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Makes the root mean square of an update about that of AdamW's, so that both take one learning
# rate (Liu et al. 2025, section 2.2).
SCALE = 0.2
BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `matrices=True`, AdamW (Loshchilov & Hutter 2019) for the others.

    Where `found_inf` is 1, a step changes nothing, as PyTorch's fused optimizers have it; nothing
    waits for the device.
    """

    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "matrices": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all weights that have a gradient. `closure` is not used."""
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if not parameters:
                continue
            go = torch.ones((), device=parameters[0].device)
            if self.found_inf is not None:
                go = 1 - self.found_inf.to(go.device)
            # A broken gradient is taken as 0: times 0 it would still be NaN.
            gradients = [each.grad.where(go > 0, 0) for each in parameters]
            states = [self.state[each] for each in parameters]
            update = _muon_updates if group["matrices"] else _adam_updates
            changes = update(states, gradients, go)
            torch._foreach_add_(changes, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(changes, go * group["lr"])
            torch._foreach_sub_(parameters, changes)


def _muon_updates(
    states: list[dict[str, Any]], gradients: list[Tensor], go: Tensor
) -> list[Tensor]:
    for state, gradient in zip(states, gradients, strict=True):
        state.setdefault("momentum", torch.zeros_like(gradient))
    momenta = [state["momentum"] for state in states]
    _follow(momenta, gradients, (1 - MOMENTUM) * go)
    ahead = list(torch._foreach_lerp(gradients, momenta, MOMENTUM))  # as Nesterov
    by_shape: dict[torch.Size, list[int]] = {}
    for k, each in enumerate(ahead):
        by_shape.setdefault(each.flatten(1).shape, []).append(k)
    for shape, places in by_shape.items():  # matrices of a shape at once
        found = orthogonal(torch.stack([ahead[k].flatten(1) for k in places]))
        found *= SCALE * max(shape) ** 0.5
        for k, each in zip(places, found, strict=True):
            ahead[k] = each.reshape(gradients[k].shape)
    return ahead


def _follow(averages: list[Tensor], now: list[Tensor] | tuple[Tensor, ...], share: Tensor) -> None:
    """Move averages by a share (), which is 0 in a step that changes nothing, to their values."""
    torch._foreach_mul_(averages, 1 - share)
    torch._foreach_add_(averages, torch._foreach_mul(now, share))


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (k, n, m) with all their singular values moved to about 1, between 0.7 and 1.2.

    Five iterations of Newton and Schulz (Jordan 2024), x <- (a + b g + c g^2) x with g = x x^T.
    Here only g and the product of the factors are iterated, which are (n, n): of a convolution,
    where m is 9 n, a third of the work.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    product = torch.eye(x.shape[-2], device=x.device).expand_as(gram)
    for left in reversed(range(ITERATIONS)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product
        if left:
            gram = factor @ gram @ factor
    found = product @ x
    return found if wide else found.mT


def _adam_updates(
    states: list[dict[str, Any]], gradients: list[Tensor], go: Tensor
) -> list[Tensor]:
    for state, gradient in zip(states, gradients, strict=True):
        if not state:
            state["step"] = torch.zeros((), device=gradient.device)
            state["exp_avg"] = torch.zeros_like(gradient)
            state["exp_avg_sq"] = torch.zeros_like(gradient)
    first, second = BETAS
    means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
    torch._foreach_add_([state["step"] for state in states], go)
    _follow(means, gradients, (1 - first) * go)
    _follow(squares, torch._foreach_mul(gradients, gradients), (1 - second) * go)
    step = states[0]["step"].clamp(min=1)  # one for all: each gets a gradient in every step
    spreads = torch._foreach_sqrt(torch._foreach_div(squares, 1 - second**step))
    torch._foreach_add_(spreads, EPS)
    return list(torch._foreach_div(torch._foreach_div(means, 1 - first**step), spreads))


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The weights of a network: its convolutions between the first and the last layer, and the
    others. The linear layers, which only carry the timestep and the class, have a fifth of the
    weights and would take half of the time."""
    ends = ("stem", "conv0", "output")
    matrices = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and name not in ends
    ]
    chosen = {id(weight) for weight in matrices}
    others = [each for each in model.parameters() if id(each) not in chosen]
    return [{"params": matrices, "matrices": True}, {"params": others, "matrices": False}]
