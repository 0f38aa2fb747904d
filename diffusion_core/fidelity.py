"""FID and KID with Inception's features, through `torch-fidelity` where it can be had offline.

The package is not among the requirements, and it would fetch its weights by itself: it is asked
only where they lie in PyTorch's cache already, and given their path.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
CHECKSUM = "6726825d"  # what their sha256 begins with, in the manner of torch.hub
SUBSETS = 1000  # pictures in each of the 100 subsets of KID; fewer where there are fewer pictures
FEWEST = 2


def fidelity_scores(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    batch: int = 64,
    seed: int = 0,
    weights: Path | None = None,
) -> tuple[dict[str, float] | None, str]:
    """FID, and KID with the spread of its subsets, of uint8 pictures (n, H, W, C), C = 1 or 3.

    Returns (scores, "") with `fid`, `kid` and `kid_std`, or (None, a sentence) where they cannot be
    measured. Never downloads: `weights` is the file of Inception's weights, by default the one in
    PyTorch's cache. FID is made for 10,000 pictures or more; with fewer it is far too high.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if importlib.util.find_spec("torch_fidelity") is None:
        return None, "FID and KID are not measured: the package torch-fidelity is not installed."
    if not path.is_file():
        return None, (
            f"FID and KID are not measured: Inception's weights are not on this machine. Put "
            f"{WEIGHTS} of torch-fidelity into {path.parent}."
        )
    if not _checksum(path).startswith(CHECKSUM):  # it will be unpickled, so it must be the real one
        return None, (
            f"FID and KID are not measured: {path} is damaged or not the file that torch-fidelity "
            f"publishes. Replace it."
        )
    count = min(len(real), len(fake))
    if count < FEWEST:
        return None, "FID and KID are not measured: they need at least 2 pictures of each kind."
    found = importlib.import_module("torch_fidelity").calculate_metrics(
        input1=_Pictures(fake),
        input2=_Pictures(real),
        fid=True,
        kid=True,
        kid_subset_size=min(SUBSETS, count),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(path),
        cuda=torch.device(device).type == "cuda",
        batch_size=batch,
        rng_seed=seed,
        save_cpu_ram=True,  # without processes of its own, which a server must not fork
        cache=False,
        datasets_download=False,
        verbose=False,
    )
    return {
        "fid": float(found["frechet_inception_distance"]),
        "kid": float(found["kernel_inception_distance_mean"]),
        "kid_std": float(found["kernel_inception_distance_std"]),
    }, ""


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Pictures(Dataset):
    """uint8 (3, H, W), as torch-fidelity takes them; grey is repeated."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> torch.Tensor:
        picture = torch.from_numpy(np.ascontiguousarray(self.pictures[row].transpose(2, 0, 1)))
        return picture.expand(3, -1, -1)
