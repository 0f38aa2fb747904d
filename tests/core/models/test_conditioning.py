"""What each block is given, against PyTorch's hooks on the whole network at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.models.conditioning import block_terms, term_sizes, term_variations, time_terms
from diffusion_core.models.unet import SimpleUnet, Unet
from diffusion_core.runs.checkpoint import load_conditioning, load_model
from diffusion_core.runs.run import Run
from tests.tiny_runs import LECTURE, TINY, write_run

T = np.array([0, 1, 7, 19])


def outputs(network: nn.Module, ending: str, *inputs: Any) -> dict[str, torch.Tensor]:
    """What the layers whose path ends so return while the network computes."""
    found: dict[str, torch.Tensor] = {}
    layers = {name: each for name, each in network.named_modules() if name.endswith(ending)}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    with torch.no_grad():
        network(*inputs)
    return found


def test_the_lectures_blocks_add_what_a_hook_sees() -> None:
    network = SimpleUnet(widths=[4, 6, 8]).eval()
    terms = dict(time_terms(network, T))
    seen = outputs(network, ".time_mlp", torch.randn(4, 3, 16, 16), torch.from_numpy(T))
    assert list(terms) == ["downs.0", "downs.1", "ups.0", "ups.1"]
    for name, before in seen.items():
        expected = F.relu(before).numpy()
        assert np.array_equal(terms[name.removesuffix(".time_mlp")]["bias"], expected)
    assert len(seen) == 4


@pytest.mark.parametrize("label", [None, 1])
def test_the_unets_blocks_are_scaled_and_shifted_as_a_hook_sees(label: int | None) -> None:
    network = Unet(widths=[8, 16], blocks=1, attention_levels=[1], num_classes=3).eval()
    labels = None if label is None else torch.full((4,), label)
    seen = outputs(network, "scale_shift", torch.randn(4, 3, 16, 16), torch.from_numpy(T), labels)
    terms = dict(time_terms(network, T, label))
    assert [f"{name}.residual.scale_shift" for name in terms] == list(seen)
    for name, both in seen.items():
        given = terms[name.removesuffix(".residual.scale_shift")]
        assert np.array_equal(np.hstack([given["scale"], given["shift"]]), both.numpy())


def test_sizes_are_root_mean_squares_over_the_channels() -> None:
    network = Unet(widths=[8, 16], blocks=1, attention_levels=[]).eval()
    sizes, variations = term_sizes(network, T), term_variations(network, T)
    for k, (_, terms) in enumerate(time_terms(network, T)):
        for term, values in terms.items():
            assert sizes[term].shape == (len(dict(time_terms(network, T))), len(T))
            rms = np.linalg.norm(values, axis=1) / np.sqrt(values.shape[1])
            assert sizes[term][k] == pytest.approx(rms, rel=1e-5)
            spread = np.linalg.norm(values - values.mean(axis=0)) / np.sqrt(values.size)
            assert variations[term][k] == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize("config", [TINY, LECTURE])
def test_of_a_checkpoint_only_what_is_needed_is_read(config: Any, tmp_path: Path) -> None:
    checkpoint = Run(write_run(tmp_path, "run", 40, config=config)).latest_checkpoint()
    network = load_conditioning(checkpoint)
    read = [name for name, each in network.state_dict().items() if not each.is_meta]
    weights = [name for name in read if name.endswith("weight")]
    assert weights and not any("conv" in name or "norm" in name for name in weights)
    model = load_model(checkpoint).model
    assert isinstance(model, (SimpleUnet, Unet))
    whole = dict(time_terms(model, T))
    for block, terms in time_terms(network, T):
        again = block_terms(network, T, block)
        for term, values in terms.items():
            assert np.array_equal(values, whole[block][term])
            assert np.array_equal(values, again[term])
