"""The trace of a forward pass: the lecture's printed shapes, and costs that add up.

PyTorch's FlopCounterMode, which counts in its own way, is the reference for the multiply-adds.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_core.models.trace import Trace, TraceRow, trace
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.runs.presets import build_model

# What the lecture prints for one 64×64 image with its `verbose` switch.
PRINTED_SHAPES = {
    "conv0": (1, 64, 64, 64),
    "downs.0": (1, 128, 32, 32),
    "downs.1": (1, 256, 16, 16),
    "downs.2": (1, 512, 8, 8),
    "downs.3": (1, 1024, 4, 4),
    "ups.0": (1, 512, 8, 8),
    "ups.1": (1, 256, 16, 16),
    "ups.2": (1, 128, 32, 32),
    "ups.3": (1, 64, 64, 64),
    "output": (1, 3, 64, 64),
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "lecture": ("lecture", {}),
    "small": ("small", {}),
    "small with classes": ("small", {"num_classes": 8}),
    "two blocks a level": ("small", {"blocks": 2, "num_classes": 3}),
    "one level": ("small", {"widths": [32], "attention_levels": [0], "patch": 1}),
}


@functools.cache
def network(name: str) -> SimpleUnet | Unet:
    preset, changes = NETWORKS[name]
    with torch.device("meta"):
        return build_model(preset, **changes)


@functools.cache
def lecture() -> Trace:
    return trace(network("lecture"), 64)


def inside(rows: tuple[TraceRow, ...], block: str) -> list[TraceRow]:
    return [row for row in rows if row.name.startswith(f"{block}.")]


def test_the_lectures_shapes_are_the_ones_that_it_prints() -> None:
    shapes = [(row.name, row.output) for row in lecture().blocks]
    assert [(n, s) for n, s in shapes if n in PRINTED_SHAPES] == list(PRINTED_SHAPES.items())
    assert {name for name, _ in shapes} - set(PRINTED_SHAPES) == {"time_mlp", "cat"}


def test_the_inside_of_the_first_down_block_is_the_lectures_in_its_order() -> None:
    rows = inside(lecture().rows, "downs.0")
    assert [(row.name.removeprefix("downs.0."), row.output) for row in rows] == [
        ("conv1", (1, 128, 64, 64)),
        ("relu", (1, 128, 64, 64)),
        ("bnorm1", (1, 128, 64, 64)),
        ("time_mlp", (1, 128)),
        ("relu", (1, 128)),
        ("time_term", (1, 128, 1, 1)),
        ("conv2", (1, 128, 64, 64)),
        ("relu", (1, 128, 64, 64)),
        ("bnorm2", (1, 128, 64, 64)),
        ("transform", (1, 128, 32, 32)),
    ]


def test_the_lectures_up_blocks_are_given_both_halves() -> None:
    given = [row.inputs for row in lecture().blocks if row.part == "ups"]
    assert [x for x, time in given] == [
        (1, 2048, 4, 4),
        (1, 1024, 8, 8),
        (1, 512, 16, 16),
        (1, 256, 32, 32),
    ]
    assert {time for x, time in given} == {(1, 32)}


def test_skips_are_traced_to_the_block_that_made_them() -> None:
    traced = lecture()
    joined = [row for row in traced.blocks if row.name == "cat"]
    sources = [traced.rows[row.skip_from].name for row in joined]
    assert sources == ["downs.3", "downs.2", "downs.1", "downs.0"]
    assert [row.what for row in joined] == [
        "concatenated with itself",
        "concatenated with downs.2",
        "concatenated with downs.1",
        "concatenated with downs.0",
    ]


def test_the_lectures_totals_are_the_known_ones() -> None:
    traced = lecture()
    assert traced.parameters == 62_438_883
    assert 2 * traced.multiply_adds == 11_457_976_320  # the 11.46 GFLOP of a forward pass


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [16, 64])
def test_blocks_add_up_to_the_network(name: str, size: int) -> None:
    built = network(name)
    traced = trace(built, size)
    with FlopCounterMode(display=False) as reference, torch.no_grad():
        x = torch.empty(1, 3, size, size, device="meta")
        built.eval()(x, torch.zeros(1, dtype=torch.long, device="meta"))
    assert 2 * traced.multiply_adds == reference.get_total_flops()
    assert traced.parameters == sum(parameter.numel() for parameter in built.parameters())
    assert traced.blocks[-1].output == traced.image == (1, 3, size, size)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_inside_a_block_adds_up_to_the_block(name: str) -> None:
    rows = trace(network(name), 32).rows
    parents = 0
    for k, row in enumerate(rows):
        end = next((j for j in range(k + 1, len(rows)) if rows[j].depth <= row.depth), len(rows))
        children = [r for r in rows[k + 1 : end] if r.depth == row.depth + 1]
        if children:
            parents += 1
            assert sum(r.parameters for r in children) == row.parameters, row.name
            assert sum(r.multiply_adds for r in children) == row.multiply_adds, row.name
            assert all(r.name.startswith(f"{row.name}.") for r in children)
    assert parents >= 5


def test_multiply_adds_of_single_layers_are_those_of_the_textbook() -> None:
    rows = {row.name: row for row in trace(network("small with classes"), 64).rows}
    assert rows["stem"].multiply_adds == 32 * 12 * 9 * 32 * 32
    assert rows["time_mlp.1"].multiply_adds == 32 * 128
    positions, channels = 8 * 8, 96  # queries with keys, weights with values
    assert rows["downs.4.attention.softmax"].multiply_adds == 2 * positions**2 * channels
    transposed = {row.name: row for row in lecture().rows}["ups.0.transform"]
    assert transposed.multiply_adds == 512 * 512 * 16 * 4 * 4  # per pixel that goes in


def test_the_network_is_left_as_it_was() -> None:
    built: Any = SimpleUnet(widths=[4, 8])
    built.downs[0].bnorm1.eval()
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    modes = [module.training for module in built.modules()]
    traced = trace(built, 16)
    assert traced.parameters == sum(parameter.numel() for parameter in built.parameters())
    assert [module.training for module in built.modules()] == modes
    after = built.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.device.type == "cpu" for tensor in after.values())
    assert not any(module._forward_hooks for module in built.modules())


def test_a_layer_that_is_called_again_has_its_parameters_once() -> None:
    class Twice(SimpleUnet):
        again: nn.Module

        def forward(self, x: torch.Tensor, t: torch.Tensor, labels=None) -> torch.Tensor:
            return self.again(self.again(x))

    built = Twice(widths=[4, 8])
    built.again = nn.Conv2d(3, 3, 1)
    rows = trace(built, 16).rows
    assert [(row.name, row.parameters) for row in rows] == [("again", 12), ("again", 0)]
    assert [row.multiply_adds for row in rows] == [9 * 16 * 16] * 2


@pytest.mark.parametrize(("name", "size"), [("lecture", 20), ("small", 20), ("small", 0)])
def test_a_size_that_does_not_fit_gets_a_sentence(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size}×{size}; this network needs"):
        trace(network(name), size)
