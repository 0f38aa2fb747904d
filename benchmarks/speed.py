"""Speed of training and sampling on this machine, each against the plain way of the same work.

    python -m benchmarks.speed [--device cpu] [--presets lecture small]

For each preset, in one run and in turns:

- training: images per second of our trainer against a plain loop over the same network, pictures
  and objective (float32, the loss fetched and printed after every step, as in the lecture);
- sampling: seconds per picture of our DDPM over the whole schedule against the lecture's loop (one
  picture, float32, its formula), and of DDIM with 50 steps in a batch of 8.

Medians of `--rounds` rounds. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from diffusion_core.batches import make_batch
from diffusion_core.config import RunConfig
from diffusion_core.data.store import build_store
from diffusion_core.device import describe, has_fast_bfloat16, pick_device
from diffusion_core.diffusion import loss_per_image, make_target
from diffusion_core.presets import PRESETS, build_network, preset
from diffusion_core.runs import load_run
from diffusion_core.samplers import sample
from diffusion_core.schedule import NoiseSchedule
from diffusion_core.trainer import train

BATCH = 32
TRAIN_STEPS = {"lecture": 4, "small": 12}
PICTURES = 512


def training_ours(config: RunConfig, device: torch.device) -> float:
    """Images per second of the real trainer, without its first step."""
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", config, device=device)
        curve = load_run(Path(folder) / "run").curve("loss")
        times = curve["wall_time"]
        return config.batch_size * (len(times) - 1) / (times[-1] - times[0])


def training_plain(config: RunConfig, device: torch.device) -> float:
    """Images per second of a loop that waits for the loss of every step, without its first."""
    store = build_store(config.data, config.image_size)
    model = build_network(config.network, config.network_args).to(device).train()
    schedule = NoiseSchedule(**config.schedule).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    index = torch.arange(len(store)).numpy()
    ended = []
    for step in range(1, config.steps + 1):
        batch = make_batch(config, store, index, step, timesteps=schedule.timesteps, device=device)
        x_t, _ = schedule.add_noise(batch.x_0, batch.t, batch.noise)
        target = make_target(schedule, batch.x_0, batch.noise, batch.t, config.prediction_type)
        optimizer.zero_grad()
        loss = loss_per_image(model(x_t, batch.t), target, config.loss).mean()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.5f}", file=io.StringIO())
        ended.append(time.perf_counter())
    return config.batch_size * (len(ended) - 1) / (ended[-1] - ended[0])


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


def in_turns(rounds: int, works: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each work, one round of all after the other."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            with contextlib.redirect_stderr(io.StringIO()):
                found[name].append(work())
    return {name: statistics.median(values) for name, values in found.items()}


def measure(name: str, device: torch.device, rounds: int) -> None:
    config = preset(name).replace(
        data=f"cars:{PICTURES}",
        steps=TRAIN_STEPS.get(name, 12),
        batch_size=BATCH,
        class_conditional=False,
        validation_count=0,
        sample_every=0,
        validate_every=0,
        checkpoint_every=0,
    )
    build_store(config.data, config.image_size)
    speeds = in_turns(
        rounds,
        {
            "ours": lambda: training_ours(config, device),
            "plain": lambda: training_plain(config, device),
        },
    )
    print(
        f"{name:8} training          {speeds['ours']:8.2f} images/s   plain "
        f"{speeds['plain']:8.2f}   {speeds['ours'] / speeds['plain']:6.2f} x"
    )
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
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    device = pick_device(words.device)
    print(
        f"{describe(device)}, bfloat16 {'yes' if has_fast_bfloat16(device) else 'no'}, "
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores; "
        f"batch {BATCH}, 64 x 64"
    )
    for name in words.presets:
        measure(name, device, words.rounds)


if __name__ == "__main__":
    main()
