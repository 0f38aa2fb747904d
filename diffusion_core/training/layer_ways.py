"""The fastest way to compute each wide layer of a network on this CPU, measured once and kept.

`layers.json` beside the decoded images holds what was found, by machine and layer.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import filelock
import torch
from pydantic import Field
from torch import Tensor, nn

from diffusion_core.data.cache import default_cache_dir
from diffusion_core.files import write_json
from diffusion_core.models.convolutions import (
    DEPTH,
    GEMM,
    PLAIN,
    Convolution,
    Geometry,
    Way,
    Ways,
    geometry_of,
    grow,
    shrink,
    weight,
)
from diffusion_core.models.trace import trace
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.records import LenientRecord, RecordError, read_record_file

FILE = "layers.json"
LEAST = 10**9  # floating-point operations of a product that is worth a measurement
FEW_PIXELS = 64  # of the smaller side, up to which a product of matrices may be the fastest
GAIN = 0.9  # part of the plain way's time that another must stay below
MOST_IMAGES = 32  # of a measurement: what is fastest for these is so for more
HOPELESS = 1.5  # times the fastest: a way that takes longer is not tried again
REPEATS = 3


class LayersFile(LenientRecord):
    """The ways of each layer, by machine and shape."""

    machines: dict[str, dict[str, Ways]] = Field(default_factory=dict)


class Shape(NamedTuple):
    """A layer with the batch that it gets; layers of one shape are equally fast in each way."""

    transposed: bool
    geometry: Geometry
    channels: int
    sides: tuple[int, int]  # of the input
    out: int  # channels of the output
    batch: int
    dtype: torch.dtype
    channels_last: bool

    @property
    def small_pixels(self) -> int:
        """Of an image on the smaller side."""
        height, width = self.sides
        if not self.transposed:
            height, width = height // self.geometry.stride, width // self.geometry.stride
        return height * width

    @property
    def flop(self) -> int:
        """Of each of its three products."""
        pairs = self.geometry.kernel**2 * self.channels * self.out
        return 2 * self.batch * self.small_pixels * pairs

    def __str__(self) -> str:
        kernel, stride, padding = self.geometry
        kind = "transposed " if self.transposed else ""
        order = ", channels last" if self.channels_last else ""
        return (
            f"{kind}{kernel}x{kernel} stride {stride} padding {padding}, {self.channels} to "
            f"{self.out} channels, {self.batch} x {self.sides[0]} x {self.sides[1]}, "
            f"{str(self.dtype).removeprefix('torch.')}{order}"
        )


def shapes(
    network: SimpleUnet | Unet, batch: int, image_size: int, dtype: torch.dtype
) -> dict[str, Shape]:
    """The square convolutions of a network by name, each with what it gets of a batch."""
    found = {}
    layers = {name: each for name, each in network.named_modules() if isinstance(each, Convolution)}
    for row in trace(network, image_size).rows:
        if (layer := layers.get(row.name)) is None or row.name in found:
            continue
        height, width = row.inputs[0][2:]
        found[row.name] = Shape(
            transposed=isinstance(layer, nn.ConvTranspose2d),
            geometry=geometry_of(layer),
            channels=layer.in_channels,
            sides=(height, width),
            out=layer.out_channels,
            batch=batch,
            dtype=dtype,
            channels_last=layer.weight.is_contiguous(memory_format=torch.channels_last),
        )
    return found


def possible(shape: Shape) -> tuple[Way, ...]:
    """The ways that a layer can be computed in, those left out that cannot be the fastest."""
    kernel, stride, _ = shape.geometry
    if shape.flop < LEAST or kernel == 1:
        return (PLAIN,)
    ways: list[Way] = [PLAIN]
    if stride > 1 or shape.small_pixels <= FEW_PIXELS:
        ways.append(GEMM)
    if stride == 2 and kernel % 2 == 0 and not any(side % 2 for side in shape.sides):
        ways.append(DEPTH)
    return tuple(ways)


def _is_wide(network: nn.Module, batch: int, image_size: int) -> bool:
    """Whether a layer has enough work, if it got whole images; quick for the many that have not."""
    layers = (each for each in network.modules() if isinstance(each, Convolution))
    pairs = max(layer.weight.numel() for layer in layers)
    return 2 * batch * image_size**2 * pairs >= LEAST


def _can(shape: Shape | None, ways: Ways | None) -> bool:
    """Whether a file has ways for a layer of a network, and such that it can be computed in."""
    return shape is not None and ways is not None and set(ways) <= set(possible(shape))


def seconds(shape: Shape) -> list[dict[Way, float]]:
    """What the three products of a layer take, forward first: each by the way."""
    order = torch.channels_last if shape.channels_last else torch.contiguous_format
    height, width = shape.sides
    step, padding, kernel = shape.geometry.stride, shape.geometry.padding, shape.geometry.kernel
    if shape.transposed:
        outside = [(side - 1) * step - 2 * padding + kernel for side in shape.sides]
    else:
        outside = [(side + 2 * padding - kernel) // step + 1 for side in shape.sides]

    generator = torch.Generator().manual_seed(0)  # that of training stays where it is

    def random(*size: int) -> Tensor:
        return (
            torch.randn(size, generator=generator).to(shape.dtype).contiguous(memory_format=order)
        )

    given = random(shape.batch, shape.channels, height, width)
    result = random(shape.batch, shape.out, *outside)
    large, small = (result, given) if shape.transposed else (given, result)
    w = random(small.shape[1], large.shape[1], kernel, kernel)
    geometry, sides = shape.geometry, (large.shape[2], large.shape[3])
    products: list[Callable[[Way], Tensor]] = [
        lambda way: shrink(large, w, geometry, way),
        lambda way: grow(small, w, geometry, way, sides),
    ]
    if shape.transposed:
        products.reverse()
    products.append(lambda way: weight(large, small, w, geometry, way))
    return [_least(product, possible(shape)) for product in products]


def _least(product: Callable[[Way], Tensor], ways: Sequence[Way]) -> dict[Way, float]:
    """The shortest time of each way; they take turns, so that what disturbs one disturbs all."""
    found: dict[Way, float] = {}
    for repeat in range(REPEATS + 1):
        for way in ways:
            if found.get(way, 0.0) > HOPELESS * min(found.values(), default=0.0):
                continue
            began = time.perf_counter()
            product(way)
            taken = time.perf_counter() - began
            if repeat:  # the first prepares what the others use
                found[way] = min(taken, found.get(way, taken))
    return found


def faster(times: list[dict[Way, float]]) -> Ways:
    """The ways to choose by what they take; another than the plain one has to be worth it."""
    chosen = []
    for each in times:
        best: Way = min(each, key=each.__getitem__)
        chosen.append(best if each[best] < GAIN * each[PLAIN] else PLAIN)
    return Ways(*chosen)


def fastest(shape: Shape) -> Ways:
    """Measured now."""
    return faster(seconds(shape))


def fastest_ways(
    network: SimpleUnet | Unet,
    batch: int,
    image_size: int,
    dtype: torch.dtype,
    known: dict[str, Ways] | None = None,
    folder: Path | None = None,
) -> dict[str, Ways]:
    """By the name of a layer, how it is computed fastest on this machine; without the plain ones.

    `batch`, `image_size`, `dtype`: what the network gets and computes in. `known`: those of a run
    that goes on; nothing is measured then. `folder`: of the file, else the usual one. What no run
    has measured before is measured, some seconds for a wide network; where that cannot be kept, the
    next run measures again.
    """
    if not _is_wide(network, min(batch, MOST_IMAGES), image_size):
        return {}
    wanted = {
        name: shape
        for name, shape in shapes(network, min(batch, MOST_IMAGES), image_size, dtype).items()
        if len(possible(shape)) > 1
    }
    if known is not None:
        return {name: ways for name, ways in known.items() if _can(wanted.get(name), ways)}
    if not wanted:
        return {}
    ways = _known_or_measured(set(wanted.values()), (folder or default_cache_dir()) / FILE)
    return {name: ways[shape] for name, shape in wanted.items() if ways[shape] != Ways()}


def _known_or_measured(wanted: set[Shape], path: Path) -> dict[Shape, Ways]:
    lock = filelock.FileLock(path.with_name(f".{FILE}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes of a run ask at once, and would disturb each other's measurement.
        lock.acquire()
    except OSError:  # a folder that cannot be written to
        return {shape: fastest(shape) for shape in wanted}
    with lock:
        machines = _read(path)
        known = machines.setdefault(this_machine(), {})
        new = {shape: fastest(shape) for shape in wanted if not _can(shape, known.get(str(shape)))}
        known |= {str(shape): ways for shape, ways in new.items()}
        if new:
            with suppress(OSError):  # the next run measures again
                write_json(path, {"machines": machines})
        return {shape: known[str(shape)] for shape in wanted}


def _read(path: Path) -> dict[str, dict[str, Ways]]:
    try:
        file = read_record_file(LayersFile, path)
    except RecordError:  # measured again
        return {}
    return {} if file is None else dict(file.machines)


def this_machine() -> str:
    """What a measurement depends on."""
    held = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    return (
        f"{socket.gethostname()}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"oneDNN {held}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
