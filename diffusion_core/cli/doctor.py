"""`doctor`: check device, versions, write access and speed."""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from diffusion_core.cli.options import DONE, FAILED, add_device, add_runs_dir
from diffusion_core.device import describe, has_fast_bfloat16, pick_device
from diffusion_core.runs.presets import PRESETS, build_model

PACKAGES = ("torch", "torchvision", "accelerate", "streamlit", "plotly", "pillow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs_dir(parser)
    add_device(parser)
    parser.set_defaults(do=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    healthy = report(arguments.runs_dir, pick_device(arguments.device))
    return DONE if healthy else FAILED


def report(runs_dir: Path, device: torch.device) -> bool:
    """Print the findings; returns whether everything works."""
    print(f"device       {describe(device)}")
    print(f"bfloat16     {'computed in hardware' if has_fast_bfloat16(device) else 'not used'}")
    print(f"python       {platform.python_version()} on {platform.platform()}")
    healthy = True
    for name in PACKAGES:
        try:
            print(f"{name:12} {version(name)}")
        except PackageNotFoundError:
            print(f"{name:12} missing: pip install -r requirements.txt")
            healthy = False
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir):
            free = shutil.disk_usage(runs_dir).free / 2**30
            print(f"runs         {runs_dir} is writable, {free:.1f} GiB free")
    except OSError as error:
        print(f"runs         {runs_dir} is not writable: {error.strerror}")
        healthy = False
    for name in PRESETS:
        print(f"{name:12} {seconds_per_image(name, device) * 1000:.1f} ms per image (forward pass)")
    return healthy


@torch.inference_mode()
def seconds_per_image(name: str, device: torch.device, batch: int = 4, times: int = 3) -> float:
    """Median seconds of a forward pass of a preset's network, per image of 64 x 64 pixels."""
    model = build_model(name).to(device).eval()
    x, t = torch.randn(batch, 3, 64, 64, device=device), torch.zeros(batch, device=device).long()
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        model(x, t).sum().item()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[times // 2] / batch
