"""The quality metrics against prdc and pytorch-fid."""

from __future__ import annotations

import numpy as np
import pytest
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance

from diffusion_core.evaluation.image_metrics import (
    density_coverage,
    frechet_distance,
    precision_recall,
)

CASES = [(200, 150, 12, 0.0), (60, 90, 64, 0.3), (300, 300, 5, 1.0), (50, 50, 2, 4.0)]


def sets(n: int, m: int, d: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + d)
    mixing = rng.standard_normal((d, d))
    real = rng.standard_normal((n, d)) @ mixing + 10
    return real, rng.standard_normal((m, d)) @ mixing * 1.2 + 10 + shift


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_precision_recall_density_and_coverage_are_those_of_prdc(
    case: tuple[int, int, int, float], k: int
) -> None:
    real, fake = sets(*case)
    theirs = compute_prdc(real_features=real, fake_features=fake, nearest_k=k)
    ours = (*precision_recall(real, fake, k), *density_coverage(real, fake, k))
    names = ("precision", "recall", "density", "coverage")
    assert ours == pytest.approx([theirs[name] for name in names], abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_frechet_distance_is_that_of_pytorch_fid(case: tuple[int, int, int, float]) -> None:
    real, fake = sets(*case)
    moments = [part for rows in (real, fake) for part in (rows.mean(0), np.cov(rows, rowvar=False))]
    theirs = calculate_frechet_distance(*moments)
    assert frechet_distance(real, fake) == pytest.approx(theirs, rel=1e-4, abs=1e-4)
