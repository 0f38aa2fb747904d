"""The trainer's promises: exact resume, the lecture's settings, what it writes and when."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_core import checkpoint, trainer
from diffusion_core.batches import batch_positions, make_batch
from diffusion_core.data.store import build_store
from diffusion_core.jobs import request
from diffusion_core.presets import preset
from diffusion_core.runs import load_run
from diffusion_core.status import RunStatus
from diffusion_core.trainer import TrainingError, learning_rate, train
from tests.tiny_runs import tiny

CPU = torch.device("cpu")


def weights_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(load_run(run).checkpoint(step))


def stop_after(run: Path, step: int, action: str = "stop"):
    def on_step(done: int, steps: int, loss: float | None) -> None:
        if done == step:
            request(load_run(run), action)

    return on_step


@pytest.mark.parametrize("network", ["unet", "lecture"])
def test_a_stopped_and_resumed_run_equals_one_that_was_not_to_the_last_bit(
    tmp_path: Path, network: str
) -> None:
    changes: dict = {"steps": 6}
    if network == "lecture":
        # Narrow, but with BatchNorm and its buffers.
        changes |= {"network": "lecture", "network_args": {"widths": [4, 8, 8, 8, 8]}}
        changes |= {"optimizer": "adam", "sample_steps": 0}
    config = tiny(**changes)
    assert train(tmp_path / "whole", config, device=CPU) == "finished"
    cut = config.steps // 2
    state = train(tmp_path / "cut", config, device=CPU, on_step=stop_after(tmp_path / "cut", cut))
    assert state == "stopped"
    assert load_run(tmp_path / "cut").status["step"] == cut + 1
    assert train(tmp_path / "cut", resume=True, device=CPU) == "finished"

    whole, resumed = (weights_of(tmp_path / name, config.steps) for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    raw = [checkpoint.load_state(tmp_path / n, config.steps) for n in ("whole", "cut")]
    assert all(torch.equal(raw[0]["model"][n], raw[1]["model"][n]) for n in raw[0]["model"])
    curves = [load_run(tmp_path / name).curve("loss") for name in ("whole", "cut")]
    assert curves[0]["step"].tolist() == list(range(1, config.steps + 1))
    assert np.array_equal(curves[0]["value"], curves[1]["value"])


def test_a_finished_run_has_everything_that_the_design_names(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(), device=CPU)
    run = load_run(tmp_path / "run")
    assert run.state == "finished"
    assert [step for step, _ in run.samples()] == [4, 8]
    assert [step for step, _ in run.weights()] == [4, 8]
    assert run.latest_checkpoint().step == 8
    assert run.latest_checkpoint().classes == tuple(run.details["classes"])
    assert run.details["training_pictures"] == 44
    assert {"loss", "validation_loss", "gradient_norm", "images_per_second"} <= set(
        run.curve_names()
    )
    assert run.config.network_args["num_classes"] == 8
    assert not list(run.path.rglob("*.tmp"))
    # One plain file at the end, so that the folder can be copied or mounted read-only.
    assert not list(run.path.glob("metrics.sqlite-*"))


def test_the_averaged_weights_are_not_the_raw_ones_and_follow_them(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(ema_decay=0.5), device=CPU)
    averaged = weights_of(tmp_path / "run", 8)
    raw = checkpoint.load_state(tmp_path / "run", 8)["model"]
    gaps = [(averaged[n] - raw[n]).abs().max().item() for n in raw if raw[n].is_floating_point()]
    assert 0 < max(gaps) < 0.05


def test_the_loss_of_a_learnable_set_falls(tmp_path: Path) -> None:
    config = tiny(steps=60, learning_rate=1e-2, batch_size=8, ema_decay=0.5, validate_every=5)
    train(tmp_path / "run", config, device=CPU)
    loss = load_run(tmp_path / "run").curve("validation_loss")["value"]
    assert loss[-1] < 0.9 * loss[0]


def test_pause_ends_the_process_with_a_checkpoint_and_resume_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    state = train(run, tiny(), device=CPU, on_step=stop_after(run, 2, "pause"))
    assert state == "paused" == load_run(run).state
    assert load_run(run).latest_checkpoint().step == 3
    assert train(run, resume=True, device=CPU) == "finished"


def test_sample_and_checkpoint_can_be_asked_for_while_it_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny(sample_every=0, checkpoint_every=0)
    train(run, config, device=CPU, on_step=stop_after(run, 2, "sample"))
    assert [step for step, _ in load_run(run).samples()] == [3]
    other = tmp_path / "other"
    train(other, config, device=CPU, on_step=stop_after(other, 2, "checkpoint"))
    assert [step for step, _ in load_run(other).weights()] == [3, 8]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(checkpoint_every=2, keep_checkpoints=2), device=CPU)
    assert [step for step, _ in load_run(tmp_path / "run").weights()] == [6, 8]


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_sentence_and_keeps_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        trainer, "learning_rate", lambda config, step: float("inf") if step == 5 else 1e-3
    )
    with pytest.raises(TrainingError, match="loss of step 6 is not a number"):
        train(tmp_path / "run", tiny(), device=CPU)
    run = load_run(tmp_path / "run")
    assert run.state == "failed"
    assert "lower learning rate" in run.status["error"]
    assert run.latest_checkpoint().step == 4
    assert all(np.isfinite(run.curve("loss")["value"]))


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(steps=1), device=CPU)
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    with pytest.raises(TrainingError, match="already holds a run"):
        train(tmp_path / "run", tiny(steps=2), device=CPU)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == before


def test_fewer_pictures_than_a_batch_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fewer than a batch of 64"):
        train(tmp_path / "run", tiny(batch_size=64), device=CPU)
    assert load_run(tmp_path / "run").state == "failed"


def test_an_epoch_shows_every_picture_once_in_a_new_order_and_drops_the_rest() -> None:
    config = tiny(batch_size=4)
    first = [batch_positions(config, 10, step) for step in (1, 2)]
    second = [batch_positions(config, 10, step) for step in (3, 4)]
    assert len(set(np.concatenate(first))) == 8 == len(set(np.concatenate(second)))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


def test_processes_share_the_batch_of_one(tmp_path: Path) -> None:
    config = tiny(network_args={"widths": [8], "num_classes": 8})
    store = build_store("cars:16", 16, cache_dir=tmp_path, workers=0)
    index = np.arange(16)
    whole = make_batch(config, store, index, 3, timesteps=20, device=CPU)
    parts = [
        make_batch(config, store, index, 3, timesteps=20, device=CPU, process=k, processes=2)
        for k in range(2)
    ]
    for name in ("x_0", "labels", "t", "noise"):
        shares = [getattr(part, name) for part in parts]
        assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), getattr(whole, name))
    assert whole.x_0.min() >= -1 and whole.x_0.max() <= 1


def test_the_learning_rate_rises_over_the_warm_up_and_stays() -> None:
    config = tiny(learning_rate=0.01, warmup_steps=4)
    rates = [learning_rate(config, step) for step in (1, 2, 4, 5, 100)]
    assert rates == pytest.approx([0.0025, 0.005, 0.01, 0.01, 0.01])
    assert learning_rate(preset("lecture"), 1) == 1e-3


def test_the_lecture_leaves_stanford_cars_its_126_batches() -> None:
    config = preset("lecture")
    assert (16_185 - config.validation_count) // config.batch_size == 126
    assert config.steps == 2 * 126


def test_a_status_on_a_full_disk_does_not_end_the_training(tmp_path: Path, monkeypatch) -> None:
    status = RunStatus(tmp_path, device="cpu", total=3)

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusion_core.status.write_json", full)
    status.update(state="running")
    assert status.fields["state"] == "running"
