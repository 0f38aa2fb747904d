"""DINOv2: the network against PyTorch's own layers, and the files that it is read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from diffusion_core.evaluation.dinov2 import SETTING, Block, VisionTransformer, load_dinov2

WIDTH = 128  # two heads


def some_network(depth: int = 2, side: int = 4) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(WIDTH, depth, 1 + side**2)
    for tensor in model.state_dict().values():
        tensor.copy_(0.2 * torch.randn(tensor.shape))
    return model.eval()


def same_layer(block: Block) -> nn.TransformerEncoderLayer:
    """PyTorch's layer with the weights of a block, into which the scales are multiplied."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, WIDTH // 64, 4 * WIDTH, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )
    of = block.state_dict()
    pairs = {
        "self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.", "linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2.",
    }  # fmt: skip
    scales = {"attn.proj.": of["ls1.gamma"], "mlp.fc2.": of["ls2.gamma"]}
    found = {}
    for theirs, ours in pairs.items():
        for kind in ("weight", "bias"):
            tensor = of[ours + kind]
            if ours in scales:
                tensor = tensor * scales[ours].reshape(-1, *[1] * (tensor.ndim - 1))
            found[theirs + kind] = tensor
    layer.load_state_dict(found)
    return layer.eval()


def test_a_block_is_pytorchs_transformer_layer_with_the_scales_in_its_weights() -> None:
    model = some_network()
    x = torch.randn(3, 17, WIDTH)
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Block)
            assert torch.allclose(block(x), same_layer(block)(x), atol=1e-4)


def test_the_network_is_patches_positions_blocks_and_the_norm_of_the_class_token() -> None:
    model = some_network()
    x = torch.randn(2, 3, 56, 56)
    tensors = model.state_dict()
    patches = x.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).reshape(2, 16, -1)
    tokens = patches @ tensors["patch_embed.proj.weight"].flatten(1).T
    tokens = tokens + tensors["patch_embed.proj.bias"]
    tokens = torch.cat([tensors["cls_token"].expand(2, -1, -1), tokens], 1) + tensors["pos_embed"]
    with torch.no_grad():
        for block in model.blocks:
            assert isinstance(block, Block)
            tokens = same_layer(block)(tokens)
        token = tokens[:, 0]
        token = (token - token.mean(1, keepdim=True)) / token.std(1, correction=0, keepdim=True)
        expected = token * tensors["norm.weight"] + tensors["norm.bias"]
        assert torch.allclose(model(x), expected, atol=1e-3)


def test_positions_of_other_sizes_keep_the_class_tokens_and_a_plane_stays_one() -> None:
    model = some_network(side=37)
    slope = torch.linspace(-1, 1, 37)
    with torch.no_grad():
        model.pos_embed[0, 1:] = (slope[:, None] + 2 * slope).reshape(-1, 1)
        found = model.positions(16, 16)
    assert found.shape == (1, 257, WIDTH)
    assert torch.equal(found[:, 0], model.pos_embed[:, 0])
    plane = found[0, 1:, 0].reshape(16, 16)[2:-2, 2:-2]
    step = 37 / 16.1 * 2 / 36  # between the middles of two patches
    assert (plane[-1] - plane[0]) / 11 == pytest.approx(step, rel=0.01)
    assert (plane[:, -1] - plane[:, 0]) / 11 == pytest.approx(2 * step, rel=0.01)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_both_kinds_of_file_are_read_and_any_size_of_image_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = tmp_path / name, some_network(1, 16)
    if name.endswith("pth"):
        torch.save(model.state_dict(), path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    monkeypatch.setenv(SETTING, str(path))
    net, why = load_dinov2()
    assert net is not None and (why, net.name) == ("", name)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = net.features(images, batch=2)
    assert found.shape == (3, WIDTH) and found.dtype == np.float32
    grey = np.repeat(images[..., :1], 3, axis=3)
    assert np.allclose(net.features(images[..., :1]), net.features(grey), atol=1e-5)
    flat = net.features(np.full((1, 64, 64, 3), 255, np.uint8))
    white = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    with torch.no_grad():
        expected = model(white[:, None, None].expand(1, 3, 224, 224))
    assert flat == pytest.approx(expected.numpy(), abs=1e-3)


def test_without_the_setting_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert load_dinov2() == (None, "")


class Harm:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_other_files_get_a_sentence_and_nothing_is_unpickled(tmp_path: Path) -> None:
    def said_of(name: str) -> str:
        net, why = load_dinov2(weights=tmp_path / name)
        assert net is None and why.startswith(f"FD-DINOv2 was not measured: {tmp_path / name}")
        return why

    assert "cannot be read" in said_of("missing.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "cannot be read" in said_of("text.pth") and "cannot be read" in said_of(
        "text.safetensors"
    )
    torch.save(Harm(tmp_path / "harm"), tmp_path / "harm.pth")
    assert "cannot be read" in said_of("harm.pth") and not (tmp_path / "harm").exists()
    tensors: dict[str, Tensor] = some_network(1, 4).state_dict()
    wrong = {
        "other": {"weight": torch.zeros(3)},
        "lacking": {name: each for name, each in tensors.items() if name != "norm.bias"},
        "registers": tensors | {"register_tokens": torch.zeros(1, 4, WIDTH)},
        "numbers": dict.fromkeys(tensors, 3.0),
        "list": [tensors],
    }
    for name, content in wrong.items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert "does not hold the weights of a DINOv2 network" in said_of(f"{name}.pth"), name
