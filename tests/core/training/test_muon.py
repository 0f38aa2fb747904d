"""Muon: the directions of its steps, and what it leaves to AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_core.models.unet import Unet
from diffusion_core.training.muon import SCALE, Muon, muon_groups, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (8, 72), (72, 8)])
def test_singular_values_become_about_1_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix[None])[0]
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    alike = nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0)
    assert alike > 0.97


def test_the_first_step_moves_a_matrix_by_its_polar_factor_and_the_rest_as_adamw() -> None:
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.randn(6, 2, 3, 3)), nn.Parameter(torch.randn(6))
    theirs = nn.Parameter(bias.detach().clone())
    groups = [{"params": [weight], "matrices": True}, {"params": [bias], "matrices": False}]
    ours = Muon(groups, lr=0.1, weight_decay=0.01)
    adamw = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    before = weight.detach().clone()
    for step in range(3):
        weight.grad, bias.grad = torch.randn_like(weight), torch.randn_like(bias)
        theirs.grad = bias.grad.clone()
        gradient = weight.grad.flatten(1).clone()
        ours.step()
        adamw.step()
        if step == 0:
            expected = before - 0.1 * (
                0.01 * before
                + SCALE * 18**0.5 * orthogonal(gradient[None])[0].reshape(before.shape)
            )
            assert weight.allclose(expected, atol=2e-3)
    assert bias.allclose(theirs, atol=1e-6)


def test_a_broken_gradient_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Unet(widths=[8], blocks=1, attention_levels=[], patch=1)
    optimizer = Muon(muon_groups(model), lr=0.1, weight_decay=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_every_weight_is_in_one_group_and_convolutions_between_the_ends_are_matrices() -> None:
    model = Unet(widths=[8, 16], blocks=1, attention_levels=[1], patch=2, num_classes=3)
    matrices, others = (set(map(id, group["params"])) for group in muon_groups(model))
    assert not matrices & others
    assert len(matrices | others) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        convolution = parameter.ndim == 4 and not name.startswith(("stem", "output"))
        assert (id(parameter) in matrices) == convolution, name
