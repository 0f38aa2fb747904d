"""FID and KID with Inception features, by `torch-fidelity` if it is available offline.

The package is not a requirement and would download its weights by itself: it is used only if they
are on this machine already, and is given their path: that of the environment variable
`DIFFUSION_LAB_INCEPTION`, or in PyTorch's cache.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from diffusion_core.cores import take_share
from diffusion_core.device import compute_in_float32, device_of
from diffusion_core.evaluation.image_metrics import frechet_estimate
from diffusion_core.evaluation.intervals import WIDTH, Estimate

SETTING = "DIFFUSION_LAB_INCEPTION"
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
CHECKSUM = "6726825d"  # start of their sha256, as in torch.hub
SUBSET = 1000  # images in each of KID's subsets, as usual; half of the images if there are fewer
SUBSETS = 100
REPEATS = 20  # pairs of halves for FID; with 2,048 features each takes up to seconds
FEWEST = 4  # images


class Inception:
    """The network that FID is measured with in papers."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.inference_mode()
    def features(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """float32 (n, 2048) of uint8 images (n, H, W, C), C = 3, or 1 for grey, n at least 1."""
        found = []
        for start in range(0, len(images), batch):
            take_share()
            rows = np.ascontiguousarray(images[start : start + batch].transpose(0, 3, 1, 2))
            x = torch.from_numpy(rows).to(device_of(self.model)).expand(-1, 3, -1, -1)
            found.append(self.model(x)[0].float().cpu().numpy())
        return np.concatenate(found)


def load_inception(
    device: torch.device | str = "cpu", weights: Path | None = None
) -> tuple[Inception | None, str]:
    """Load the network; returns (network, "") or (None, why not). Never downloads.

    `weights`: their file, by default the one that the environment variable names, else the one in
    PyTorch's cache.
    """
    named = os.environ.get(SETTING, "")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    path = weights or (Path(named).expanduser() if named else cached)
    without = "FID and KID were not measured:"
    if importlib.util.find_spec("torch_fidelity") is None:
        return None, f"{without} the package torch-fidelity was not installed."
    if not path.is_file():
        return None, f"{without} torch-fidelity's {WEIGHTS} was not found: there is no file {path}."
    if not _checksum(path).startswith(CHECKSUM):  # it is unpickled, so it must be the real one
        return None, f"{without} {path} is damaged, or not the file published by torch-fidelity."
    compute_in_float32()
    package = importlib.import_module("torch_fidelity")
    model = package.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
    )
    return Inception(model.to(device)), ""


def fidelity_estimates(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> dict[str, Estimate]:
    """`fid` and `kid` (times 1,000) of Inception features (n, 2048) and (m, 2048), n, m >= 4.

    FID is meant for 10,000 images or more; with fewer it is far too high. KID is the mean over
    subsets drawn without replacement. Subsets of half of the images spread as the value of all of
    them does (see `intervals.py`); smaller ones spread more, which makes the interval too wide.
    """
    count = min(len(real), len(fake))
    if count < FEWEST:
        raise ValueError(f"FID and KID need at least {FEWEST} images of each kind, not {count}.")
    found = importlib.import_module("torch_fidelity.metric_kid").kid_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        kid_subsets=SUBSETS,
        kid_subset_size=min(SUBSET, count // 2),
        rng_seed=seed,
        verbose=False,
    )
    mean, spread = (1000 * found[f"kernel_inception_distance_{part}"] for part in ("mean", "std"))
    kid = Estimate(mean, mean - WIDTH * spread, mean + WIDTH * spread, len(real), len(fake))
    return {"fid": frechet_estimate(real, fake, seed, REPEATS), "kid": kid}


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
