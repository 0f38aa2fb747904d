"""What this machine is and whether the lab works on it: `python -m diffusion_core doctor`."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from diffusion_core.device import describe, has_fast_bfloat16
from diffusion_core.runs.presets import PRESETS, build_model

PACKAGES = ("torch", "torchvision", "accelerate", "streamlit", "plotly", "pillow")


def report(runs_dir: Path, device: torch.device) -> int:
    """Print the findings; returns 0 where all is well, else 1."""
    print(f"device       {describe(device)}")
    print(f"bfloat16     {'computed by the hardware' if has_fast_bfloat16(device) else 'not used'}")
    print(f"python       {platform.python_version()} on {platform.platform()}")
    well = True
    for name in PACKAGES:
        try:
            print(f"{name:12} {version(name)}")
        except PackageNotFoundError:
            print(f"{name:12} missing: pip install -r requirements.txt")
            well = False
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir):
            free = shutil.disk_usage(runs_dir).free / 2**30
            print(f"runs         {runs_dir} can be written to, {free:.1f} GiB free")
    except OSError as error:
        print(f"runs         {runs_dir} cannot be written to: {error.strerror}")
        well = False
    for name in PRESETS:
        print(f"{name:12} {seconds_per_image(name, device) * 1000:.1f} ms a forward pass")
    return 0 if well else 1


@torch.inference_mode()
def seconds_per_image(name: str, device: torch.device, batch: int = 4, times: int = 3) -> float:
    """The median time of a preset's network on one 64 x 64 image, out of a batch."""
    model = build_model(name).to(device).eval()
    x, t = torch.randn(batch, 3, 64, 64, device=device), torch.zeros(batch, device=device).long()
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        model(x, t).sum().item()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[times // 2] / batch
