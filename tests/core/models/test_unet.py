"""The lecture's network held against its figures and its formulas, and the improved one's promises.

Everything about the lecture is from its printed output; `Block` is computed again by hand.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_core.models.unet import Block, SelfAttention, SimpleUnet, Unet, group_count
from diffusion_core.runs import presets
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.presets import build_model, build_network

LECTURE_WIDTHS = (64, 128, 256, 512, 1024)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(build, *args, **kwargs):
    with torch.device("meta"):
        return build(*args, **kwargs)


def narrow_lecture() -> SimpleUnet:
    """The lecture's structure with a sixteenth of its channels, for computing in no time."""
    return SimpleUnet(widths=[width // 16 for width in LECTURE_WIDTHS]).eval()


def small_unet(**changes) -> Unet:
    settings = {"widths": (16, 32), "blocks": 1, "attention_levels": (1,), "patch": 2}
    return Unet(**{**settings, **changes})


def awake(network: Unet) -> Unet:
    """The network with its zero-initialised layers filled, so that its output says something."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


# ---------------------------------------------------------------- the lecture's network


def test_the_lectures_network_has_62438883_parameters() -> None:
    assert count(on_meta(SimpleUnet)) == 62_438_883
    assert count(on_meta(build_model, "lecture")) == 62_438_883


def test_the_lectures_layers_are_the_ones_that_it_lists() -> None:
    network = on_meta(SimpleUnet)
    _, linear, relu = network.time_mlp
    assert network.time_mlp[0].emb_size == 32
    assert (linear.in_features, linear.out_features) == (32, 32)
    assert isinstance(relu, nn.ReLU)
    convs = [network.conv0, network.output]
    assert [tuple(conv.weight.shape) for conv in convs] == [(64, 3, 3, 3), (3, 64, 1, 1)]
    assert len(network.downs) == len(network.ups) == 4


@pytest.mark.parametrize("level", range(4))
def test_a_down_block_of_the_lecture_doubles_the_channels(level: int) -> None:
    block = on_meta(SimpleUnet).downs[level]
    narrow, wide = LECTURE_WIDTHS[level : level + 2]
    assert tuple(block.conv1.weight.shape) == (wide, narrow, 3, 3)
    assert tuple(block.conv2.weight.shape) == (wide, wide, 3, 3)
    assert tuple(block.time_mlp.weight.shape) == (wide, 32)
    assert isinstance(block.transform, nn.Conv2d)
    assert tuple(block.transform.weight.shape) == (wide, wide, 4, 4)
    assert (block.transform.stride, block.transform.padding) == ((2, 2), (1, 1))


@pytest.mark.parametrize("level", range(4))
def test_an_up_block_of_the_lecture_takes_the_skip_beside_its_input(level: int) -> None:
    block = on_meta(SimpleUnet).ups[level]
    wide, narrow = LECTURE_WIDTHS[::-1][level : level + 2]
    assert tuple(block.conv1.weight.shape) == (narrow, 2 * wide, 3, 3)
    assert isinstance(block.transform, nn.ConvTranspose2d)
    assert tuple(block.transform.weight.shape) == (narrow, narrow, 4, 4)
    assert (block.transform.stride, block.transform.padding) == ((2, 2), (1, 1))


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_block_applies_relu_before_the_norm(up: bool, training: bool) -> None:
    block = Block(6, 10, time_emb_size=32, up=up).train(training)
    for layer in (block.bnorm1, block.bnorm2):  # as after some training
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    x, time = torch.randn(3, 12 if up else 6, 8, 8), torch.randn(3, 32)
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}

    def norm(layer: nn.BatchNorm2d, name: str, h: Tensor) -> Tensor:
        mean, variance = before[f"{name}.running_mean"], before[f"{name}.running_var"]
        if training:
            mean, variance = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        unit = (h - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return unit * layer.weight[:, None, None] + layer.bias[:, None, None]

    h = F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1)
    h = norm(block.bnorm1, "bnorm1", h.clamp(min=0))
    term = (time @ block.time_mlp.weight.T + block.time_mlp.bias).clamp(min=0)
    h = h + term.reshape(3, 10, 1, 1)
    h = F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1)
    h = norm(block.bnorm2, "bnorm2", h.clamp(min=0))
    resize = F.conv_transpose2d if up else F.conv2d
    transform: Any = block.transform
    expected = resize(h, transform.weight, transform.bias, stride=2, padding=1)

    torch.testing.assert_close(block(x, time), expected, rtol=1e-4, atol=1e-5)


def test_the_deepest_skip_is_joined_to_itself_and_the_others_to_their_level() -> None:
    network = narrow_lecture()
    given: list[Tensor] = []
    made: list[Tensor] = []
    for block in network.ups:
        block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    for block in [*network.downs, *network.ups]:
        block.register_forward_hook(lambda _, args, output: made.append(output))
    with torch.no_grad():
        network(torch.randn(2, 3, 32, 32), torch.tensor([0, 299]))
    downs, ups = made[:4], made[4:]
    below = [downs[3], *ups[:3]]
    for level in range(4):
        assert torch.equal(given[level], torch.cat((below[level], downs[3 - level]), dim=1))
    first, second = given[0].chunk(2, dim=1)
    assert torch.equal(first, second)


def test_the_lectures_network_is_its_blocks_one_after_the_other() -> None:
    network = narrow_lecture()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([7, 200])
    with torch.no_grad():
        time = F.relu(network.time_mlp[1](network.time_mlp[0](t)))
        d0 = network.downs[0](network.conv0(x), time)
        d1 = network.downs[1](d0, time)
        d2 = network.downs[2](d1, time)
        d3 = network.downs[3](d2, time)
        u = network.ups[0](torch.cat((d3, d3), dim=1), time)
        u = network.ups[1](torch.cat((u, d2), dim=1), time)
        u = network.ups[2](torch.cat((u, d1), dim=1), time)
        u = network.ups[3](torch.cat((u, d0), dim=1), time)
        assert torch.equal(network(x, t), network.output(u))


def test_the_lectures_network_hears_of_the_step() -> None:
    network, x = narrow_lecture(), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        early, late = (network(x, torch.tensor([t])) for t in (0, 299))
    assert not torch.equal(early, late)


def test_the_lectures_network_takes_no_labels() -> None:
    with pytest.raises(ValueError, match="takes no labels"):
        narrow_lecture()(torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("shape", [(20, 24), (64, 36), (12, 16)])
def test_the_lectures_network_names_the_sizes_that_it_needs(shape: tuple[int, int]) -> None:
    height, width = shape
    with pytest.raises(ValueError, match=f"{height}×{width}; .* divisible by 8"):
        narrow_lecture()(torch.zeros(1, 3, height, width), torch.zeros(1))


@pytest.mark.parametrize("size", [24, 40])
def test_the_lectures_network_fills_up_sizes_between_its_own_and_cuts_them_again(size: int) -> None:
    network = narrow_lecture().eval()
    x, t = torch.randn(2, 3, size, size), torch.tensor([3, 7])
    filled = torch.zeros(2, 3, size + 8, size + 8)
    filled[..., :size, :size] = x
    assert torch.equal(network(x, t), network(filled, t)[..., :size, :size])


def test_the_lectures_network_takes_images_that_are_not_square() -> None:
    with torch.no_grad():
        assert narrow_lecture()(torch.zeros(2, 3, 16, 48), torch.zeros(2)).shape == (2, 3, 16, 48)


# ---------------------------------------------------------------- the improved network


def test_small_with_classes_has_3_to_6_million_parameters() -> None:
    assert 3_000_000 <= count(on_meta(build_model, "small", num_classes=8)) <= 6_000_000


def test_every_preset_builds_and_keeps_the_shape_of_its_images() -> None:
    for name, config in presets.PRESETS.items():
        network = on_meta(build_model, name).eval()
        size = config.image_size
        x = torch.empty(2, 3, size, size, device="meta")
        output = network(x, torch.zeros(2, dtype=torch.long, device="meta"))
        assert output.shape == x.shape, name


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_an_untrained_network_answers_with_zeros(patch: int) -> None:
    network = small_unet(patch=patch, num_classes=3)
    answer = network(torch.randn(2, 3, 32, 32), torch.tensor([1, 9]), torch.tensor([0, 2]))
    assert answer.shape == (2, 3, 32, 32)
    assert not answer.any()


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 4),
    widths=st.lists(st.sampled_from([4, 8, 20, 24]), min_size=1, max_size=3),
    blocks=st.integers(1, 2),
    patch=st.sampled_from([1, 2, 4]),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
)
def test_the_answer_has_the_shape_of_the_image(
    channels: int, widths: list[int], blocks: int, patch: int, rows: int, columns: int
) -> None:
    network = on_meta(Unet, channels, widths, blocks, [len(widths) - 1], patch)
    step = network.size_multiple
    x = torch.empty(2, channels, rows * step, columns * step, device="meta")
    assert network(x, torch.zeros(2, device="meta")).shape == x.shape


def test_without_labels_means_any_class() -> None:
    network = awake(small_unet(num_classes=3))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([5, 50])
    with torch.no_grad():
        any_class = network(x, t, torch.full((2,), 3))
        assert torch.equal(network(x, t), any_class)
        assert not torch.allclose(network(x, t, torch.tensor([0, 1])), any_class)


def test_an_images_answer_does_not_depend_on_the_others_in_its_batch() -> None:
    network = awake(small_unet(num_classes=3))
    x, t, labels = torch.randn(3, 3, 16, 16), torch.tensor([0, 5, 50]), torch.tensor([2, 0, 3])
    with torch.no_grad():
        together = network(x, t, labels)
        alone = torch.cat([network(*(v[k : k + 1] for v in (x, t, labels))) for k in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_labels_for_a_network_without_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="built without classes"):
        small_unet()(torch.zeros(1, 3, 16, 16), torch.zeros(1), torch.zeros(1))


def test_the_improved_network_names_the_sizes_that_it_needs() -> None:
    with pytest.raises(ValueError, match=r"18×16; .* divisible by 4"):
        small_unet()(torch.zeros(1, 3, 18, 16), torch.zeros(1))


def test_attention_is_softmax_of_the_scaled_products_added_to_its_input() -> None:
    layer = SelfAttention(128)
    assert layer.heads == 2
    nn.init.normal_(layer.out.weight, std=0.1)
    x = torch.randn(2, 128, 3, 5)
    with torch.no_grad():
        flat = layer.norm(x).flatten(2).mT  # (B, positions, channels)
        q, k, v = (flat @ layer.qkv.weight[..., 0, 0].T + layer.qkv.bias).chunk(3, dim=-1)
        heads = []
        for head in (slice(0, 64), slice(64, 128)):
            weights = (q[..., head] @ k[..., head].mT / 64**0.5).softmax(dim=-1)
            heads.append(weights @ v[..., head])
        mixed = torch.cat(heads, dim=-1) @ layer.out.weight[..., 0, 0].T + layer.out.bias
        expected = x + mixed.mT.reshape(x.shape)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [4, 64, 96, 130, 160, 200, 320])
def test_attention_heads_divide_the_channels(channels: int) -> None:
    layer = SelfAttention(channels)
    assert channels % layer.heads == 0
    assert layer(torch.randn(1, channels, 2, 2)).shape == (1, channels, 2, 2)


def test_group_norm_has_groups_of_four_or_more_channels() -> None:
    assert [group_count(c) for c in (3, 4, 8, 96, 128, 160)] == [1, 1, 2, 16, 32, 32]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"widths": []}, "one positive number per level"),
        ({"widths": [64, 0]}, "one positive number per level"),
        ({"blocks": 0}, "blocks is 0; it must be at least 1"),
        ({"patch": 0}, "patch is 0; it must be at least 1"),
        ({"num_classes": -1}, "num_classes is -1; it must be at least 0"),
        ({"widths": [16, 32], "attention_levels": [1, 2]}, "there are levels 0 to 1"),
        ({"widths": [15, 32], "attention_levels": []}, "emb_size must be even"),
        ({"depth": 3}, "there is no depth"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        on_meta(build_network, "unet", arguments)


def test_the_lectures_network_refuses_a_single_image_of_16_pixels_in_training_mode() -> None:
    """Its deepest maps are one pixel each: BatchNorm would have the statistics of one value."""
    network = SimpleUnet([4, 4, 4, 4, 4]).train()
    t = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="halves 16 pixels to a single one, so BatchNorm"):
        network(torch.zeros(1, 3, 16, 16), t[:1])
    assert network(torch.zeros(2, 3, 16, 16), t).shape == (2, 3, 16, 16)
    assert network(torch.zeros(1, 3, 24, 24), t[:1]).shape == (1, 3, 24, 24)
    assert network.eval()(torch.zeros(1, 3, 16, 16), t[:1]).shape == (1, 3, 16, 16)
