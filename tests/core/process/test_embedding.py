"""Sinusoidal embeddings of the timestep: the lecture's row, the formula, diffusers' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.models.unet import SimpleUnet
from diffusion_core.process.embedding import SinusoidalPositionEmbeddings
from diffusion_core.process.sinusoids import (
    cosine_similarity,
    similarity_at,
    sinusoids,
    spread_timesteps,
)

# SinusoidalPositionEmbeddings(32) for t = 30, as the lecture prints it: 16 sines, 16 cosines.
LECTURE_ROW = """
-0.9880 -0.5030 0.5963 -0.9991 0.5384 0.9841 0.6842 0.3966
0.2189 0.1191 0.0646 0.0350 0.0189 0.0102 0.0055 0.0030
0.1543 -0.8643 -0.8028 0.0423 -0.8427 0.1774 0.7293 0.9180
0.9757 0.9929 0.9979 0.9994 0.9998 0.9999 1.0000 1.0000
"""


def test_the_row_of_t_30_is_the_lectures_to_the_last_digit() -> None:
    [row] = SinusoidalPositionEmbeddings(32)(torch.tensor([30]))
    assert [f"{value:.4f}" for value in row.tolist()] == LECTURE_ROW.split()


def test_the_lectures_network_embeds_as_the_lecture_does() -> None:
    [row] = SimpleUnet(widths=[4, 8]).time_mlp[0](torch.tensor([30]))
    assert [f"{value:.4f}" for value in row.tolist()] == LECTURE_ROW.split()


@given(t=st.integers(0, 999), half=st.integers(2, 64))
def test_a_row_is_sines_then_cosines_of_falling_frequencies(t: int, half: int) -> None:
    [row] = SinusoidalPositionEmbeddings(2 * half)(torch.tensor([t]))
    angles = [t * math.exp(-i * math.log(10000) / (half - 1)) for i in range(half)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    # float32 holds an angle of up to 999 to 1/16,000 only.
    torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=2e-4)


@pytest.mark.parametrize("size", [4, 32, 64, 128, 320])
def test_rows_are_those_of_diffusers(size: int) -> None:
    t = torch.arange(1000)
    expected = get_timestep_embedding(t, size, flip_sin_to_cos=False, downscale_freq_shift=1)
    torch.testing.assert_close(SinusoidalPositionEmbeddings(size)(t), expected, rtol=0, atol=2e-4)


def test_t_0_is_all_zeros_then_all_ones() -> None:
    [row] = SinusoidalPositionEmbeddings(32)(torch.tensor([0]))
    assert row.tolist() == [0.0] * 16 + [1.0] * 16


def test_a_row_depends_on_its_own_t_only_and_its_length_on_none() -> None:
    layer = SinusoidalPositionEmbeddings(32)
    rows = layer(torch.tensor([0, 30, 299]))
    assert rows.dtype == torch.float32
    assert torch.equal(rows[1], layer(torch.tensor([30]))[0])
    torch.testing.assert_close(rows.norm(dim=1), torch.full((3,), 4.0))  # sqrt(32 / 2)


def test_every_timestep_has_a_row_of_its_own() -> None:
    rows = SinusoidalPositionEmbeddings(32)(torch.arange(1000))
    distances = torch.cdist(rows, rows).fill_diagonal_(float("inf"))
    assert distances.min() > 0.1


@pytest.mark.parametrize("size", [-2, 0, 2, 7])
def test_a_size_that_makes_no_pairs_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"even and at least 4, not {size}"):
        SinusoidalPositionEmbeddings(size)


@pytest.mark.parametrize("size", [4, 32, 1024])
@pytest.mark.parametrize("base", [10, 10_000, 1e6])
def test_rows_of_any_base_are_those_of_diffusers(size: int, base: float) -> None:
    t = np.arange(1000)
    expected = get_timestep_embedding(
        torch.from_numpy(t), size, flip_sin_to_cos=False, downscale_freq_shift=1, max_period=base
    )
    np.testing.assert_allclose(sinusoids(t, size, base), expected.numpy(), rtol=0, atol=2e-4)


def test_the_layer_computes_what_numpy_does() -> None:
    t = np.arange(1000)
    rows = SinusoidalPositionEmbeddings(32)(torch.from_numpy(t)).numpy()
    assert sinusoids(t, 32) == pytest.approx(rows, abs=2e-4)


@pytest.mark.parametrize(("size", "base"), [(32, 1e4), (6, 10.0), (1024, 1e6)])
def test_the_sinusoidal_similarity_depends_only_on_the_distance(size: int, base: float) -> None:
    t = np.arange(300)
    similarity = cosine_similarity(sinusoids(t, size, base))
    profile = similarity_at(t, size, base)
    assert similarity == pytest.approx(profile[np.abs(t[:, None] - t)], abs=1e-12)
    expected = np.cos(np.outer(t, base ** (-np.arange(size // 2) / (size / 2 - 1)))).mean(axis=1)
    assert profile == pytest.approx(expected, abs=1e-12)


def test_a_row_of_zeros_is_similar_to_nothing() -> None:
    rows = np.array([[0, 0], [3, 4], [6, 8], [-3, -4]], dtype=np.float32)
    expected = [[0, 0, 0, 0], [0, 1, 1, -1], [0, 1, 1, -1], [0, -1, -1, 1]]
    assert cosine_similarity(rows) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(("timesteps", "rows"), [(300, 300), (500, 500), (501, 251), (4000, 500)])
def test_rows_are_thinned_in_equal_strides_from_the_first(timesteps: int, rows: int) -> None:
    steps = spread_timesteps(timesteps, 500)
    assert len(steps) == rows
    assert steps[0] == 0
    assert len(set(np.diff(steps))) == 1
    assert steps[-1] < timesteps
