"""Speed of sampling on this machine, against the plain way of the same work.

    python -m benchmarks.speed [--device cpu] [--presets lecture small]

For each preset, in one run and in turns: seconds per picture of our DDPM over the whole schedule
against the lecture's loop (one picture, float32, its formula), and of DDIM with 50 steps in a
batch of 8. Medians of `--rounds` rounds. Run it on a machine that does nothing else.
`benchmarks.training` measures training.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from benchmarks.timing import in_turns, machine
from diffusion_core.config import RunConfig
from diffusion_core.device import pick_device
from diffusion_core.presets import PRESETS, build_network, preset
from diffusion_core.samplers import sample
from diffusion_core.schedule import NoiseSchedule


def sampling(
    model: nn.Module, schedule: NoiseSchedule, config: RunConfig, sampler: str, n: int, steps: int
) -> float:
    """Seconds per picture of `sample`."""
    start = time.perf_counter()
    sample(
        model,
        schedule,
        n,
        sampler,
        steps,
        prediction_type=config.prediction_type,
        shape=(3, config.image_size, config.image_size),
    ).sum().item()
    return (time.perf_counter() - start) / n


@torch.no_grad()
def sampling_plain(model: nn.Module, schedule: NoiseSchedule, config: RunConfig) -> float:
    """Seconds for one picture by the lecture's loop: every step, one picture, its formula."""
    start = time.perf_counter()
    device = schedule.betas.device
    x = torch.randn(1, 3, config.image_size, config.image_size, device=device)
    for i in reversed(range(schedule.timesteps)):
        t = torch.full((1,), i, device=device)
        scale = schedule.betas[t] / schedule.sqrt_one_minus_alphas_cumprod[t]
        mean = schedule.sqrt_recip_alphas[t] * (x - scale * model(x, t))
        x = mean if i == 0 else mean + schedule.posterior_variance[t] * torch.randn_like(x)
        x = x.clamp(-1, 1)
    x.sum().item()
    return time.perf_counter() - start


def measure(name: str, device: torch.device, rounds: int) -> None:
    config = preset(name)
    model = build_network(config.network, config.network_args).to(device).eval()
    schedule = NoiseSchedule(**config.schedule).to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    times = in_turns(
        rounds,
        {
            "ddpm": lambda: sampling(model, schedule, config, "ddpm", 1, schedule.timesteps),
            "ddim": lambda: sampling(model, schedule, config, "ddim", 8, 50),
            "plain": lambda: sampling_plain(model, schedule, config),
        },
    )
    for sampler, words in (
        ("ddpm", f"ddpm-{schedule.timesteps}, 1"),
        ("ddim", "ddim-50, batch 8"),
    ):
        print(
            f"{name:8} {words:17} {times[sampler]:8.3f} s/picture  plain "
            f"{times['plain']:8.3f}   {times['plain'] / times[sampler]:6.2f} x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    # `base` is made for a GPU: one picture by DDPM takes minutes on a few cores.
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["lecture", "small"])
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    device = pick_device(words.device)
    print(f"{machine(device)}; 64 x 64")
    for name in words.presets:
        measure(name, device, words.rounds)


if __name__ == "__main__":
    main()
