"""Where NaN or infinity came from: the first layer that has it in a step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from diffusion_core.runs.presets import build_network
from diffusion_core.training.context import TrainingContext
from diffusion_core.training.shared_norm import SharedBatchNorm
from diffusion_core.training.step import batch_of, objective


def first_layer(context: TrainingContext, step: int) -> str:
    """The first layer with NaN or infinity in the step whose weights `context` still has.

    Repeats the step and checks the weights, output and gradient of every layer.
    """
    model = _alone(context)
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the weights of the layer {name.rpartition('.')[0]}"
    batch = batch_of(context, step)
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def look_back(gradient: Tensor) -> None:
            if not bool(gradient.isfinite().all()):
                found.append(f"the gradient of the layer {name}")

        def look(module: nn.Module, args: object, output: Tensor) -> None:
            if not bool(output.isfinite().all()):
                found.append(f"the output of the layer {name}")
            elif output.requires_grad:
                output.register_hook(look_back)

        return look

    leaves = [(n, m) for n, m in model.named_modules() if n and not list(m.children())]
    hooks = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        for first in range(0, len(batch.t), context.micro_batch):
            part = batch.part(first, context.micro_batch)
            with context.accelerator.autocast():
                weighted, _ = objective(context, model, part)
            weighted.mean().backward()
            if found:
                return found[0]
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                return f"the gradient of the layer {name.rpartition('.')[0]}"
    finally:
        for hook in hooks:
            hook.remove()
        context.optimizer.zero_grad(set_to_none=True)
    return "the sum over the batch"


def _alone(context: TrainingContext) -> nn.Module:
    """The network, or a copy without a BatchNorm that waits for the other processes: they do not
    search."""
    model = context.bare_model
    if not any(isinstance(layer, SharedBatchNorm) for layer in model.modules()):
        return model
    alone = build_network(context.config.network, context.config.network_args)
    alone.load_state_dict(model.state_dict())
    return alone.to(context.device)
