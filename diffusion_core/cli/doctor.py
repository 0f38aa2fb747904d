"""`doctor`: check device, versions, write access and speed."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel

from diffusion_core import __version__
from diffusion_core.cli.options import DONE, FAILED, add_device, add_runs_dir
from diffusion_core.device import describe, has_fast_bfloat16, pick_device
from diffusion_core.disks import on_network_disk
from diffusion_core.runs.alerts.settings import AlertsError, read_alerts
from diffusion_core.runs.presets import PRESETS, build_model

PACKAGES = ("torch", "torchvision", "accelerate", "streamlit", "plotly", "pillow")
# Exit codes beside DONE, and FAILED where more than one thing is wrong or the device.
NO_PACKAGE, NO_RUNS = 3, 4


class Findings(BaseModel):
    """What `doctor` finds; `--json` prints it."""

    version: str
    device: str
    bfloat16: bool  # computed in hardware
    python: str
    platform: str
    packages: dict[str, str | None]  # their versions; None: missing
    runs_dir: str
    network_disk: bool  # the runs are on one
    free_bytes: int | None = None  # of the disk of the runs; None where it cannot be written to
    not_writable: str = ""  # why
    alerts: list[str] = []  # who gets them, without secrets
    bad_alerts: str = ""  # why the settings of the alerts cannot be used
    ms_per_image: dict[str, float] = {}  # of each preset's network, a forward pass
    problems: list[str] = []

    @property
    def exit_code(self) -> int:
        missing = None in self.packages.values()
        if self.bad_alerts or (missing and self.not_writable):
            return FAILED
        return NO_PACKAGE if missing else NO_RUNS if self.not_writable else DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs_dir(parser)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.epilog = (
        f"Exit codes: {DONE} nothing is wrong, {NO_PACKAGE} a package is missing, {NO_RUNS} the "
        f"runs folder cannot be written to, {FAILED} both, the settings of the alerts cannot be "
        "used, or there is no such device."
    )
    parser.set_defaults(do=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    found = findings(arguments.runs_dir, pick_device(arguments.device))
    print(found.model_dump_json(indent=2) if arguments.json else as_text(found))
    return found.exit_code


def findings(runs_dir: Path, device: torch.device) -> Findings:
    packages = {name: _version(name) for name in PACKAGES}
    free, why = _free(runs_dir)
    problems = [
        f"{name} is missing: pip install -r requirements.txt"
        for name, found in packages.items()
        if found is None
    ]
    problems += [f"{runs_dir} is not writable: {why}"] if why else []
    targets, bad = _alerts()
    problems += [bad] if bad else []
    return Findings(
        version=__version__,
        device=describe(device),
        bfloat16=has_fast_bfloat16(device),
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        runs_dir=str(runs_dir),
        network_disk=on_network_disk(runs_dir),
        free_bytes=free,
        not_writable=why,
        alerts=targets,
        bad_alerts=bad,
        ms_per_image={name: seconds_per_image(name, device) * 1000 for name in PRESETS},
        problems=problems,
    )


def as_text(found: Findings) -> str:
    lines = [
        ("version", found.version),
        ("device", found.device),
        ("bfloat16", "computed in hardware" if found.bfloat16 else "not used"),
        ("python", f"{found.python} on {found.platform}"),
    ]
    for name, number in found.packages.items():
        lines.append((name, number or "missing: pip install -r requirements.txt"))
    if found.free_bytes is None:
        lines.append(("runs", f"{found.runs_dir} is not writable: {found.not_writable}"))
    else:
        where = ", on a network disk" if found.network_disk else ""
        free = f"{found.free_bytes / 2**30:.1f} GiB free{where}"
        lines.append(("runs", f"{found.runs_dir} is writable, {free}"))
    lines.append(("alerts", found.bad_alerts or ", ".join(found.alerts) or "none are set"))
    for name, time_taken in found.ms_per_image.items():
        lines.append((name, f"{time_taken:.1f} ms per image (forward pass)"))
    return "\n".join(f"{name:12} {text}" for name, text in lines)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _alerts() -> tuple[list[str], str]:
    """Who gets alerts, or why that cannot be read."""
    try:
        return list(read_alerts(os.environ).targets), ""
    except AlertsError as error:
        return [], str(error)


def _free(runs_dir: Path) -> tuple[int | None, str]:
    """The free bytes of the disk, or None and why the folder cannot be written to."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir):
            return shutil.disk_usage(runs_dir).free, ""
    except OSError as error:
        return None, error.strerror or str(error)


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
