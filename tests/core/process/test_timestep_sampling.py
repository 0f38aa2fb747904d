"""Which timesteps training draws how often."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_core.process.timestep_sampling import UNIFORM_SHARE, timestep_shares


def even(count: int = 4001, reach: float = 20) -> np.ndarray:
    return np.linspace(reach, -reach, count)


@pytest.mark.parametrize(("sampling", "spread"), [("logit_normal", 1.5), ("laplace", 1.5 * 2**0.5)])
def test_shares_have_the_mean_and_the_spread_of_their_density(sampling: str, spread: float) -> None:
    log_snr = even()
    shares = timestep_shares(log_snr, sampling, 1.0, 1.5) - UNIFORM_SHARE / len(log_snr)
    shares /= shares.sum()
    mean = (shares * log_snr).sum()
    assert mean == pytest.approx(1.0, abs=1e-3)
    assert (shares * (log_snr - mean) ** 2).sum() ** 0.5 == pytest.approx(spread, rel=1e-3)


def test_a_timestep_counts_for_the_width_of_log_snr_that_it_stands_for() -> None:
    """Twice as many timesteps on one side of the centre do not draw that side more often."""
    log_snr = np.concatenate([np.linspace(5, 0, 1000, endpoint=False), np.linspace(0, -5, 501)])
    shares = timestep_shares(log_snr, "laplace", 0.0, 1.0) - UNIFORM_SHARE / len(log_snr)
    assert shares[log_snr > 0].sum() == pytest.approx(shares[log_snr < 0].sum(), rel=0.01)


def test_every_timestep_is_drawn_also_where_nothing_of_the_image_is_left() -> None:
    log_snr = np.array([30.0, 1.0, 0.0, -1.0, -np.inf])
    shares = timestep_shares(log_snr, "laplace", 0.0, 0.5)
    assert shares.min() >= UNIFORM_SHARE / 5 and shares.sum() == pytest.approx(1)
    far = timestep_shares(np.array([900.0, 890.0]), "logit_normal", 0.0, 0.1)
    assert far == pytest.approx([0.5, 0.5])


def test_an_unknown_sampling_is_named() -> None:
    with pytest.raises(ValueError, match="'often'"):
        timestep_shares(even(), "often", 0.0, 1.0)
