"""Schedules that go through given points, and the shift for larger images, against SciPy, diffusers
and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.tables import (
    SCHEDULE_KINDS,
    USUAL_POINTS,
    Points,
    ScheduleTables,
    check_points,
    interpolate,
)

STEEP = ((0.0, 12.0), (0.02, 11.9), (0.5, -1.0), (0.51, -9.0), (1.0, -9.02))


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 5)), min_size=1, max_size=15))
def test_the_curve_is_scipys_monotone_one(steps: list[tuple[float, float]]) -> None:
    gaps, drops = np.array(steps).T
    x = np.concatenate([[0], np.cumsum(gaps)]) / gaps.sum()
    y = 15 - np.concatenate([[0], np.cumsum(drops)])
    time = np.linspace(0, 1, 997)
    ours = interpolate(list(zip(x, y, strict=True)), time)
    theirs = PchipInterpolator(x, y)(time) if len(x) > 2 else np.interp(time, x, y)
    assert np.allclose(ours, theirs, rtol=0, atol=1e-9)
    assert np.diff(ours).max() < 1e-12  # no rise, but for rounding


@pytest.mark.parametrize("points", [USUAL_POINTS, STEEP, ((0, 15), (1, -15))])
def test_a_designed_schedule_has_the_log_snr_of_its_points(points: Points) -> None:
    schedule = ScheduleTables("designed", 1001, points=points)
    for time, log_snr in points:
        assert schedule.log_snr[round(1000 * time)] == pytest.approx(log_snr, abs=1e-6)
    assert schedule.betas.min() > 0 and schedule.betas.max() < 1
    again = NoiseSchedule(**schedule.settings())
    assert np.array_equal(again.exact.betas, schedule.betas)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (((0, 1),), "2 to 16 points, not 1"),
        (((0, 1), (1,)), "a time from 0 to 1 and a log-SNR"),
        (((0, 1), (1, math.nan)), "a time from 0 to 1 and a log-SNR"),
        (((0, 1), (0.9, -1)), "the last at time 1"),
        (((0, 16), (1, -1)), "from −15 to 15"),
        (((0, 1), (0.5, 0), (0.501, -1), (1, -2)), "later than the one before"),
        (((0, 1), (0.5, 1), (1, -2)), "falls from point to point"),
    ],
)
def test_points_that_make_no_schedule_get_a_sentence(points: Points, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_points(points)
    with pytest.raises(ValueError, match=sentence):
        NoiseSchedule("designed", points=points)


@pytest.mark.parametrize("size", [32, 128, 256])
@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_a_shift_adds_its_closed_form_to_the_log_snr(kind: str, size: int) -> None:
    """Hoogeboom et al. 2023, equation 6."""
    plain = ScheduleTables(kind, 200)
    shifted = ScheduleTables(kind, 200, shift_size=size)
    difference = shifted.log_snr - plain.log_snr
    assert np.allclose(difference, 2 * np.log(64 / size), rtol=0, atol=1e-6)
    zero = ScheduleTables(kind, 200, rescale_zero_terminal_snr=True, shift_size=size)
    assert zero.alphas_cumprod[-1] == 0 and np.isfinite(zero.log_snr[:-1]).all()


def test_a_shift_for_the_size_of_reference_changes_nothing() -> None:
    plain, shifted = ScheduleTables("cosine", 200), ScheduleTables("cosine", 200, shift_size=64)
    assert np.allclose(shifted.betas, plain.betas, rtol=1e-9, atol=0)


def test_diffusers_noises_the_same_with_designed_and_shifted_betas() -> None:
    ours = NoiseSchedule("designed", 300, points=STEEP, shift_size=128)
    theirs = DDPMScheduler(300, trained_betas=ours.betas.tolist())
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=0, atol=2e-5)


def test_the_tensors_are_the_tables_in_float32() -> None:
    tensors, tables = NoiseSchedule("sigmoid", 50), ScheduleTables("sigmoid", 50)
    for name in (*ScheduleTables.TABLES, "snr", "log_snr"):
        assert np.array_equal(getattr(tensors, name), getattr(tables, name).astype(np.float32))
