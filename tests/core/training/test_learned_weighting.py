"""The learned weighting by noise level: what it learns, and that only the training has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core.runs import checkpoint
from diffusion_core.runs.config import RunConfig, usual_min_snr_gamma
from diffusion_core.runs.run import load_run
from diffusion_core.training.distributed import joined
from diffusion_core.training.learned_weighting import LearnedWeighting
from diffusion_core.training.step import batch_of, objective, one_step
from diffusion_core.training.trainer import train
from tests.core.training.test_step import prepared
from tests.tiny_runs import DEVICE, tiny


def test_it_learns_the_logarithm_of_the_mean_error_of_each_noise_level() -> None:
    weighting = LearnedWeighting()
    optimizer = torch.optim.Adam(weighting.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)

    def mean_error(log_snr: torch.Tensor) -> torch.Tensor:
        return (-2 - log_snr / 3).exp()

    for _ in range(300):
        log_snr = 12 * torch.rand(128, generator=generator) - 6
        scatter = 2 * torch.rand(128, generator=generator)  # errors scatter: of mean 1
        weighting(mean_error(log_snr) * scatter, log_snr.exp()).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    there = torch.linspace(-5.5, 5.5, 23)
    found = weighting.log_error(there.exp())
    assert (found - mean_error(there).log()).abs().max() < 0.25


def test_it_starts_as_the_plain_loss_and_takes_no_image_and_no_noise() -> None:
    errors, snr = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([0.0, 1.0, torch.inf])
    weighting = LearnedWeighting()
    assert weighting(errors, snr).tolist() == errors.tolist()
    weighting.weight.data.fill_(0.1)
    assert weighting(errors, snr).isfinite().all()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_step_moves_it_and_a_broken_one_does_not(optimizer: str) -> None:
    with joined(DEVICE):
        training = prepared(tiny(learned_weighting=True, optimizer=optimizer, micro_batch=3))
        assert training.weighting is not None
        one_step(training, 1)
        moved = training.weighting.weight.detach().clone()
        assert moved.abs().max() > 0
        with torch.no_grad():
            training.bare_model.get_parameter("stem.weight")[0] = torch.nan
        one_step(training, 2)
        assert torch.equal(training.weighting.weight, moved)


def test_min_snr_weights_the_error_that_it_learns() -> None:
    with joined(DEVICE):
        training = prepared(tiny(learned_weighting=True, min_snr_gamma=1.0))
        batch = batch_of(training, 1)
        with torch.no_grad():
            weighted, plain = objective(training, training.model, batch)
            training.config = training.config.replace(min_snr_gamma=0.0)
            unweighted, _ = objective(training, training.model, batch)
    assert torch.equal(unweighted, plain)  # u is still 0
    assert (weighted < plain).any()


def test_the_usual_min_snr_is_none_where_weights_are_learned() -> None:
    assert RunConfig(learned_weighting=True).min_snr_gamma == 0
    assert usual_min_snr_gamma({"prediction_type": "v_prediction"}) == 5


def test_the_state_has_it_and_the_weights_do_not(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(steps=2, learned_weighting=True), device=DEVICE)
    run = load_run(tmp_path / "run")
    state = checkpoint.load_state(run.path, 2)
    assert state["weighting"]["weight"].abs().max() > 0
    assert checkpoint.load_weights(run.checkpoint(2)).keys() == state["model"].keys()
    assert (run.curve("loss")["value"] > 0).all()  # the plain one, which has a logarithm
