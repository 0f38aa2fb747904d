"""How many images fit: the estimate against what PyTorch really keeps, and its limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_network
from diffusion_core.training import micro_batches
from diffusion_core.training.micro_batches import activation_bytes, fitting_micro_batch
from tests.tiny_runs import LECTURE, tiny

CPU = torch.device("cpu")
SETTINGS = {
    "unet": tiny(image_size=32, network_args={"widths": [16, 32], "attention_levels": [1]}),
    "lecture": LECTURE,
    "grey": tiny(
        channels=1, network_args={"widths": [16, 32], "channels": 1, "attention_levels": []}
    ),
}


def really_kept(config: RunConfig, images: int) -> int:
    """Bytes of the different storages that a real forward pass keeps for the backward pass."""
    network = build_network(config.network, config.network_args)
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    x = torch.randn(images, config.channels, config.image_size, config.image_size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x, torch.zeros(images, dtype=torch.long))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_estimate_is_never_below_what_is_kept_and_not_far_above(name: str) -> None:
    config = SETTINGS[name]
    kept = really_kept(config, 8) / 8
    assert kept <= activation_bytes(config) * 1.02
    assert activation_bytes(config) <= 1.6 * kept


@pytest.mark.parametrize(
    ("room", "wanted"),
    [(1000.0, 32), (40.0, 32), (31.0, 16), (12.0, 11), (1.5, 1), (0.0, 1), (-5.0, 1)],
)
def test_the_batch_is_cut_into_even_parts_that_fit(
    monkeypatch: pytest.MonkeyPatch, room: float, wanted: int
) -> None:
    """`room`: for how many images there is memory beside the weights."""
    config = SETTINGS["unet"]
    network = build_network(config.network, config.network_args)
    weights = sum(p.numel() for p in network.parameters()) * 4
    fixed = weights * (micro_batches.COPIES + 1)
    free = (fixed + room * activation_bytes(config)) / micro_batches.SHARE_OF_FREE
    monkeypatch.setattr(micro_batches, "free_memory", lambda device: int(free) + 1)
    assert fitting_micro_batch(config, CPU, 32) == wanted


def test_further_averages_take_room(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SETTINGS["lecture"]
    weights = sum(
        p.numel() for p in build_network(config.network, config.network_args).parameters()
    )
    free = (weights * 4 * 5 + 8 * activation_bytes(config)) / micro_batches.SHARE_OF_FREE + 1
    monkeypatch.setattr(micro_batches, "free_memory", lambda device: int(free))
    assert fitting_micro_batch(config, CPU, 8) == 8
    many = {f"a{k}": 0.9 for k in range(40)}
    assert fitting_micro_batch(config.replace(ema_decays=many), CPU, 8) < 8


def test_a_teacher_and_a_critic_take_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "free_memory", lambda device: 400_000_000)
    config = SETTINGS["unet"].replace(
        objective="consistency", consistency_by="paths", init_from="teacher", min_snr_gamma=0.0
    )
    alone = fitting_micro_batch(SETTINGS["unet"], CPU, 10_000)
    taught = fitting_micro_batch(config, CPU, 10_000)
    assert alone > taught > fitting_micro_batch(config.replace(matching_share=0.5), CPU, 10_000)
