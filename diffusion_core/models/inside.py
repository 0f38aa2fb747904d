"""A network from the inside, on one image: activations, attention, skips, gradients and time.

All functions work on a twin of the network: the same tensors with hooks of its own, so that whoever
uses the network at the same time is not disturbed. Networks are in evaluation mode, in plain
float32 or float64 (`load_model` with `exact`), not in the form that samples fastest.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_core.device import device_of
from diffusion_core.models.trace import Trace, on_meta
from diffusion_core.models.unet import SelfAttention, SimpleUnet, Unet
from diffusion_core.process.objective import predict_epsilon, predict_x_0
from diffusion_core.process.schedule import Schedule

AnyModule = TypeVar("AnyModule", bound=nn.Module)

WHOLE = ""  # the name of the network itself among its blocks
# Of so few channels each is followed back; of more, random mixtures of them.
FEW_CHANNELS, PROBES = 8, 8
BINS = 60  # of a histogram
MOST_PIXELS = 2**18  # of the feature maps of a block, together


class Given(NamedTuple):
    """What a network is given: one noisy image, its timestep, its class if it takes one."""

    x: Tensor  # (1, C, H, W)
    t: Tensor  # (1,), integers
    labels: Tensor | None = None  # (1,), integers


@dataclass(frozen=True, eq=False)
class Histogram:
    """How values are spread; those that are not finite are only counted."""

    edges: np.ndarray  # (BINS + 1,), from the smallest to the largest
    counts: np.ndarray  # (BINS,)
    mean: float
    std: float
    zeros: int  # exactly 0
    not_finite: int

    @property
    def values(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class Skip:
    """A skip connection: what `source` hands on is joined to what goes into `target`."""

    source: str
    target: str
    channels: int  # the last ones of the target's input


@dataclass(frozen=True, eq=False)
class Effect:
    """What a network predicts without a skip, and how far that is from the whole network's: root
    mean squares, not finite where the timestep leaves nothing of the image or the noise."""

    skip: Skip | None  # None: the whole network
    x_0: Tensor  # (1, C, H, W)
    epsilon: Tensor  # (1, C, H, W)
    x_0_error: float
    epsilon_error: float


def twin(network: AnyModule) -> AnyModule:
    """The same network with the same tensors, in evaluation mode, whose hooks are its own."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}).eval()


def blocks_of(network: nn.Module) -> list[str]:
    """The blocks as paths, in the order in which the network has them: `Trace.blocks` that have
    parameters."""
    names = []
    for name, child in network.named_children():
        parts = range(len(child)) if isinstance(child, nn.ModuleList) else None
        names += [name] if parts is None else [f"{name}.{k}" for k in parts]
    return [name for name in names if any(True for _ in network.get_submodule(name).parameters())]


# ---------------------------------------------------------------- values


def output_of(network: nn.Module, given: Given, block: str) -> Tensor:
    """What a block hands on: (1, K, h, w), or (1, K) of an embedding."""
    network, found = twin(network), []
    network.get_submodule(block).register_forward_hook(lambda *call: found.append(call[-1]))
    with torch.no_grad():
        network(*given)
    return found[0]


def histogram_of(*tensors: Tensor) -> Histogram:
    """The histogram of all values of the tensors."""
    values = torch.cat([tensor.detach().flatten().float().cpu() for tensor in tensors])
    finite = values[values.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if low == high:  # a bin needs a width
        low, high = low - 0.5, high + 0.5
    return Histogram(
        edges=np.linspace(low, high, BINS + 1),
        counts=torch.histc(finite, BINS, low, high).long().numpy(),
        mean=float(finite.mean()) if len(finite) else 0.0,
        std=float(finite.std(correction=0)) if len(finite) else 0.0,
        zeros=int((finite == 0).sum()),
        not_finite=len(values) - len(finite),
    )


def feature_maps(activation: Tensor, most: int) -> tuple[list[int], np.ndarray]:
    """Of (1, K, h, w) the `most` channels that vary most, in their order: their numbers, and their
    maps as uint8 (n, h, w), each scaled so that 0 is 128 and its largest magnitude 1 or 255.

    There are fewer where they would have more than MOST_PIXELS together.
    """
    maps = activation[0].detach().float().nan_to_num(0.0, 0.0, 0.0)
    most = min(most, max(1, MOST_PIXELS // maps[0].numel()))
    varying = maps.flatten(1).std(dim=1, correction=0)
    channels = sorted(varying.argsort(descending=True, stable=True)[:most].tolist())
    maps = maps[channels]
    peaks = maps.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return channels, (128 + 127 * maps / peaks).round().byte().cpu().numpy()


# ---------------------------------------------------------------- attention


def attention_in(network: nn.Module, block: str) -> SelfAttention | None:
    """The self-attention of a block, if it has one."""
    parts = network.get_submodule(block).modules()
    return next((part for part in parts if isinstance(part, SelfAttention)), None)


def attention_weights(
    network: nn.Module, given: Given, block: str, pixel: tuple[int, int]
) -> Tensor:
    """Where the position of a pixel (row, column) attends to in a block with self-attention:
    (heads, h, w), each head's sum 1. That is its row of softmax(Q K^T / sqrt(d)).
    """
    network, found = twin(network), []
    attention = attention_in(network, block)
    assert attention is not None
    attention.qkv.register_forward_hook(lambda *call: found.append(call[-1]))
    with torch.no_grad():
        network(*given)
    qkv = found[0][0]  # (3 K, h, w)
    height, width = qkv.shape[-2:]
    row, column = cell_of(network, given.x, pixel, height, width)
    # (3, heads, positions, d)
    q, k, _ = qkv.reshape(3, attention.heads, -1, height * width).transpose(-1, -2)
    own = q[:, row * width + column, :, None]  # (heads, d, 1)
    scores = (k @ own)[..., 0] / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1).reshape(-1, height, width)


def cell_of(
    network: nn.Module, x: Tensor, pixel: tuple[int, int], height: int, width: int
) -> tuple[int, int]:
    """The cell (row, column) of a block's output, height x width, that a pixel of x lies in."""
    # The lecture's network pads its input on the right and at the bottom.
    whole = 2**network.halvings if isinstance(network, SimpleUnet) else 1
    rows, columns = (-(-side // whole) * whole for side in x.shape[-2:])
    return pixel[0] * height // rows, pixel[1] * width // columns


# ---------------------------------------------------------------- skips


def skips_of(trace: Trace) -> list[Skip]:
    """The skip connections in the order in which they are joined: the deepest first."""
    found = []
    for joined, target in zip(trace.blocks, trace.blocks[1:], strict=False):
        if joined.skip_from is not None:
            source = trace.rows[joined.skip_from].name
            found.append(Skip(source, target.name, joined.inputs[1][1]))
    return found


def predict_without(network: nn.Module, given: Given, skip: Skip | None) -> Tensor:
    """The prediction, shape of x, where zeros come by that skip; None: the whole network's."""
    network = twin(network)
    if skip is not None:
        channels = skip.channels

        def zero(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            x = args[0].clone()
            x[:, -channels:] = 0
            return (x, *args[1:])

        network.get_submodule(skip.target).register_forward_pre_hook(zero)
    with torch.no_grad():
        return network(*given)


def effects_of_skips(
    network: nn.Module,
    given: Given,
    schedule: Schedule,
    prediction_type: str,
    skips: Sequence[Skip],
) -> Generator[int, None, list[Effect]]:
    """Switch each skip off alone; the whole network's prediction comes first. Yields how many
    predictions are made."""
    found: list[Effect] = []
    for skip in (None, *skips):
        prediction = predict_without(network, given, skip)
        where = given.x, given.t, prediction, prediction_type
        x_0, epsilon = predict_x_0(schedule, *where), predict_epsilon(schedule, *where)
        whole = found[0] if found else Effect(None, x_0, epsilon, 0.0, 0.0)
        errors = _rms(x_0 - whole.x_0), _rms(epsilon - whole.epsilon)
        found.append(Effect(skip, x_0, epsilon, *errors))
        yield len(found)
    return found


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


# ---------------------------------------------------------------- gradients


def gradient_map(network: nn.Module, given: Given, block: str, pixel: tuple[int, int]) -> Tensor:
    """How much the input's pixels move one position of a block's output: (H, W), never negative.

    The root of the sum of squares of d output / d input over the channels of both. Of more than
    FEW_CHANNELS output channels it is estimated, without bias in the squares, from PROBES random
    signs of each channel, always the same. `block`: WHOLE for the prediction; `pixel` (row, column)
    of the input lies in the position.
    """
    network, found = twin(network), []
    network.get_submodule(block).register_forward_hook(lambda *call: found.append(call[-1]))
    with torch.enable_grad():
        x = given.x.detach().clone().requires_grad_()
        network(x, *given[1:])
        output = found[0][0]  # (K, h, w)
        cell = pixel
        if block != WHOLE:
            cell = cell_of(network, x, pixel, *output.shape[-2:])
        values = output[:, *cell]
        squares = torch.zeros_like(x[0, 0])
        mixtures = _mixtures(len(values)).to(values)
        for mixture in mixtures:
            [gradient] = torch.autograd.grad(values @ mixture, x, retain_graph=True)
            squares += gradient[0].square().sum(dim=0)
    return squares.sqrt()


def _mixtures(channels: int) -> Tensor:
    """Weights of channels, (n, channels): each alone, or random signs of all."""
    if channels <= FEW_CHANNELS:
        return torch.eye(channels)
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 2, (PROBES, channels), generator=generator) * 2 - 1) / PROBES**0.5


def reach(gradient: np.ndarray) -> tuple[int, int]:
    """Height and width of the smallest rectangle with all pixels of (H, W) that are not 0."""
    sides = [np.flatnonzero(gradient.any(axis=axis)) for axis in (1, 0)]
    height, width = (int(side[-1] - side[0] + 1) if len(side) else 0 for side in sides)
    return height, width


def side_holding(gradient: np.ndarray, centre: tuple[int, int], share: float) -> int:
    """The side of the smallest square around a pixel that holds a share of the sum of (H, W).

    What lies outside the image counts as 0.
    """
    rows, columns = np.indices(gradient.shape)
    distance = np.maximum(abs(rows - centre[0]), abs(columns - centre[1]))
    within = np.cumsum(np.bincount(distance.ravel(), gradient.ravel()))
    return 2 * int(np.searchsorted(within, share * within[-1])) + 1


# ---------------------------------------------------------------- time and memory


def block_seconds(
    network: nn.Module, given: Given, repeats: int = 5, most_seconds: float = 2.0
) -> dict[str, float]:
    """Seconds of each block in a forward pass without gradients, and of WHOLE: the median of at
    most `repeats` passes after one that is not counted.

    No further pass begins after `most_seconds`.
    """
    network = twin(network)
    seconds: dict[str, list[float]] = {}
    begun: dict[str, float] = {}
    device = device_of(network)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def watch(name: str) -> None:
        def begin(*_: Any) -> None:
            begun[name] = now()

        def end(*_: Any) -> None:
            seconds.setdefault(name, []).append(now() - begun[name])

        module = network.get_submodule(name)
        module.register_forward_pre_hook(begin)
        module.register_forward_hook(end)

    for name in (WHOLE, *blocks_of(network)):
        watch(name)
    until = time.perf_counter() + most_seconds
    with torch.no_grad():
        network(*given)
        first, seconds = seconds, {}
        while len(seconds.get(WHOLE, ())) < repeats and time.perf_counter() < until:
            network(*given)
    return {name: median(found) for name, found in (seconds or first).items()}


def kept_bytes(network: SimpleUnet | Unet, image_size: int) -> dict[str, int]:
    """Bytes that a training step keeps of each block for the backward pass, for one image.

    Each tensor counts once, where it is first needed; weights do not count. Nothing is computed:
    the pass runs on the device "meta", in the network's precision.
    """
    network = on_meta(network).train()
    seen: dict[int, Any] = {p.untyped_storage()._cdata: p for p in network.parameters()}
    seen |= {b.untyped_storage()._cdata: b for b in network.buffers()}
    kept = dict.fromkeys(blocks_of(network), 0)
    inside = [WHOLE]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen[storage._cdata] = tensor  # also so that no other gets its place
            kept[inside[-1]] = kept.get(inside[-1], 0) + storage.nbytes()
        return tensor

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    for name in blocks_of(network):
        network.get_submodule(name).register_forward_pre_hook(enter(name))
        network.get_submodule(name).register_forward_hook(lambda *_: [inside.pop(), None][1])
    x = torch.empty(2, network.channels, image_size, image_size, device="meta")
    t = torch.zeros(2, dtype=torch.int64, device="meta")
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        network(x, t)
    return {name: number // 2 for name, number in kept.items()}
