"""What each layer of a network reaches on this machine, in every way that it can be computed.

    python -m benchmarks.layers [--preset lecture] [--batch 32] [--float32]

GFLOP/s forward and backward (the gradients in the input and in the weight together), as PyTorch
computes the layer, in each other way, and in the fastest way of each of the three products. Then
the group norms, and whole training steps with PyTorch's layers and with the fastest, in turns.
Nothing is kept. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import nn

from benchmarks.timing import in_turns, machine, matrix_rate, median_seconds
from diffusion_core.device import has_fast_bfloat16
from diffusion_core.models.convolutions import DEPTH, GEMM, PLAIN, Way, Ways, set_ways
from diffusion_core.models.trace import trace
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.runs.presets import PRESETS, build_network, preset
from diffusion_core.training.layer_ways import Shape, faster, seconds, shapes

CPU = torch.device("cpu")
ROUNDS = 5


def rates(shape: Shape, times: list[dict[Way, float]], ways: Ways) -> str:
    """GFLOP/s forward/backward."""
    if any(way not in each for each, way in zip(times, ways, strict=True)):
        return f"{'–':>13}"
    forward, *backward = (each[way] for each, way in zip(times, ways, strict=True))
    speeds = shape.flop / forward / 1e9, 2 * shape.flop / sum(backward) / 1e9
    return f"{speeds[0]:6,.0f}/{speeds[1]:6,.0f}"


def print_convolutions(there: Mapping[str, Shape]) -> dict[Shape, Ways]:
    """A row per kind of layer; returns the ways that are chosen."""
    titles = ("PyTorch", "gemm", "depth", "chosen")
    print(f"{'GFLOP/s forward/backward':80}" + " ".join(f"{title:>13}" for title in titles))
    chosen = {}
    for shape, count in Counter(there.values()).items():
        times = seconds(shape)
        chosen[shape] = faster(times)
        each = [Ways(*[way] * 3) for way in (PLAIN, GEMM, DEPTH)]
        row = " ".join(rates(shape, times, ways) for ways in (*each, chosen[shape]))
        print(f"{f'{count} × {shape}':80}{row}", flush=True)
    return chosen


def print_norms(network: SimpleUnet | Unet, batch: int, size: int, dtype: torch.dtype) -> None:
    """Milliseconds of all group norms of a step together, by the order of the memory."""
    norms = {name: each for name, each in network.named_modules() if isinstance(each, nn.GroupNorm)}
    for order in (torch.contiguous_format, torch.channels_last) if norms else ():
        forward = backward = 0.0
        for row in trace(network, size).rows:
            if row.name in norms:
                x = torch.randn(batch, *row.inputs[0][1:]).to(dtype).contiguous(memory_format=order)
                names = {"x": x.requires_grad_(), "f": norms[row.name], "g": torch.autograd.grad}
                forward += median_seconds("f(x)", names)
                names["y"] = norms[row.name](x)
                backward += median_seconds("g(y, x, y, retain_graph=True)", names)
        print(f"group norms, {order}: {1000 * forward:.0f} + {1000 * backward:.0f} ms a step")


def step_of(
    network: SimpleUnet | Unet, batch: int, size: int, dtype: torch.dtype
) -> Callable[[], float]:
    """Returns a function that makes a bare training step and returns its seconds."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    x, t = torch.randn(batch, 3, size, size), torch.randint(300, (batch,))

    def step() -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = network(x, t)
        (y.float() - x).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    step()
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="lecture")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--float32", action="store_true")
    options = parser.parse_args()
    config, batch = preset(options.preset), options.batch
    size = config.image_size
    dtype = torch.float32 if options.float32 or not has_fast_bfloat16(CPU) else torch.bfloat16
    print(machine(CPU))
    print(f"matrices in {dtype}: {matrix_rate(CPU, dtype) / 1e9:,.0f} GFLOP/s")

    def network() -> SimpleUnet | Unet:
        built = build_network(config.network, config.network_args)
        wide = config.network == "lecture"
        return built.to(memory_format=torch.channels_last if wide else torch.contiguous_format)

    plain, fast = network(), network()
    there = shapes(plain, batch, size, dtype)
    chosen = print_convolutions(there)
    set_ways(
        fast, {name: chosen[shape] for name, shape in there.items() if chosen[shape] != Ways()}
    )
    print_norms(plain, batch, size, dtype)
    steps = {
        "PyTorch": step_of(plain, batch, size, dtype),
        "chosen": step_of(fast, batch, size, dtype),
    }
    found = in_turns(ROUNDS, steps)
    speeds = ", ".join(f"{name} {batch / each:.1f} images/s" for name, each in found.items())
    print(f"a bare step: {speeds}, {found['PyTorch'] / found['chosen']:.2f} × as fast")


if __name__ == "__main__":
    main()
