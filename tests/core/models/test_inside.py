"""A network from the inside, against closed forms, finite differences and PyTorch's own layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_core.models import inside
from diffusion_core.models.inside import WHOLE, Given
from diffusion_core.models.trace import trace
from diffusion_core.models.unet import SimpleUnet, Unet

SIZE = 16
Network = SimpleUnet | Unet


def network(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    built: Network
    if kind == "lecture":
        built = SimpleUnet(widths=(4, 6, 8))
    elif kind == "grey lecture":
        built = SimpleUnet(widths=(4, 6, 8), channels=1)
    else:
        classes = 3 if kind == "conditional" else 0
        built = Unet(3, (8, 16), 1, (1,), patch=2, num_classes=classes)
    for parameter in built.parameters():  # some layers start at zero
        nn.init.normal_(parameter, 0.0, 0.3)
    return built.eval().requires_grad_(False)


def given_to(built: Any, size: int = SIZE) -> Given:
    x = torch.randn(1, built.channels, size, size, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([2]) if getattr(built, "num_classes", 0) else None
    return Given(x, torch.tensor([7]), labels)


def in_float64(built: Any) -> tuple[Any, Given]:
    """Both, for differences with more digits than float32 has."""
    built.double()
    built.time_mlp[0].register_forward_hook(lambda module, args, output: output.double())
    given = given_to(built)
    return built, given._replace(x=given.x.double())


KINDS = ["lecture", "grey lecture", "unet", "conditional"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_blocks_are_those_of_the_trace(kind: str) -> None:
    built = network(kind)
    wanted = [row.name for row in trace(built, SIZE).blocks if row.parameters]
    assert sorted(inside.blocks_of(built)) == sorted(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_changes_the_network_that_others_use(kind: str) -> None:
    built = network(kind)
    given, before = given_to(built), {k: v.clone() for k, v in built.state_dict().items()}
    wanted = built(*given)
    for block in inside.blocks_of(built):
        inside.output_of(built, given, block)
    skips = inside.skips_of(trace(built, SIZE))
    for skip in skips:
        assert not torch.equal(inside.predict_without(built, given, skip), wanted)
    inside.gradient_map(built, given, WHOLE, (3, 4))
    inside.block_seconds(built, given, 1)
    inside.kept_bytes(built, SIZE)
    assert torch.equal(built(*given), wanted)
    assert all(torch.equal(before[name], now) for name, now in built.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in built.modules())
    assert not any(p.requires_grad for p in built.parameters())


def test_the_output_of_the_last_block_is_the_prediction() -> None:
    built = network("lecture")
    given = given_to(built)
    assert torch.equal(inside.output_of(built, given, "output"), built(*given))
    x = built.conv0(given.x)
    assert torch.equal(inside.output_of(built, given, "conv0"), x)
    down = built.downs[0](x, built.time_mlp(given.t))
    assert torch.equal(inside.output_of(built, given, "downs.0"), down)


# ---------------------------------------------------------------- values


def test_a_histogram_is_numpys_and_counts_what_is_not_finite() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    values[:7], values[7:10], values[10] = 0, math.nan, math.inf
    found = inside.histogram_of(values[:100], values[100:].reshape(70, 70))
    finite = values[11:].numpy()
    finite = np.concatenate([np.zeros(7, np.float32), finite])
    counts, edges = np.histogram(finite, inside.BINS)
    assert np.allclose(found.edges, edges)
    assert abs(found.counts - counts).sum() <= 4  # a value on an edge may be in either bin
    assert found.values == len(finite)
    assert (found.zeros, found.not_finite) == (7, 4)
    assert found.mean == pytest.approx(finite.mean(), abs=1e-6)
    assert found.std == pytest.approx(finite.std(), rel=1e-5)


@pytest.mark.parametrize("values", [[], [2.0, 2.0], [math.nan]])
def test_a_histogram_of_one_value_or_none_has_bins(values: list[float]) -> None:
    found = inside.histogram_of(torch.tensor(values))
    assert found.values == sum(not math.isnan(value) for value in values)
    assert (np.diff(found.edges) > 0).all()


def test_feature_maps_are_those_that_vary_most_in_the_order_of_the_channels() -> None:
    maps = torch.zeros(1, 5, 2, 2)
    maps[0, 1] = torch.tensor([[0.0, 1.0], [-2.0, 0.0]])
    maps[0, 3] = torch.tensor([[0.0, 100.0], [50.0, 0.0]])
    maps[0, 4] = 7.0  # the same everywhere
    channels, shown = inside.feature_maps(maps, 2)
    assert channels == [1, 3]
    assert shown.tolist() == [[[128, 192], [1, 128]], [[128, 255], [192, 128]]]
    channels, shown = inside.feature_maps(torch.full((1, 2, 2, 2), math.nan), 9)
    assert (channels, shown.tolist()) == ([0, 1], [[[128] * 2] * 2] * 2)


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("kind", ["unet", "conditional"])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_a_plain_softmax_and_gives_the_layers_output(kind: str, heads: int) -> None:
    built = network(kind)
    [attention] = [part for part in built.ups[0].modules() if hasattr(part, "qkv")]
    attention.heads = heads
    given, seen = given_to(built), dict[str, Tensor]()
    handle = attention.register_forward_hook(
        lambda module, args, output: seen.update(x=args[0], y=output)
    )
    built(*given)
    handle.remove()
    x, y = seen["x"], seen["y"]
    _, channels, height, width = x.shape
    size = channels // heads
    found = {}
    for row, column in [(0, 0), (9, 15), (SIZE - 1, 3)]:
        weights = inside.attention_weights(built, given, "ups.0", (row, column))
        assert weights.shape == (heads, height, width)
        assert torch.allclose(weights.sum(dim=(1, 2)), torch.ones(heads))
        found[row * height // SIZE, column * width // SIZE] = weights
    q, k, v = attention.qkv(attention.norm(x))[0].flatten(1).split(channels)  # (K, positions)
    for (row, column), weights in found.items():
        at = row * width + column
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            plain = torch.softmax(q[own].T @ k[own] / math.sqrt(size), dim=-1)[at]
            assert torch.allclose(weights[head].flatten(), plain, atol=1e-6)
            parts.append(v[own] @ weights[head].flatten())
        attended = attention.out(torch.cat(parts)[None, :, None, None])[0, :, 0, 0]
        assert torch.allclose(x[0, :, row, column] + attended, y[0, :, row, column], atol=1e-5)


def test_blocks_without_attention_say_so() -> None:
    built = network("unet")
    assert inside.attention_in(built, "downs.0") is None
    assert inside.attention_in(built, "downs.1") is None  # the convolution that halves
    assert inside.attention_in(built, "middle.0") is built.middle[0].attention


# ---------------------------------------------------------------- skips


def forward_by_hand(built: Any, given: Given, zeroed: int | None) -> Tensor:
    """The forward pass with skip number `zeroed`, in the order in which they are made, as zeros."""
    skips: list[Tensor] = []

    def skip(x: Tensor) -> Tensor:
        skips.append(torch.zeros_like(x) if len(skips) == zeroed else x)
        return x

    if isinstance(built, SimpleUnet):
        time, x = built.time_mlp(given.t), built.conv0(given.x)
        for down in built.downs:
            x = skip(down(x, time))
        for up in built.ups:
            x = up(torch.cat((x, skips.pop()), dim=1), time)
        return built.output(x)
    emb = built.time_mlp(given.t)
    if given.labels is not None:
        emb = emb + built.label_embedding(given.labels)
    emb = nn.functional.silu(emb)
    x = skip(built.stem(nn.functional.pixel_unshuffle(given.x, built.patch)))
    for part in built.downs:
        x = skip(part(x) if isinstance(part, nn.Conv2d) else part(x, emb))
    for part in built.middle:
        x = part(x, emb)
    for part in built.ups:
        if isinstance(part, nn.Sequential):
            x = part(x)
        else:
            x = part(torch.cat((x, skips.pop()), dim=1), emb)
    x = built.output(nn.functional.silu(built.norm(x)))
    return nn.functional.pixel_shuffle(x, built.patch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_skip_that_is_off_is_one_of_zeros(kind: str) -> None:
    built = network(kind)
    given = given_to(built)
    skips = inside.skips_of(trace(built, SIZE))
    whole = inside.predict_without(built, given, None)
    assert torch.equal(whole, built(*given))
    assert torch.allclose(whole, forward_by_hand(built, given, None), atol=1e-5)
    for place, skip in enumerate(reversed(skips)):
        found = inside.predict_without(built, given, skip)
        assert torch.allclose(found, forward_by_hand(built, given, place), atol=1e-5), skip
        assert not torch.allclose(found, whole, atol=1e-4)


def test_skips_are_named_by_their_ends_the_deepest_first() -> None:
    found = inside.skips_of(trace(network("lecture"), SIZE))
    named = [(skip.source, skip.target, skip.channels) for skip in found]
    assert named == [("downs.1", "ups.0", 8), ("downs.0", "ups.1", 6)]
    of_unet = inside.skips_of(trace(network("unet"), SIZE))
    assert of_unet[-1] == inside.Skip("stem", "ups.4", 8)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", ["lecture", "conditional"])
@pytest.mark.parametrize("block", [WHOLE, "output"])
def test_the_gradient_is_that_of_finite_differences(kind: str, block: str) -> None:
    built, given = in_float64(network(kind))
    found = inside.gradient_map(built, given, block, (5, 9))
    assert found.shape == (SIZE, SIZE)

    def output(x: Tensor) -> Tensor:
        changed = given._replace(x=x)
        if block == WHOLE:
            return built(*changed)[0, :, 5, 9]
        shown = inside.output_of(built, changed, block)
        step = SIZE // shown.shape[-1]
        return shown[0, :, 5 // step, 9 // step]

    few = block == WHOLE or kind == "lecture"  # else the channels are mixed
    for row, column in [(5, 9), (4, 10), (0, 0)]:
        square = 0.0
        for channel in range(built.channels):
            step = torch.zeros_like(given.x)
            step[0, channel, row, column] = 1e-6
            change = (output(given.x + step) - output(given.x - step)) / 2e-6
            square += float(change.square().sum())
        if few:
            assert float(found[row, column]) == pytest.approx(square**0.5, rel=1e-3, abs=1e-7)
        else:
            assert (float(found[row, column]) > 0) == (square > 0)


def test_the_gradient_of_a_block_is_that_of_the_whole_jacobian() -> None:
    built, given = in_float64(network("unet"))

    def output(x: Tensor) -> Tensor:
        shown = built.stem(nn.functional.pixel_unshuffle(x, 2))
        return built.downs[0](shown, nn.functional.silu(built.time_mlp(given.t)))[0, :, 2, 4]

    jacobian = torch.autograd.functional.jacobian(output, given.x)
    assert len(jacobian) == inside.FEW_CHANNELS
    found = inside.gradient_map(built, given, "downs.0", (5, 9))
    assert torch.allclose(found, jacobian.square().sum(dim=(0, 1, 2)).sqrt())


def test_mixtures_of_many_channels_keep_squares_on_average() -> None:
    mixtures = inside._mixtures(1000)
    assert mixtures.shape == (inside.PROBES, 1000)
    assert torch.allclose(mixtures.square().sum(dim=0), torch.ones(1000))
    vectors = torch.randn(1000, 500, generator=torch.Generator().manual_seed(3))
    estimated = (mixtures @ vectors).square().sum(dim=0) / vectors.square().sum(dim=0)
    assert float(estimated.mean()) == pytest.approx(1, abs=0.1)


def convolutions(*layers: tuple[int, int]) -> int:
    """The side of the receptive field of convolutions of (kernel, stride)."""
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step * stride
    return side


def test_the_receptive_field_of_the_lectures_blocks_is_that_of_their_convolutions() -> None:
    built = network("lecture")
    given = given_to(built, 64)
    block = [(3, 1), (3, 1), (4, 2)]
    for name, layers in {
        "conv0": [(3, 1)],
        "downs.0": [(3, 1), *block],
        "downs.1": [(3, 1), *block, *block],
    }.items():
        found = inside.gradient_map(built, given, name, (31, 32)).numpy()
        side = convolutions(*layers)
        assert inside.reach(found) == (side, side), name
    at_corner = inside.gradient_map(built, given, "conv0", (0, 63)).numpy()
    assert inside.reach(at_corner) == (2, 2)
    assert at_corner[0, 63] > 0


def test_the_cell_of_a_pixel_is_right_where_the_lectures_network_pads() -> None:
    built = SimpleUnet(widths=(4, 4, 4, 4, 4)).eval().requires_grad_(False)
    assert inside.cell_of(built, torch.empty(1, 3, 24, 24), (23, 15), 2, 2) == (1, 0)
    found = inside.gradient_map(built, given_to(built, 24), WHOLE, (23, 20)).numpy()
    assert found.shape == (24, 24)


def test_the_extent_of_a_gradient() -> None:
    gradient = np.zeros((9, 9))
    assert inside.reach(gradient) == (0, 0)
    gradient[4, 4], gradient[3, 6], gradient[8, 0] = 6.0, 3.0, 1.0
    assert inside.reach(gradient) == (6, 7)
    assert inside.side_holding(gradient, (4, 4), 0.5) == 1
    assert inside.side_holding(gradient, (4, 4), 0.9) == 5
    assert inside.side_holding(gradient, (4, 4), 0.95) == 9


# ---------------------------------------------------------------- time and memory


def test_the_time_of_each_block_is_the_median_without_the_first_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = network("lecture")
    clock = iter(np.cumsum(np.arange(10_000)) / 1e6)  # each look later than the one before
    monkeypatch.setattr(inside.time, "perf_counter", lambda: next(clock))
    found = inside.block_seconds(built, given_to(built), repeats=3, most_seconds=1e9)
    assert set(found) == {WHOLE, *inside.blocks_of(built)}
    blocks = sum(seconds for name, seconds in found.items() if name)
    assert 0 < blocks < found[WHOLE]


def test_no_pass_begins_after_the_time_is_over() -> None:
    built = network("unet")
    calls: list[Any] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: calls.append(module) if isinstance(module, Unet) else None
    )
    try:
        found = inside.block_seconds(built, given_to(built), repeats=1000, most_seconds=0.0)
    finally:
        handle.remove()
    assert len(calls) == 1
    assert found[WHOLE] > 0


def test_what_a_training_step_keeps_of_the_lectures_block_is_its_five_maps() -> None:
    built = network("lecture")
    found = inside.kept_bytes(built, SIZE)
    pixels, of_float = SIZE * SIZE, 4
    # conv0 needs its input; a block its input, both ReLUs' results, conv2's and transform's input.
    assert found["conv0"] == 3 * pixels * of_float
    norms = 2 * 2 * 6 * of_float // 2  # BatchNorm's statistics belong to the whole batch of two
    of_time = 6 * of_float
    block = (4 + 4 * 6) * pixels * of_float
    assert block <= found["downs.0"] <= block + norms + 8 * of_time


def test_what_is_kept_is_what_a_real_pass_keeps() -> None:
    built = network("conditional")
    given = given_to(built)
    real = inside.twin(built).requires_grad_(True)
    storages: dict[int, Tensor] = {}
    own = {p.untyped_storage().data_ptr() for p in [*real.parameters(), *real.buffers()]}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        real(*given)
    total = sum(tensor.untyped_storage().nbytes() for tensor in storages.values())
    assert sum(inside.kept_bytes(built, SIZE).values()) == pytest.approx(total, rel=0.1)
