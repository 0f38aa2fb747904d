"""Speed of sampling against the lecture's loop and diffusers, on the same weights, in one run.

    python -m benchmarks.sampling [--device cpu] [--presets lecture small] [--at-once 1 16]
                                  [--rounds 3]

Seconds an image, by default one at a time and 16 at once, by DDPM over the whole schedule, DDIM in
50 steps and DPM-Solver++ in 20:

- the lecture's loop: float32, its 300 steps, one image at a time;
- diffusers' `DDPMPipeline` and `DDIMPipeline`, and its `DPMSolverMultistepScheduler` in a plain
  loop, around the same network in float32;
- ours: `sample` with the network in the form that `load_model` gives.

The contenders take turns, and medians of `--rounds` rounds are compared. 20 steps of a trajectory
are timed and scaled to its length: each evaluates the network once. The weights are random and the
same for all. The last table is what our loop costs beyond the network: the time of `sample` against
that of the same calls of the network with nothing around them. Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from benchmarks.timing import in_turns, machine
from diffusion_core.device import has_fast_bfloat16, pick_device
from diffusion_core.models.inference import for_sampling
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.export import scheduler_config
from diffusion_core.runs.presets import PRESETS, build_network, preset
from diffusion_core.sampling.sample import sample

TIMED_STEPS = 20  # of every trajectory
LECTURE_STEPS = 300
TITLES = {"ddpm": "DDPM", "ddim": "DDIM", "dpmpp_2m": "DPM-Solver++"}
Seconds = dict[tuple[str, str, int], float]  # by contender, sampler and images at once; an image


@dataclass(frozen=True)
class Bench:
    """One network in two forms, with its schedule."""

    config: RunConfig
    schedule: NoiseSchedule
    plain: nn.Module  # float32
    fast: nn.Module  # as `load_model` gives it

    @property
    def device(self) -> torch.device:
        return self.schedule.betas.device

    def steps(self, sampler: str) -> int:
        return {"ddpm": self.schedule.timesteps, "ddim": 50, "dpmpp_2m": 20}[sampler]


def make_bench(config: RunConfig, device: torch.device) -> Bench:
    torch.manual_seed(0)
    plain = build_network(config.network, config.network_args).to(device).eval()
    plain.requires_grad_(False)
    fast = for_sampling(copy.deepcopy(plain), has_fast_bfloat16(device), config.image_shape)
    return Bench(config, NoiseSchedule(**config.schedule).to(device), plain, fast)


class LikeUNet2DModel(ModelMixin, ConfigMixin):
    """Our network as diffusers' pipelines call theirs."""

    @register_to_config
    def __init__(self, sample_size: int, in_channels: int) -> None:
        super().__init__()
        self.network: nn.Module = nn.Identity()

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, x: Tensor, t: Tensor) -> UNet2DOutput:
        return UNet2DOutput(sample=self.network(x, t.to(x.device).expand(len(x))))


def seconds(make: Callable[[], Tensor]) -> float:
    """How long it takes to make a tensor on the device."""
    start = time.perf_counter()
    make().sum().item()
    return time.perf_counter() - start


@torch.no_grad()
def lecture_loop(bench: Bench, steps: int = TIMED_STEPS) -> Tensor:
    """The last `steps` steps of the lecture's loop, from noise: (1, C, H, W)."""
    schedule, side = bench.schedule, bench.config.image_size
    x = torch.randn(1, bench.config.channels, side, side, device=bench.device)
    for i in reversed(range(steps)):
        t = torch.full((1,), i, device=bench.device)
        scale = schedule.betas[t] / schedule.sqrt_one_minus_alphas_cumprod[t]
        mean = schedule.sqrt_recip_alphas[t] * (x - scale * bench.plain(x, t))
        x = mean if i == 0 else mean + schedule.posterior_variance[t] * torch.randn_like(x)
        x = x.clamp(-1, 1)
    return x


@torch.no_grad()
def sample_with_diffusers(bench: Bench, sampler: str, n: int, steps: int = TIMED_STEPS) -> Tensor:
    """`steps` steps by diffusers: (n, C, H, W)."""
    settings = scheduler_config(bench.config)
    channels, side = bench.config.channels, bench.config.image_size
    unet = LikeUNet2DModel(side, channels)
    unet.network = bench.plain
    if sampler == "dpmpp_2m":
        scheduler = DPMSolverMultistepScheduler.from_config(settings)
        scheduler.set_timesteps(steps)
        x = torch.randn(n, channels, side, side, device=bench.device)
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample
        return x
    pipeline: Any
    if sampler == "ddpm":
        pipeline = DDPMPipeline(unet, DDPMScheduler.from_config(settings))
    else:
        pipeline = DDIMPipeline(unet, DDIMScheduler.from_config(settings))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=n, num_inference_steps=steps, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def sample_with_ours(
    bench: Bench, sampler: str, n: int, steps: int = TIMED_STEPS, network: nn.Module | None = None
) -> Tensor:
    """`steps` steps of ours, with `network` in place of the fast one: (n, C, H, W)."""
    config = bench.config
    return sample(
        network or bench.fast,
        bench.schedule,
        n,
        sampler,
        steps,
        prediction_type=config.prediction_type,
        shape=config.image_shape,
    )


def measure(bench: Bench, batches: Sequence[int], rounds: int) -> Seconds:
    contenders: dict[tuple[str, str, int], Callable[[], float]] = {}
    whole = LECTURE_STEPS / TIMED_STEPS
    contenders["lecture", "ddpm", 1] = lambda: whole * seconds(lambda: lecture_loop(bench))
    for n in batches:
        for sampler in TITLES:
            share = bench.steps(sampler) / TIMED_STEPS / n
            for name, make in (("diffusers", sample_with_diffusers), ("ours", sample_with_ours)):

                def timed(
                    make: Callable[[Bench, str, int], Tensor] = make,
                    sampler: str = sampler,
                    n: int = n,
                    share: float = share,
                ) -> float:
                    return share * seconds(lambda: make(bench, sampler, n))

                contenders[name, sampler, n] = timed
    lecture_loop(bench, 2)
    for n in batches:
        sample_with_ours(bench, "ddim", n, 2)
    return in_turns(rounds, contenders)


def overheads(bench: Bench, rounds: int, steps: int = TIMED_STEPS) -> dict[str, float]:
    """For each sampler, the time of our loop beyond the network, as a share of the network's, when
    it generates one image."""
    found = {}
    for sampler in TITLES:
        calls: list[tuple[Tensor, Tensor]] = []

        class Recorder(nn.Module):
            """The network; notes its inputs."""

            def __init__(self) -> None:
                super().__init__()
                self.network = bench.fast

            def forward(self, x: Tensor, t: Tensor, calls: list = calls) -> Tensor:
                calls.append((x, t))
                return self.network(x, t)

        sample_with_ours(bench, sampler, 1, steps, Recorder())

        @torch.inference_mode()
        def bare(calls: list[tuple[Tensor, Tensor]] = calls) -> Tensor:
            result = torch.empty(0)
            for x, t in calls:
                result = bench.fast(x, t)
            return result

        def loop(sampler: str = sampler) -> Tensor:
            return sample_with_ours(bench, sampler, 1, steps)

        times = in_turns(rounds, {"loop": lambda: seconds(loop), "bare": lambda: seconds(bare)})
        found[sampler] = times["loop"] / times["bare"] - 1
    return found


def table(name: str, bench: Bench, batches: Sequence[int], found: Seconds) -> str:
    """Seconds an image and how many times faster ours is, in Markdown."""
    loop = found["lecture", "ddpm", 1]
    lines = [
        "| network | sampler | at once | the lecture's loop | diffusers | ours | × the loop "
        "| × diffusers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sampler, title in TITLES.items():
        for n in batches:
            theirs, ours = found["diffusers", sampler, n], found["ours", sampler, n]
            lines.append(
                f"| {name} | {title}, {bench.steps(sampler)} steps | {n} | {loop:.2f} s "
                f"| {theirs:.2f} s | {ours:.3f} s | {loop / ours:.1f} | {theirs / ours:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    # `base` is made for a GPU: it takes long on a few cores.
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["lecture", "small"])
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    print(f"{machine(device)}; 64 × 64; {TIMED_STEPS} steps of each trajectory timed")
    spent = {}
    for name in arguments.presets:
        bench = make_bench(preset(name), device)
        found = measure(bench, arguments.at_once, arguments.rounds)
        print(f"\n{table(name, bench, arguments.at_once, found)}", flush=True)
        spent[name] = overheads(bench, 3 * arguments.rounds)
    print("\n| network | sampler | our loop beyond the network, one image |\n|---|---|---|")
    for name, of_methods in spent.items():
        for sampler, share in of_methods.items():
            print(f"| {name} | {TITLES[sampler]}, {TIMED_STEPS} steps | {100 * share:.1f} % |")


if __name__ == "__main__":
    main()
