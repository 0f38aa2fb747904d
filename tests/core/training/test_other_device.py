"""What a run takes over from another kind of device, and what it leaves there.

The other device is played by this one: its order of the weights in memory, its kernels.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core.runs import checkpoint
from diffusion_core.runs.run import load_run
from diffusion_core.training import context
from diffusion_core.training.trainer import train
from tests.core.training.test_trainer import stop_after, weights_of
from tests.tiny_runs import tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("before", [True, False])
def test_the_optimizer_goes_on_where_the_weights_lie_otherwise_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """`before`: whether they were in the order of a GPU before the resume."""
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    train(whole, tiny(), device=CPU)
    with monkeypatch.context() as patch:
        patch.setattr(context, "use_channels_last", lambda *_: before)
        assert train(moved, tiny(), device=CPU, on_step=stop_after(moved, 3)) == "stopped"
    monkeypatch.setattr(context, "use_channels_last", lambda *_: not before)
    assert train(moved, resume=True, device=CPU) == "finished"
    wanted, found = weights_of(whole, 8), weights_of(moved, 8)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


def test_the_optimizer_uses_the_kernels_of_the_device_that_resumes(tmp_path: Path) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    train(whole, tiny(), device=CPU)
    assert train(moved, tiny(), device=CPU, on_step=stop_after(moved, 3)) == "stopped"
    state = checkpoint.load_state(moved, 4)
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = False  # as on a device without such kernels
    checkpoint.save_state(moved, 4, state)
    assert train(moved, resume=True, device=CPU) == "finished"
    [group] = checkpoint.load_state(moved, 8)["optimizer"]["param_groups"]
    assert group["fused"] is True
    wanted, found = weights_of(whole, 8), weights_of(moved, 8)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert load_run(moved).curve("loss")["step"].tolist() == list(range(1, 9))
