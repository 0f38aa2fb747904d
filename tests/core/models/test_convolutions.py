"""Convolutions in other ways, against PyTorch's own: values and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from diffusion_core.models.convolutions import (
    DEPTH,
    GEMM,
    PLAIN,
    Geometry,
    Way,
    Ways,
    from_depth,
    from_patches,
    patches,
    set_ways,
    to_depth,
)

LAYERS: dict[str, nn.Conv2d | nn.ConvTranspose2d] = {
    "3x3": nn.Conv2d(6, 5, 3, padding=1),
    "3x3 halving": nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "4x4 halving": nn.Conv2d(6, 5, 4, stride=2, padding=1),
    "4x4 doubling": nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1),
    "without bias": nn.Conv2d(6, 5, 4, stride=2, padding=1, bias=False),
}
CASES = [
    (name, way)
    for name, layer in LAYERS.items()
    for way in (PLAIN, GEMM, DEPTH)
    if way != DEPTH or layer.kernel_size[0] == 4
]


def results(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The layer's result, and the gradients in its input and weights."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], grad.to(y.dtype))]


def pair(name: str, ways: Ways, order: torch.memory_format) -> tuple[nn.Module, nn.Module]:
    plain = nn.Sequential(copy.deepcopy(LAYERS[name])).to(memory_format=order)
    other = copy.deepcopy(plain)
    set_ways(other, {"0": ways})
    return plain, other


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("name", "way"), CASES)
def test_every_way_gives_the_values_and_gradients_of_pytorch(
    name: str, way: Way, order: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    plain, other = (layer.double() for layer in pair(name, Ways(way, way, way), order))
    x = torch.randn(3, 6, 8, 12, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=order)
    grad = torch.randn(plain(x).shape, generator=generator, dtype=torch.float64)
    for got, wanted in zip(results(other, x, grad), results(plain, x, grad), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_under_autocast_a_way_differs_by_rounding_and_gives_the_same_types(
    name: str, way: Way
) -> None:
    generator = torch.Generator().manual_seed(0)
    plain, other = pair(name, Ways(way, way, way), torch.channels_last)
    x = torch.randn(3, 6, 8, 12, generator=generator)
    grad = torch.randn(plain(x).shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = zip(results(other, x, grad), results(plain, x, grad), strict=True)
    for got, wanted in found:
        assert got.dtype == wanted.dtype
        assert (got - wanted).norm() < 0.02 * wanted.norm()


def test_the_products_of_a_layer_may_be_computed_in_different_ways() -> None:
    plain, other = pair("4x4 halving", Ways(PLAIN, GEMM, DEPTH), torch.contiguous_format)
    x, grad = torch.randn(2, 6, 8, 8), torch.randn(2, 5, 4, 4)
    for got, wanted in zip(results(other, x, grad), results(plain, x, grad), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_gradient_that_nobody_asks_for_is_not_computed() -> None:
    _, layer = pair("4x4 halving", Ways(GEMM, GEMM, GEMM), torch.contiguous_format)
    weight, bias = layer.parameters()
    weight.requires_grad_(False)
    x = torch.randn(2, 6, 8, 8)
    layer(x).sum().backward()
    assert weight.grad is None and x.grad is None
    assert bias.grad is not None


def test_the_weights_keep_their_names_and_places() -> None:
    network = nn.Sequential(copy.deepcopy(LAYERS["4x4 halving"]), nn.ReLU())
    before = dict(network.named_parameters())
    set_ways(network, {"0": Ways(GEMM, DEPTH, GEMM)})
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is each for name, each in before.items())
    twin = copy.deepcopy(network)
    assert twin[0].ways == network[0].ways
    assert twin[0].weight is not network[0].weight


def test_pixels_in_depth_come_back() -> None:
    x = torch.randn(2, 3, 6, 4)
    assert to_depth(x).shape == (2, 12, 3, 2)
    assert torch.equal(from_depth(to_depth(x)), x)


def test_the_sum_of_patches_is_the_adjoint_of_taking_them() -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    geometry = Geometry(4, 2, 1)
    columns, height, width = patches(x, geometry)
    assert columns.shape == (2 * height * width, 4 * 4 * 3)
    other = torch.randn(columns.shape, dtype=torch.float64)
    back = from_patches(other, (2, 3, 6, 8), geometry)
    torch.testing.assert_close((columns * other).sum(), (x * back).sum())
