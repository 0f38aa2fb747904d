"""What a run takes over from another kind of device, and what it leaves there.

The other device is played by this one: its order of the weights in memory, its kernels.
"""

from __future__ import annotations

import shutil
import traceback
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_core.device import kind_of
from diffusion_core.runs import checkpoint
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.run import load_run
from diffusion_core.training import context
from diffusion_core.training.device_turn import memory_returned
from diffusion_core.training.trainer import train
from tests.core.training.test_trainer import stop_after, weights_of
from tests.tiny_runs import DEVICE, same, tiny


@pytest.mark.parametrize("before", [True, False])
def test_the_optimizer_goes_on_where_the_weights_lie_otherwise_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """`before`: whether they were in the order of a GPU before the resume."""
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    train(whole, tiny(), device=DEVICE)
    with monkeypatch.context() as patch:
        patch.setattr(context, "use_channels_last", lambda *_: before)
        assert train(moved, tiny(), device=DEVICE, on_step=stop_after(moved, 3)) == "stopped"
    monkeypatch.setattr(context, "use_channels_last", lambda *_: not before)
    assert train(moved, resume=True, device=DEVICE) == "finished"
    wanted, found = weights_of(whole, 8), weights_of(moved, 8)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


def test_the_optimizer_uses_the_kernels_of_the_device_that_resumes(tmp_path: Path) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    train(whole, tiny(), device=DEVICE)
    assert train(moved, tiny(), device=DEVICE, on_step=stop_after(moved, 3)) == "stopped"
    state = checkpoint.load_state(moved, 4)
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = False  # as on a device without such kernels
    checkpoint.save_state(moved, 4, state)
    assert train(moved, resume=True, device=DEVICE) == "finished"
    [group] = checkpoint.load_state(moved, 8)["optimizer"]["param_groups"]
    assert group["fused"] is True
    wanted, found = weights_of(whole, 8), weights_of(moved, 8)
    assert all(same(found[name], wanted[name]) for name in wanted)
    assert load_run(moved).curve("loss")["step"].tolist() == list(range(1, 9))


def test_another_device_makes_a_new_plan_of_how_many_images_fit(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, tiny(), device=DEVICE, on_step=stop_after(run, 3)) == "stopped"
    state = checkpoint.load_state(run, 4)
    here = kind_of(DEVICE)
    assert (state["micro_batch"], state["device"]) == (4, here)
    for device, wanted in (("A smaller card", 4), (here, 1)):
        checkpoint.save_state(run, 4, state | {"micro_batch": 1, "device": device})
        copy = tmp_path / device.replace(" ", "-")
        shutil.copytree(run, copy)
        assert train(copy, resume=True, device=DEVICE) == "finished"
        assert checkpoint.load_state(copy, 8)["micro_batch"] == wanted


def test_the_plan_counts_with_the_images_that_are_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    usual = context.fitting_micro_batch

    def fitting(config: RunConfig, *more: Any) -> int:
        order.append("micro-batch")
        return usual(config, *more)

    monkeypatch.setattr(context, "_resident", lambda *_: order.append("images"))
    monkeypatch.setattr(context, "fitting_micro_batch", fitting)
    train(tmp_path / "run", tiny(steps=1), device=DEVICE)
    assert order == ["images", "micro-batch"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_run_finds_the_memory_of_a_card_free(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    weights: list[weakref.ref] = []
    left: list[bool] = []
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: left.extend(ref() is not None for ref in weights)
    )

    def training() -> None:
        network = torch.nn.Linear(2, 2)
        weights.append(weakref.ref(network))
        if fails:
            try:
                raise OSError(f"of {network}")
            except OSError as error:
                raise ValueError("no") from error

    try:
        with memory_returned(torch.device("cuda")):
            training()
    except ValueError as error:
        assert traceback.extract_tb(error.__traceback__)[-1].name == "training"
    assert left == [False]
