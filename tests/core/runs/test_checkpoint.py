"""Weights and state on disk: what is written is read, and nothing else is believed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffusion_core.runs import checkpoint
from diffusion_core.runs.checkpoint import CheckpointError, load_model, read_checkpoint
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.presets import build_network
from diffusion_core.runs.run import Run

UNET = RunConfig(
    network_args={"widths": [8, 16], "blocks": 1, "attention_levels": [1], "num_classes": 2},
    schedule={"kind": "cosine", "timesteps": 20},
    image_size=16,
)
LECTURE = RunConfig(
    network="lecture",
    network_args={"widths": [4, 8, 8, 8, 8]},
    schedule={"timesteps": 10},
    prediction_type="epsilon",
    image_size=16,
)
CLASSES = ("left", "right")


def network(config: RunConfig, seed: int = 1) -> nn.Module:
    """Random weights everywhere, the layers that start at zero included."""
    torch.manual_seed(seed)
    model = build_network(config.network, config.network_args)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def save(run: Path, step: int, config: RunConfig = UNET, seed: int = 1) -> Path:
    model = network(config, seed)
    return checkpoint.save_weights(run, step, model.state_dict(), config, CLASSES)


def state(step: int) -> dict:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "data_fingerprint": "",
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("config", [UNET, LECTURE], ids=["unet", "lecture"])
def test_weights_come_back_with_all_that_sampling_needs(tmp_path: Path, config: RunConfig) -> None:
    model = network(config).eval()
    path = checkpoint.save_weights(tmp_path, 250, model.state_dict(), config, CLASSES)
    assert path == tmp_path / "weights" / "step-00000250.safetensors"
    found = read_checkpoint(path)
    assert (found.path, found.step, found.config, found.classes) == (path, 250, config, CLASSES)
    assert abs(found.time - time.time()) < 60
    loaded, schedule, loaded_config = load_model(found, exact=True)
    assert loaded_config == config
    assert schedule.timesteps == config.schedule["timesteps"]
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0, 7])
    with torch.no_grad():
        assert torch.equal(loaded(x, t), model(x, t))


def test_averaged_weights_and_buffers_give_the_averaged_networks_output(tmp_path: Path) -> None:
    """As the trainer keeps them: BatchNorm's statistics are averaged with the weights."""
    model = network(LECTURE).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([1, 3, 5, 7])
    for _ in range(3):
        optimizer.zero_grad()
        model(x, t).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
    tensors = average.module.state_dict()
    path = checkpoint.save_weights(tmp_path, 3, tensors, LECTURE, ())
    loaded, _, _ = load_model(read_checkpoint(path), exact=True)
    with torch.no_grad():
        assert torch.equal(loaded(x, t), average.module.eval()(x, t))
        assert not torch.allclose(loaded(x, t), model.eval()(x, t), atol=1e-3)


def test_weights_kept_in_half_precision_compute_in_float32(tmp_path: Path) -> None:
    model = network(UNET).eval()
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    loaded, _, _ = load_model(
        read_checkpoint(checkpoint.save_weights(tmp_path, 1, half, UNET, CLASSES)), exact=True
    )
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([3])
    with torch.no_grad():
        assert loaded(x, t).dtype == torch.float32
        assert torch.allclose(loaded(x, t), model(x, t), atol=0.05)


def test_tensors_of_any_memory_format_are_saved(tmp_path: Path) -> None:
    model = network(LECTURE).to(memory_format=torch.channels_last)
    path = checkpoint.save_weights(tmp_path, 1, model.state_dict(), LECTURE, ())
    found = checkpoint.load_weights(read_checkpoint(path))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_a_written_checkpoint_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    checkpoint.save_state(tmp_path, 1, state(1))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000001.pt"]


# ---------------------------------------------------------------- files that are not believed


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def removed(path: Path) -> None:
    path.unlink()


def of_another_make(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)


def with_metadata(**changes: str):
    def write(path: Path) -> None:
        tensors = safetensors.torch.load_file(path)
        metadata = {"config": UNET.to_json(), "classes": "[]", "step": "3", "time": "1.0"}
        safetensors.torch.save_file(tensors, path, {**metadata, **changes})

    return write


def with_another_networks_settings(path: Path) -> None:
    other = UNET.replace(network_args={**UNET.network_args, "widths": [16, 16]})
    with_metadata(config=other.to_json())(path)


def with_a_tensor_missing(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    tensors.pop("output.bias")
    metadata = {"config": UNET.to_json(), "classes": "[]", "step": "3", "time": "1.0"}
    safetensors.torch.save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut_short, "is damaged or cut short"),
        (cut_in_the_header, "is damaged or cut short"),
        (emptied, "is damaged or cut short"),
        (garbage, "is damaged or cut short"),
        (removed, "cannot be read: No such file or directory"),
        (of_another_make, "does not say what made it"),
        (with_metadata(config="[]"), "does not say what made it"),
        (with_metadata(config="{"), "does not say what made it"),
        (with_metadata(config='{"steps": "many"}'), "does not say what made it"),
        (with_metadata(config='{"network_args": {"depth": 3}}'), "does not say what made it"),
        (with_metadata(step="three"), "does not say what made it"),
        (
            with_metadata(step="-1"),
            "does not say what made it: header: step is -1; it must be from 0 to 1,000,000,",
        ),
        (
            with_metadata(time="NaN"),
            "does not say what made it: header: time is nan; it must be a finite number",
        ),
        (
            with_metadata(time="1e400"),
            "does not say what made it: header: time is inf; it must be a finite number",
        ),
        (
            with_metadata(classes="[1, 2]"),
            "does not say what made it: header: classes.0 is 1; it must be text",
        ),
        (with_metadata(config="[" * 5000), "does not say what made it"),
        (with_metadata(classes='["van"]'), "names 1 of its 2 classes"),
        (with_another_networks_settings, "does not fit its own settings"),
        (with_a_tensor_missing, r"does not fit its own settings \(see output.bias\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, harm, reason: str
) -> None:
    path = save(tmp_path, 3)
    harm(path)
    with pytest.raises(CheckpointError, match=rf"step-00000003.safetensors {reason}"):
        read_checkpoint(path)


def test_a_file_that_vanishes_or_breaks_after_it_was_looked_at_gets_a_sentence(
    tmp_path: Path,
) -> None:
    found = read_checkpoint(save(tmp_path, 3))
    garbage(found.path)
    with pytest.raises(CheckpointError) as broken:
        load_model(found)
    assert str(broken.value) == (
        "step-00000003.safetensors can no longer be read: it is damaged, or the disk fails. Choose "
        "another checkpoint."
    )
    found.path.unlink()
    with pytest.raises(CheckpointError) as gone:
        load_model(found)
    assert str(gone.value) == (
        "step-00000003.safetensors can no longer be read: newer checkpoints have replaced it, or "
        "somebody has deleted it. Choose another checkpoint."
    )


def test_the_latest_checkpoint_is_the_highest_step_that_opens(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        save(tmp_path, step)
    run = Run(tmp_path)
    assert run.latest_checkpoint().step == 10
    cut_short(checkpoint.weights_path(tmp_path, 10))
    assert run.latest_checkpoint().step == 9
    good, broken = run.checkpoints()
    assert [found.step for found in good] == [2, 9]
    assert len(broken) == 1 and "step-00000010.safetensors is damaged" in broken[0]
    with pytest.raises(CheckpointError, match=r"step-00000010.safetensors is damaged"):
        run.checkpoint(10)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        run.checkpoint(7)
    garbage(checkpoint.weights_path(tmp_path, 9))
    garbage(checkpoint.weights_path(tmp_path, 2))
    assert run.latest_checkpoint() is None


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    """A checkpoint that was broken and is whole again, under the same name."""
    path = save(tmp_path, 3)
    whole = path.read_bytes()
    cut_short(path)
    assert Run(tmp_path).latest_checkpoint() is None
    path.write_bytes(whole)
    assert Run(tmp_path).latest_checkpoint().step == 3
    garbage(path)
    assert Run(tmp_path).latest_checkpoint() is None


# ---------------------------------------------------------------- states


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    wanted = state(5)
    checkpoint.save_state(tmp_path, 5, wanted)
    found = checkpoint.load_state(tmp_path, 5)
    assert found["step"] == 5
    assert torch.equal(found["model"]["weight"], wanted["model"]["weight"])
    moments = [s["optimizer"]["state"][0]["exp_avg"] for s in (found, wanted)]
    assert torch.equal(*moments)


class Harmful:
    """What a pickled file can do to whoever opens it: here, make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_nothing_is_run_out_of_a_states_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = checkpoint.save_state(tmp_path, 5, {"step": Harmful(victim)})
    with pytest.raises(CheckpointError, match=r"step-00000005.pt cannot be read"):
        checkpoint.load_state(tmp_path, 5)
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists()  # the test is sharp: unpickling would have done it


@pytest.mark.parametrize("harm", [cut_short, emptied, garbage, removed])
def test_a_damaged_state_is_named(tmp_path: Path, harm) -> None:
    harm(checkpoint.save_state(tmp_path, 5, state(5)))
    with pytest.raises(CheckpointError, match=r"step-00000005.pt cannot be read"):
        checkpoint.load_state(tmp_path, 5)


# ---------------------------------------------------------------- what is kept


def steps_of(folder: Path) -> list[int]:
    return sorted(checkpoint.step_of(path) for path in folder.iterdir())


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3, 10]), (2, [3, 10]), (9, [1, 2, 3, 10])])
def test_the_newest_weights_and_two_states_are_kept(
    tmp_path: Path, keep: int, left: list[int]
) -> None:
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
        checkpoint.save_state(tmp_path, step, state(step))
    checkpoint.remove_old(tmp_path, keep)
    assert steps_of(tmp_path / "weights") == left
    assert steps_of(tmp_path / "state") == [3, 10]


def test_broken_weights_do_not_count_as_kept_and_are_left_for_a_person(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    cut_short(checkpoint.weights_path(tmp_path, 4))
    checkpoint.remove_old(tmp_path, 2)
    assert steps_of(tmp_path / "weights") == [2, 3, 4]


def test_the_newest_are_those_of_the_highest_steps_also_beyond_eight_digits(tmp_path: Path) -> None:
    steps = (99_999_998, 99_999_999, 100_000_000, 100_000_001)
    for step in steps:
        save(tmp_path, step)
        checkpoint.save_state(tmp_path, step, state(step))
    checkpoint.remove_old(tmp_path, 2)
    assert steps_of(tmp_path / "weights") == steps_of(tmp_path / "state") == [*steps[2:]]


def test_weights_that_stay_anyway_are_not_opened_again_at_every_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 9):
        save(tmp_path, step)
    opened: list[int | None] = []

    def read_one(path: Path) -> checkpoint.Checkpoint:
        opened.append(checkpoint.step_of(path))
        return read_checkpoint(path)

    monkeypatch.setattr(checkpoint, "read_checkpoint", read_one)
    checkpoint.remove_old(tmp_path, 2, keep_every=2, kept={1})
    assert steps_of(tmp_path / "weights") == [1, 2, 4, 6, 7, 8]
    checkpoint.remove_old(tmp_path, 0)
    assert opened == [8, 7, 5, 3]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-00000250.safetensors", 250),
        ("step-123456789.pt", 123456789),
        ("step-00000025.png", 25),
        ("step-.pt", None),
        ("step-1a.pt", None),
        ("best-00000001.pt", None),
        (".step-00000001.pt.77.tmp", None),
    ],
)
def test_the_step_is_in_the_name(name: str, step: int | None) -> None:
    assert checkpoint.step_of(Path("run") / name) == step


def test_the_settings_in_the_header_can_be_read_without_this_program(tmp_path: Path) -> None:
    with safetensors.safe_open(save(tmp_path, 3), framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["config"])["network_args"] == UNET.network_args
    assert metadata["step"] == "3"
