"""Where the time of a training step of the lecture's network goes, and the machine's rates.

The rates say what bounds a speed: no trainer of this network is faster than its convolutions.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import SIZE, Clock, Job, our_config, replaced
from benchmarks.timing import matrix_rate, median_seconds
from diffusion_core.device import has_fast_bfloat16
from diffusion_core.runs.presets import build_model
from diffusion_core.training import batches
from diffusion_core.training import step as training_step
from diffusion_core.training.trainer import train

FORWARD, BACKWARD = "convolution, forward", "convolution, backward"
# Parts of the names of operations, or of what they are called from; the first that fits counts.
KINDS = (
    ("Optimizer.step", "optimizer"),
    ("benchmark: average", "averaged weights (EMA)"),
    ("benchmark: data", "data"),
    ("norm_backward", "batch norm"),
    ("convolution_backward", BACKWARD),
    ("conv", FORWARD),
    ("batch_norm", "batch norm"),
    ("_foreach_norm", "gradient norm"),
    ("vector_norm", "gradient norm"),
    ("relu", "ReLU"),
    ("threshold_backward", "ReLU"),
    ("copy_", "casts and copies"),
)
OTHER, OUTSIDE = "other operations", "between the operations"


class Flops(NamedTuple):
    """Floating-point operations of one image in a training step."""

    forward: int  # of the convolutions
    backward: int
    total: int


def lecture_flops() -> Flops:
    """Counted, not computed: on the meta device."""
    with torch.device("meta"):
        network = build_model("lecture")
        x, t = torch.empty(1, 3, SIZE, SIZE), torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        network(x, t).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    forward = sum(n for op, n in counts.items() if str(op) == "aten.convolution")
    backward = sum(n for op, n in counts.items() if str(op) == "aten.convolution_backward")
    return Flops(forward, backward, sum(counts.values()))


def convolution_rate(device: torch.device, dtype: torch.dtype, batch: int) -> float:
    """FLOP/s forward of a 3 x 3 convolution that the network has: 256 channels at 16 x 16."""
    x = torch.randn(batch, 256, 16, 16, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    x, weight = (v.to(memory_format=torch.channels_last) for v in (x, weight))
    values = {"f": torch.nn.functional.conv2d, "x": x, "w": weight}
    return 2 * batch * 256 * 256 * 9 * 16 * 16 / median_seconds("f(x, w, padding=1)", values)


def print_rates(device: torch.device, batch: int) -> None:
    dtypes = [torch.float32] + [torch.bfloat16] * has_fast_bfloat16(device)
    for dtype in dtypes:
        print(
            f"{str(dtype).removeprefix('torch.'):9} matrices "
            f"{matrix_rate(device, dtype) / 1e9:9,.0f} GFLOP/s, convolution forward "
            f"{convolution_rate(device, dtype, batch) / 1e9:9,.0f} GFLOP/s"
        )


def kind_of(names: list[str]) -> str:
    """The kind of work of an operation; `names`: its own and those that it was called from."""
    for part, kind in KINDS:
        if any(part in name for name in names):
            return kind
    return OTHER


def seconds_by_kind(events: list[FunctionEvent], device: torch.device) -> dict[str, float]:
    """The time that the operations themselves took, on the device that computes."""
    found: dict[str, float] = defaultdict(float)
    for event in events:
        names: list[str] = []
        above: FunctionEvent | None = event
        while above is not None:
            names.append(above.name)
            above = above.cpu_parent
        cuda = device.type == "cuda"
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        found[kind_of(names)] += own / 1e6
    return found


def profile_step(job: Job) -> None:
    """Print where the time of one step of our trainer goes."""
    device = torch.device(job.device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    profiler = profile(activities=activities)
    clock = Clock(job)

    def on_step(step: int, steps: int, loss: float | None) -> None:
        if step == job.warmup:
            profiler.start()
        clock.tick()
        if step == job.warmup + job.steps:
            profiler.stop()

    def marked(name: str, function: Callable) -> Callable:
        def call(*args: Any, **named: Any) -> Any:
            with record_function(f"benchmark: {name}"):
                return function(*args, **named)

        return call

    update = marked("average", training_step.update_average)
    with (
        tempfile.TemporaryDirectory() as folder,
        replaced("make_batch", marked("data", batches.make_batch)),
        mock.patch.object(training_step, "update_average", update),
    ):
        train(Path(folder) / "run", our_config("lecture", job), device=device, on_step=on_step)
    found = {k: v / job.steps for k, v in seconds_by_kind(profiler.events(), device).items()}
    step = clock.result()["seconds"] / job.steps
    found[OUTSIDE] = max(0.0, step - sum(found.values()))
    flops = lecture_flops()
    each = {FORWARD: flops.forward, BACKWARD: flops.backward}
    print(
        f"\nOne step of the lecture's network, batch {job.batch}, under the profiler: {step:.3f} s"
    )
    for kind, seconds in sorted(found.items(), key=lambda pair: -pair[1]):
        rate = ""
        if kind in each and seconds:
            rate = f"   {each[kind] * job.batch / seconds / 1e9:9,.0f} GFLOP/s"
        print(f"  {kind:24} {seconds:8.4f} s  {seconds / step:6.1%}{rate}")
    print_rates(device, job.batch)
