"""A network's forward pass on one image: every block and layer in order, with shapes and cost.

The forward pass runs on PyTorch's `meta` device, which knows shapes and holds no numbers, so a
trace takes no memory and little time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_core.models.unet import (
    Block,
    ResidualBlock,
    SelfAttention,
    SimpleUnet,
    Unet,
    UnetBlock,
)
from diffusion_core.process.embedding import SinusoidalPositionEmbeddings

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TraceRow:
    """One block, layer or function of a forward pass with a batch of one."""

    name: str  # its path in the network, "downs.0.conv1"; a function's ends in its own name
    what: str
    depth: int  # 0: a block of the network; 1 and more: a part of the nearest row above with less
    inputs: tuple[Shape, ...]  # of the input tensors
    output: Shape
    parameters: int  # including its parts; a layer that is called again has none the second time
    multiply_adds: int  # including its parts
    skip_from: int | None = None  # of a concatenation: index of the second operand in Trace.rows

    @property
    def part(self) -> str:
        """The network's attribute that the row belongs to: "downs" of "downs.0.conv1"."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Trace:
    """A forward pass: `rows` in order of execution, a block before the layers inside it."""

    image: Shape  # (1, C, H, W), of the input and the output
    rows: tuple[TraceRow, ...]

    @property
    def blocks(self) -> tuple[TraceRow, ...]:
        """The rows of depth 0, whose parameters and multiply-adds are together the network's."""
        return tuple(row for row in self.rows if row.depth == 0)

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.blocks)

    @property
    def multiply_adds(self) -> int:
        """Of convolutions, linear layers and attention; elementwise operations are not counted.

        One multiply-add is two floating-point operations (FLOP).
        """
        return sum(row.multiply_adds for row in self.blocks)


def trace(network: SimpleUnet | Unet, image_size: int) -> Trace:
    """Trace one square image of `image_size` pixels through the network.

    The network may be on any device and in any mode, and is not changed. Raises ValueError for a
    size that the network cannot take.
    """
    network = on_meta(network).eval()
    recorder = _Recorder(network)
    x = torch.empty(1, network.channels, image_size, image_size, device="meta")
    t = torch.zeros(1, dtype=torch.int64, device="meta")
    with torch.no_grad(), recorder.counter, recorder:
        network(x, t)
    return Trace(tuple(x.shape), tuple(recorder.rows))


def on_meta(network: SimpleUnet | Unet) -> SimpleUnet | Unet:
    """A copy on the `meta` device; no values are copied or moved."""
    shapes: dict[int, Any] = {}
    for parameter in network.parameters():
        shapes[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for buffer in network.buffers():
        shapes[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, shapes)


class _Counter(TorchDispatchMode):
    """Counts multiply-adds with PyTorch's formulas.

    FlopCounterMode does the same, but its hooks on every module of the process would also affect
    sampling and training in other threads.
    """

    def __init__(self) -> None:
        # Here, because it imports Triton, which takes 80 MB: not before a network is traced.
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.formulas = flop_registry
        self.multiply_adds = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if formula := self.formulas.get(func._overloadpacket):
            self.multiply_adds += formula(*args, **kwargs, out_val=result) // 2
        return result


class _Recorder(TorchFunctionMode):
    """Records a row for every module that is called, and for the functions called in between."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.counter = _Counter()
        self.rows: list[TraceRow] = []
        self.open: list[tuple[int, nn.Module, int]] = []  # row, module, multiply-adds before it
        self.counted: set[int] = set()  # ids of parameters that a row already has
        self.blocks: list[tuple[int, Tensor]] = []  # rows of depth 0 and their outputs
        for name, module in network.named_modules():
            if module is network or isinstance(module, nn.ModuleList | nn.Identity):
                continue
            module.register_forward_pre_hook(self._enter(name))
            module.register_forward_hook(self._leave)

    def _enter(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            own = {id(p): p.numel() for p in module.parameters() if id(p) not in self.counted}
            if not any(module.children()):
                self.counted |= own.keys()
            row = TraceRow(
                name=name,
                what=describe(module),
                depth=len(self.open),
                inputs=_shapes(args),
                output=(),  # known when it leaves
                parameters=sum(own.values()),
                multiply_adds=0,
            )
            self.open.append((len(self.rows), module, self.counter.multiply_adds))
            self.rows.append(row)

        return enter

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        index, _, before = self.open.pop()
        self.rows[index] = replace(
            self.rows[index],
            output=tuple(output.shape),
            multiply_adds=self.counter.multiply_adds - before,
        )
        self._remember(index, output)

    def _remember(self, index: int, output: Tensor) -> None:
        if not self.open:
            self.blocks.append((index, output))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        before = self.counter.multiply_adds
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        inside_layer = bool(self.open) and not any(self.open[-1][1].children())
        if name not in FUNCTIONS or inside_layer:
            return result
        name, what = FUNCTIONS[name]
        operands = args[0] if isinstance(args[0], list | tuple) else args
        source = None
        if name == "cat":
            [source] = [index for index, output in self.blocks if output is operands[1]]
            what += "itself" if operands[0] is operands[1] else self.rows[source].name
        block = f"{self.rows[self.open[-1][0]].name}." if self.open else ""
        row = TraceRow(
            name=block + name,
            what=what,
            depth=len(self.open),
            inputs=_shapes(operands),
            output=tuple(result.shape),
            parameters=0,
            multiply_adds=self.counter.multiply_adds - before,
            skip_from=source,
        )
        self._remember(len(self.rows), result)
        self.rows.append(row)
        return result


# Functions with their own row, by PyTorch's name.
FUNCTIONS = {
    "cat": ("cat", "concatenated with "),
    "silu": ("silu", "SiLU"),
    "pixel_unshuffle": ("pixel_unshuffle", "pixels folded into channels"),
    "pixel_shuffle": ("pixel_shuffle", "channels unfolded into pixels"),
    "scaled_dot_product_attention": ("softmax", "every pixel attends to every other"),
    "__getitem__": ("time_term", "one number per channel, for every pixel"),
}


def describe(module: nn.Module) -> str:
    """A short description of a module."""
    match module:
        case nn.ConvTranspose2d():
            return f"{_kernel(module)} transposed convolution, doubles height and width"
        case nn.Conv2d():
            halves = ", halves height and width" if module.stride == (2, 2) else ""
            return f"{_kernel(module)} convolution{halves}"
        case nn.Linear():
            return "linear"
        case nn.Embedding():
            return "one row per class"
        case nn.BatchNorm2d():
            return "batch norm"
        case nn.GroupNorm():
            return f"group norm, {module.num_groups} groups"
        case nn.ReLU() | nn.SiLU():
            return type(module).__name__
        case nn.Upsample():
            return "doubles height and width"
        case SinusoidalPositionEmbeddings():
            return "sines and cosines of t"
        case Block():
            return "up block" if isinstance(module.transform, nn.ConvTranspose2d) else "down block"
        case UnetBlock():
            attends = isinstance(module.attention, SelfAttention)
            return "residual block, self-attention" if attends else "residual block"
        case ResidualBlock():
            return "residual block"
        case SelfAttention():
            return f"self-attention, heads: {module.heads}"
        case nn.Sequential():
            if isinstance(module[0], SinusoidalPositionEmbeddings):
                return "time embedding"
            return ", then ".join(describe(part) for part in module)
    return type(module).__name__


def _kernel(module: nn.Conv2d | nn.ConvTranspose2d) -> str:
    height, width = module.kernel_size
    return f"{height}×{width}"


def _shapes(values: Sequence[Any]) -> tuple[Shape, ...]:
    return tuple(tuple(value.shape) for value in values if isinstance(value, Tensor))
