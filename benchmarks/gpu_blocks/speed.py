"""How fast the device trains and samples, and how much of it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_blocks.report import Report, Setting
from benchmarks.gpu_blocks.steps import (
    sampling_options,
    settings,
    shrunk,
    training,
    training_flops,
)
from benchmarks.timing import matrix_rate
from diffusion_core.device import has_fast_bfloat16
from diffusion_core.models.inference import for_sampling
from diffusion_core.runs.checkpoint import network_of
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_network, build_schedule, preset
from diffusion_core.sampling.sample import sample
from diffusion_core.training.step import one_step

SHARE = 0.45  # of the measured rate of bfloat16: the goal for the lecture's network
LATENCY = 0.1  # seconds: the goal for 64 samples of it in 20 steps
STEPS = 20
Span = tuple[float, float]


def training_rate(setting: Setting, report: Report) -> None:
    dtype = torch.bfloat16 if has_fast_bfloat16(setting.device) else torch.float32
    best = matrix_rate(setting.device, dtype)
    report("matrices", f"{best / 1e12:.2f} TFLOP/s in {dtype}")
    for name in ("lecture", "small", "base"):
        with report.part(name):
            batch = 2 if setting.quick else preset(name).batch_size
            config = shrunk(settings(name, batch_size=batch, data="cars:512"), setting)
            steps = setting.choose(50, 1)
            with training(config, setting.device) as context:
                done = setting.choose(10, 1)  # cuDNN chooses its kernels
                for step in range(done):
                    one_step(context, step + 1)

                def work(steps: int = steps, first: int = done + 1) -> None:
                    for step in range(first, first + steps):
                        one_step(context, step)

                seconds = setting.seconds(work) / steps
                share = training_flops(config) * batch / seconds / best
                report(
                    f"{name}, batch {batch}",
                    f"{1000 * seconds:.1f} ms a step, {batch / seconds:,.0f} images/s, "
                    f"{share:.0%} of the matrices' rate",
                    f"{SHARE:.0%}" if name == "lecture" else "",
                )
                if setting.device.type == "cuda":
                    profile_steps(lambda: work(3), name, report)


def profile_steps(work: Callable[[], None], name: str, report: Report) -> None:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    kernels = [
        each
        for each in profiler.events()
        if each.device_type == DeviceType.CUDA and not each.is_user_annotation
    ]
    share, gaps = busy([(each.time_range.start, each.time_range.end) for each in kernels])
    longest = ", ".join(f"{gap:,.0f}" for gap in gaps[:3])
    report(
        f"{name}, profiled",
        f"{len(kernels) / 3:,.0f} operations a step, busy {share:.0%} of the time, longest gaps "
        f"{longest} µs",
    )


def busy(spans: Sequence[Span]) -> tuple[float, list[float]]:
    """The share of the time from first to last in which something ran, and the gaps, longest first.

    Spans may lie in each other.
    """
    if not spans:
        return 0.0, []
    ordered = sorted(spans)
    end, gaps = ordered[0][0], []
    for start, stop in ordered:
        if start > end:
            gaps.append(start - end)
        end = max(end, stop)
    whole = end - ordered[0][0]
    return 1 - sum(gaps) / whole if whole else 0.0, sorted(gaps, reverse=True)


class Graphed(nn.Module):
    """A network whose evaluation is one CUDA graph, for inputs of one shape."""

    def __init__(self, network: nn.Module, x: Tensor, t: Tensor) -> None:
        super().__init__()
        self.network = network  # its weights, which `device_of` looks for
        self.x, self.t = x.clone(), t.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(3):
                network(self.x, self.t)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph), torch.inference_mode():
            self.y = network(self.x, self.t)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.x.copy_(x)
        self.t.copy_(t)
        self.graph.replay()
        return self.y


def network_for(config: RunConfig, device: torch.device, *, exact: bool = False) -> nn.Module:
    """With random weights: a speed does not depend on them."""
    torch.manual_seed(0)
    weights = build_network(config.network, config.network_args).state_dict()
    network = network_of(config, weights, device)
    if exact:
        return network
    return for_sampling(network, has_fast_bfloat16(device), config.image_shape)


def latency(setting: Setting, report: Report) -> None:
    device, n, steps = setting.device, setting.choose(64, 2), setting.choose(STEPS, 2)
    for name in ("lecture", "small"):
        config = shrunk(preset(name), setting)
        schedule = build_schedule(config).to(device)
        usual = sampling_options(config)

        def seconds(
            network: nn.Module,
            n: int = n,
            sampler: str = "dpmpp_2m",
            steps: int = steps,
            **more: Any,
        ) -> float:
            given = usual | more  # noqa: B023
            return setting.seconds(
                lambda: sample(network, schedule, n, sampler, steps, **given)  # noqa: B023
            )

        what = f"{name}, {n} samples in {steps} steps"
        network = network_for(config, device)
        with report.part(what):
            first, second = (in_a_thread(lambda: seconds(network)) for _ in range(2))  # noqa: B023
            warm = min(seconds(network) for _ in range(setting.choose(5, 1)))
            report(
                what,
                f"first press {1000 * first:.0f} ms, second (a new thread) {1000 * second:.0f} ms, "
                f"warm {1000 * warm:.0f} ms",
                f"{1000 * LATENCY:.0f} ms warm" if name == "lecture" else "",
            )
            one = min(seconds(network, n=1) for _ in range(setting.choose(5, 1)))
            report(f"{name}, one sample", f"warm {1000 * one:.0f} ms")
        with report.part(f"{name}, DDPM"):
            every = setting.choose(300, 2)
            ddpm = seconds(network, sampler="ddpm", steps=every)
            ddim = seconds(network, sampler="ddim", steps=every)
            report(
                f"{name}, {n} samples in {every} steps",
                f"DDPM {ddpm:.2f} s, DDIM, which draws no noise, {ddim:.2f} s",
            )
        x = torch.randn(n, *config.image_shape, device=device)
        t = torch.zeros(n, dtype=torch.long, device=device)
        if device.type == "cuda":
            with report.part(f"{name}, as a CUDA graph"):
                graphed = Graphed(network, x, t)
                warm = min(seconds(graphed) for _ in range(5))
                report(f"{name}, as a CUDA graph", f"warm {1000 * warm:.0f} ms")
        with report.part(f"{name}, exact"):
            few = setting.choose(4, 1)
            plain = network_for(config, device, exact=True)
            times = []
            for memory_format in (torch.contiguous_format, torch.channels_last):
                plain = plain.to(memory_format=memory_format)
                seconds(plain, n=few, exact=True)
                times.append(seconds(plain, n=few, exact=True))
            report(
                f"{name}, exact, {few} samples",
                f"{times[0]:.2f} s, with weights in channels_last {times[1]:.2f} s",
            )
        if not setting.quick:
            with report.part(f"{name}, compiled"):
                compiled: Any = torch.compile(network, dynamic=False)
                first = setting.seconds(lambda: compiled(x, t))  # noqa: B023
                warm = min(seconds(compiled) for _ in range(5))
                report(f"{name}, compiled", f"warm {1000 * warm:.0f} ms, compiled in {first:.0f} s")


def in_a_thread(work: Callable[[], float]) -> float:
    """What it returns. cuDNN plans again in each thread."""
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]
