"""The distance of images in features, against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffusion_core.data.sources import cars
from diffusion_core.evaluation.features import GeneralNetwork, general_net
from diffusion_core.training.perceptual import perceptual_distances


@pytest.fixture(scope="module")
def network() -> GeneralNetwork:
    return general_net().model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    drawn = np.stack([cars.draw_car(index, 77)[0] for index in range(2)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_it_is_the_squared_distance_of_unit_vectors(
    network: GeneralNetwork, images: torch.Tensor
) -> None:
    one, other = images[:1], images[1:]
    wanted = 0.0
    for stage in range(len(network.stages)):
        ours, theirs = (network.maps(x)[stage][0].double().numpy() for x in (one, other))
        apart = ours / np.linalg.norm(ours, axis=0) - theirs / np.linalg.norm(theirs, axis=0)
        wanted += (apart**2).sum(0).mean()
    assert float(perceptual_distances(network, one, other)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_its_gradient_leads_to_the_wanted_image(
    network: GeneralNetwork, images: torch.Tensor, size: int, channels: int
) -> None:
    wanted = F.interpolate(images, (size, size), mode="bilinear", antialias=True)[:, :channels]
    assert not perceptual_distances(network, wanted, wanted).any()
    blurred = F.avg_pool2d(wanted, 3, 1, 1).requires_grad_()
    distance = perceptual_distances(network, blurred, wanted)
    assert distance.shape == (2,)
    (towards,) = torch.autograd.grad(distance.sum(), blurred)
    nearer = blurred.detach() - 0.1 * towards / towards.norm()
    assert (perceptual_distances(network, nearer, wanted) < distance).all()
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_nothing_in_it_is_endless_where_there_are_no_features() -> None:
    network = GeneralNetwork([4, 8], 4).eval()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)
    distance = perceptual_distances(network, flat, torch.ones(1, 3, 64, 64))
    (gradient,) = torch.autograd.grad(distance.sum(), flat)
    assert (distance.item(), gradient.abs().max().item()) == (0, 0)
