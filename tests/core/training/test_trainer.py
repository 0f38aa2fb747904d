"""The trainer's promises: exact resume, the lecture's settings, what it writes and when."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_core.data.store import build_store
from diffusion_core.files import write_json
from diffusion_core.models.convolutions import GEMM, PLAIN, Ways
from diffusion_core.process.objective import LOSSES
from diffusion_core.process.prediction import PREDICTION_TYPES
from diffusion_core.process.schedule import NoiseSchedule
from diffusion_core.process.timestep_sampling import timestep_shares
from diffusion_core.runs import checkpoint
from diffusion_core.runs.changes import add_change, read_changes
from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.cost import ENERGY, cost_of
from diffusion_core.runs.jobs import change, request
from diffusion_core.runs.presets import preset
from diffusion_core.runs.run import load_run
from diffusion_core.runs.status import write_status
from diffusion_core.runs.status_writer import StatusWriter
from diffusion_core.sampling.sample import sample
from diffusion_core.training import layer_ways, loop, step_log, strips
from diffusion_core.training import step as training_step
from diffusion_core.training.batches import (
    batch_positions,
    draw_timesteps,
    make_batch,
    nearest_noise,
)
from diffusion_core.training.step import learning_rate
from diffusion_core.training.trainer import TrainingError, train
from tests.tiny_runs import DEVICE, create, same, tiny


def weights_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(load_run(run).checkpoint(step))


def stop_after(run: Path, step: int, action: str = "stop"):
    def on_step(done: int, steps: int, loss: float | None) -> None:
        if done == step:
            request(load_run(run), action)

    return on_step


def test_a_run_pauses_after_the_step_that_it_was_told_and_goes_on_from_there(
    tmp_path: Path,
) -> None:
    path, config = tmp_path / "run", tiny(steps=5, pause_at=3, sample_every=0)
    assert train(path, config, device=DEVICE) == "paused"
    run = load_run(path)
    latest = run.latest_checkpoint()
    assert latest is not None and latest.step == run.status.step == 3
    # It is validated there, to be compared with others that pause there.
    assert run.curve("validation_loss")["step"].tolist() == [3]
    assert train(path, resume=True, device=DEVICE) == "finished"
    assert run.curve("loss")["step"].tolist() == [1, 2, 3, 4, 5]


# What keeps something of its own from step to step, or draws something more, all at once.
EVERYTHING = {
    "prediction_type": "flow_x_0",
    "loss_on": "v",
    "learned_weighting": True,
    "min_snr_gamma": 5.0,
    "timestep_sampling": "laplace",
    "immiscible": True,
    "augment": 0.3,
    "optimizer": "muon",
    "learning_rate_decay": "cosine",
    "average_snapshots": 2,
    "ema_decays": {"short": 0.5},
    "micro_batch": 3,
}


@pytest.mark.parametrize("network", ["unet", "lecture", "everything"])
def test_a_stopped_and_resumed_run_equals_one_that_was_not_to_the_last_bit(
    tmp_path: Path, network: str
) -> None:
    changes: dict = {"steps": 6} | (EVERYTHING if network == "everything" else {})
    if network == "lecture":
        # Narrow, but with BatchNorm and its buffers.
        changes |= {"network": "lecture", "network_args": {"widths": [4, 8, 8, 8, 8]}}
        changes |= {"optimizer": "adam", "sample_steps": 0}
    config = tiny(**changes)
    assert train(tmp_path / "whole", config, device=DEVICE) == "finished"
    cut = config.steps // 2
    state = train(
        tmp_path / "cut", config, device=DEVICE, on_step=stop_after(tmp_path / "cut", cut)
    )
    assert state == "stopped"
    assert load_run(tmp_path / "cut").status.step == cut + 1
    assert train(tmp_path / "cut", resume=True, device=DEVICE) == "finished"

    whole, resumed = (weights_of(tmp_path / name, config.steps) for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(same(whole[name], resumed[name]) for name in whole)
    raw = [checkpoint.load_state(tmp_path / n, config.steps) for n in ("whole", "cut")]
    assert all(same(raw[0]["model"][n], raw[1]["model"][n]) for n in raw[0]["model"])
    if network == "everything":
        assert all(
            same(raw[0]["weighting"][n], raw[1]["weighting"][n]) for n in raw[0]["weighting"]
        )
        at = [load_run(tmp_path / name).checkpoint(config.steps) for name in ("whole", "cut")]
        any_length = [checkpoint.load_weights(each, "post-hoc 0.075") for each in at]
        assert all(same(any_length[0][n], any_length[1][n]) for n in any_length[0])
        assert [each.snapshots for each in at] == [(2, 4, 6)] * 2
    curves = [load_run(tmp_path / name).curve("loss") for name in ("whole", "cut")]
    assert curves[0]["step"].tolist() == list(range(1, config.steps + 1))
    assert same(curves[0]["value"], curves[1]["value"])


def test_damaged_metrics_are_set_aside_and_said_and_stop_no_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(create(tmp_path / "run", tiny()))
    assert train(run.path, device=DEVICE, on_step=stop_after(run.path, 5)) == "stopped"
    (run.path / "metrics.sqlite").write_bytes(bytes(range(256)) * 100)
    assert train(run.path, resume=True, device=DEVICE) == "finished"
    [aside] = run.path.glob("metrics-damaged-*.sqlite")
    sentence = f"metrics.sqlite is damaged or cannot be written. It is renamed to {aside.name}, "
    assert sentence in run.status.warning and sentence in capsys.readouterr().err
    assert run.curve("loss")["step"].tolist() == list(range(run.status.resumed_from + 1, 9))
    assert [found.step for found in run.checkpoints()[0]][-1] == 8


def test_a_finished_run_has_everything_that_the_design_names(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(), device=DEVICE)
    run = load_run(tmp_path / "run")
    assert run.state == "finished"
    assert [step for step, _ in run.samples()] == [4, 8]
    assert [step for step, _ in run.weights()] == [4, 8]
    assert run.latest_checkpoint().step == 8
    assert run.latest_checkpoint().classes == tuple(run.details.classes)
    assert run.details.training_pictures == 44
    assert run.details.threads == torch.get_num_threads()
    assert {"loss", "validation_loss", "gradient_norm", "images_per_second"} <= set(
        run.last_values()
    )
    assert run.config.network_args["num_classes"] == 8
    assert not list(run.path.rglob("*.tmp"))
    # One plain file at the end, so that the folder can be copied or mounted read-only.
    assert not list(run.path.glob("metrics.sqlite-*"))


def test_the_averaged_weights_are_not_the_raw_ones_and_follow_them(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(ema_decay=0.5), device=DEVICE)
    averaged = weights_of(tmp_path / "run", 8)
    raw = checkpoint.load_state(tmp_path / "run", 8)["model"]
    gaps = [(averaged[n] - raw[n]).abs().max().item() for n in raw if raw[n].is_floating_point()]
    assert 0 < max(gaps) < 0.05


def test_the_loss_of_a_learnable_set_falls(tmp_path: Path) -> None:
    config = tiny(steps=60, learning_rate=1e-2, batch_size=8, ema_decay=0.5, validate_every=5)
    train(tmp_path / "run", config, device=DEVICE)
    loss = load_run(tmp_path / "run").curve("validation_loss")["value"]
    assert loss[-1] < 0.9 * loss[0]


def test_pause_ends_the_process_with_a_checkpoint_and_resume_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    state = train(run, tiny(), device=DEVICE, on_step=stop_after(run, 2, "pause"))
    assert state == "paused" == load_run(run).state
    assert load_run(run).latest_checkpoint().step == 3
    assert train(run, resume=True, device=DEVICE) == "finished"


@pytest.mark.long
def test_the_energy_of_a_resumed_run_is_that_of_all_its_steps_or_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, told = tmp_path / "run", iter([4.0] * 99)
    monkeypatch.setattr(step_log, "EnergyMeter", lambda device, cards: lambda: next(told))
    train(run, tiny(), device=DEVICE, on_step=stop_after(run, 4))
    before = cost_of(load_run(run).snapshot()).joules
    train(run, resume=True, device=DEVICE, on_step=stop_after(run, 6))
    curve = load_run(run).curve(ENERGY)
    assert before == curve["value"][list(curve["step"]).index(5)] > 0
    assert cost_of(load_run(run).snapshot()).joules == curve["value"][-1] > before
    told = iter([None, *[4.0] * 99])
    train(run, resume=True, device=DEVICE)
    assert cost_of(load_run(run).snapshot()).joules is None


def test_sample_and_checkpoint_can_be_asked_for_while_it_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny(sample_every=0, checkpoint_every=0)
    train(run, config, device=DEVICE, on_step=stop_after(run, 2, "sample"))
    assert [step for step, _ in load_run(run).samples()] == [3]
    other = tmp_path / "other"
    train(other, config, device=DEVICE, on_step=stop_after(other, 2, "checkpoint"))
    assert [step for step, _ in load_run(other).weights()] == [3, 8]


def test_the_status_says_of_which_step_samples_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def write_strip(run: Path, step: int, *rest: Any) -> Any:
        seen.append((step, load_run(run).status.sampling_step))
        return original(run, step, *rest)

    original = strips.write_strip
    monkeypatch.setattr(strips, "write_strip", write_strip)
    train(tmp_path / "run", tiny(), device=DEVICE)
    assert seen == [(4, 4), (8, 8)]
    assert load_run(tmp_path / "run").status.sampling_step is None


def test_a_finished_run_that_is_resumed_makes_no_step(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(path, tiny(steps=4), device=DEVICE)
    before = weights_of(path, 4)
    # As if it had been killed between its last checkpoint and the word "finished".
    run = load_run(path)
    write_status(path, run.status.replace(state="running", pid=None))
    for _ in range(2):
        assert train(path, resume=True, device=DEVICE) == "finished"
    assert (run.state, run.status.step, run.status.total) == ("finished", 4, 4)
    assert run.curve("loss")["step"].tolist() == [1, 2, 3, 4]
    assert [step for step, _ in run.weights()] == [4]
    assert all(torch.equal(weights_of(path, 4)[name], before[name]) for name in before)


def test_a_run_that_was_created_before_is_trained_with_its_settings(tmp_path: Path) -> None:
    path, config = tmp_path / "run", tiny(steps=2, sample_every=0, validate_every=0)
    create(path, config)
    assert train(path, device=DEVICE) == "finished"
    run = load_run(path)
    assert run.config is not None and run.config.steps == run.status.step == 2
    assert run.snapshot().begun and run.details.training_pictures == 44
    with pytest.raises(TrainingError, match=r"already holds a run\. Continue it with --resume"):
        train(path, device=DEVICE)
    with pytest.raises(TrainingError, match=r"There is no run at .* to train; choose settings"):
        train(tmp_path / "none", device=DEVICE)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(checkpoint_every=2, keep_checkpoints=2), device=DEVICE)
    assert [step for step, _ in load_run(tmp_path / "run").weights()] == [6, 8]


def test_every_kth_and_the_best_checkpoint_stay_beside_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second of the six validations is the best.
    losses = iter([0.5, 0.1, 0.4, 0.3, 0.3, 0.3])
    found = ({"validation_loss": torch.tensor(loss)} for loss in losses)
    monkeypatch.setattr(loop, "validate", lambda context: next(found))
    config = tiny(steps=12, checkpoint_every=2, validate_every=2, keep_checkpoints=1, keep_every=6)
    train(tmp_path / "run", config, device=DEVICE)
    assert [step for step, _ in load_run(tmp_path / "run").weights()] == [4, 6, 12]


@pytest.mark.parametrize(
    ("rate", "where"),
    [(float("inf"), "the weights of the layer time_mlp.1"), (1e30, "the output of the layer")],
)
def test_a_loss_that_is_not_a_number_ends_the_run_with_the_layer_and_keeps_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, where: str
) -> None:
    monkeypatch.setattr(
        training_step, "learning_rate", lambda config, step: rate if step == 5 else 1e-3
    )
    save = checkpoint.save_weights

    def slowly(*args: Any) -> Path:
        time.sleep(0.2)  # the checkpoint is still being written when the loss is seen
        return save(*args)

    monkeypatch.setattr(checkpoint, "save_weights", slowly)
    with pytest.raises(TrainingError, match=f"loss of step 6 is not a number.*{where}"):
        train(tmp_path / "run", tiny(), device=DEVICE)
    run = load_run(tmp_path / "run")
    assert run.state == "failed"
    assert run.status.not_finite is True
    assert "resume from it with a lower learning rate" in run.status.error
    assert run.latest_checkpoint().step == 4
    assert all(np.isfinite(run.curve("loss")["value"]))


def test_a_gradient_that_is_not_finite_leaves_the_weights_and_names_the_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    seen = []
    original = training_step.objective

    def objective(context, model, batch):
        seen.append([p.detach().clone() for p in model.parameters()])
        if len(seen) >= 3:
            hook = model.middle[0].register_forward_hook(lambda m, a, out: Breaking.apply(out))
        try:
            return original(context, model, batch)
        finally:
            if len(seen) >= 3:
                hook.remove()

    monkeypatch.setattr(training_step, "objective", objective)
    monkeypatch.setattr("diffusion_core.training.nan_report.objective", objective)
    with pytest.raises(TrainingError, match=r"gradient of step 3 .* the gradient of the layer"):
        train(tmp_path / "run", tiny(), device=DEVICE)
    # Every later step saw the weights that the third one had.
    assert all(torch.equal(a, b) for later in seen[3:] for a, b in zip(seen[2], later, strict=True))


def test_after_a_broken_run_a_lower_rate_goes_on_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = training_step.learning_rate

    def learning_rate(config: RunConfig, step: int) -> float:
        too_high = config.learning_rate > 1e-4 and step == 5
        return float("inf") if too_high else usual(config, step)

    monkeypatch.setattr(training_step, "learning_rate", learning_rate)
    with pytest.raises(TrainingError, match=r"lower learning rate than 0\.001"):
        train(tmp_path / "run", tiny(), device=DEVICE)
    add_change(tmp_path / "run", 5, {"learning_rate": 1e-4})
    assert train(tmp_path / "run", resume=True, device=DEVICE) == "finished"
    run = load_run(tmp_path / "run")
    assert run.curve("learning_rate")["value"][4:] == pytest.approx([1e-4] * 4)
    assert run.status.not_finite is False
    assert run.config.learning_rate == 1e-4


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(steps=1), device=DEVICE)
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    with pytest.raises(TrainingError, match="already holds a run"):
        train(tmp_path / "run", tiny(steps=2), device=DEVICE)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == before


def test_fewer_images_than_a_batch_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fewer than a batch of 64"):
        train(tmp_path / "run", tiny(batch_size=64), device=DEVICE)
    assert load_run(tmp_path / "run").state == "failed"


def test_an_epoch_shows_every_image_once_in_a_new_order_and_drops_the_rest() -> None:
    config = tiny(batch_size=4)
    first = [batch_positions(config, 10, step) for step in (1, 2)]
    second = [batch_positions(config, 10, step) for step in (3, 4)]
    assert len(set(np.concatenate(first))) == 8 == len(set(np.concatenate(second)))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


@pytest.mark.parametrize("immiscible", [False, True])
def test_processes_share_the_batch_of_one(tmp_path: Path, immiscible: bool) -> None:
    config = tiny(network_args={"widths": [8], "num_classes": 8}, immiscible=immiscible)
    store = build_store("cars:16", 16, cache_dir=tmp_path, workers=0)
    index = np.arange(16)
    how: dict[str, Any] = {"schedule": NoiseSchedule(timesteps=20), "device": DEVICE}
    whole = make_batch(config, store, index, 3, **how)
    parts = [make_batch(config, store, index, 3, **how, process=k, processes=2) for k in range(2)]
    for name in ("x_0", "labels", "t", "noise"):
        shares = [getattr(part, name) for part in parts]
        assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), getattr(whole, name))
    assert whole.x_0.min() >= -1 and whole.x_0.max() <= 1


def test_the_learning_rate_rises_over_the_warm_up_and_stays() -> None:
    config = tiny(learning_rate=0.01, warmup_steps=4)
    rates = [learning_rate(config, step) for step in (1, 2, 4, 5, 100)]
    assert rates == pytest.approx([0.0025, 0.005, 0.01, 0.01, 0.01])
    assert learning_rate(preset("lecture"), 1) == 1e-3


def test_a_cosine_decay_falls_to_0_after_the_last_step_and_restarts() -> None:
    config = tiny(learning_rate=1.0, warmup_steps=2, steps=9, learning_rate_decay="cosine")
    rates = [learning_rate(config, step) for step in range(1, 10)]
    falling = [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    assert rates == pytest.approx([0.5, *falling])
    again = config.replace(steps=18, restart_at=10)
    assert [learning_rate(again, step) for step in range(10, 19)] == pytest.approx(rates)


def test_an_inverse_square_root_decay_begins_after_its_steps() -> None:
    config = tiny(
        learning_rate=1.0, warmup_steps=0, learning_rate_decay="inverse_sqrt", decay_after=100
    )
    rates = [learning_rate(config, step) for step in (1, 100, 400, 10_000)]
    assert rates == pytest.approx([1, 1, 0.5, 0.1])


def test_a_finished_run_with_a_decay_that_gets_more_steps_restarts_it(tmp_path: Path) -> None:
    run = create(tmp_path / "run", tiny(steps=2, learning_rate_decay="cosine"))
    train(run, device=DEVICE)
    change(load_run(run), {"steps": 4})
    assert load_run(run).config.restart_at == 3
    plain = create(tmp_path / "plain", tiny(steps=2))
    train(plain, device=DEVICE)
    change(load_run(plain), {"steps": 4})
    assert load_run(plain).config.restart_at == 0


def test_timesteps_are_drawn_as_often_as_their_shares_say() -> None:
    schedule = NoiseSchedule("cosine", 50)
    config = tiny(timestep_sampling="laplace", timestep_width=1.0)
    drawn = draw_timesteps(config, schedule, 200_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=50).numpy() / 200_000
    log_snr = 2 * np.log(schedule.exact_signal / schedule.exact_spread)
    assert counts == pytest.approx(timestep_shares(log_snr, "laplace", 0.0, 1.0), abs=4e-3)


def test_immiscible_noise_is_the_nearest_assignment_of_all() -> None:
    generator = torch.Generator().manual_seed(1)
    x_0, noise = (torch.randn(5, 1, 2, 2, generator=generator) for _ in range(2))
    found = nearest_noise(x_0, noise)
    best = min(
        itertools.permutations(range(5)),
        key=lambda order: float((x_0 - noise[list(order)]).square().sum()),
    )
    assert torch.equal(found, noise[list(best)])


def test_the_lecture_leaves_stanford_cars_its_126_batches() -> None:
    config = preset("lecture")
    assert (16_185 - config.validation_count) // config.batch_size == 126
    assert config.steps == 2 * 126


def test_a_status_on_a_full_disk_does_not_end_the_training(tmp_path: Path, monkeypatch) -> None:
    status = StatusWriter(tmp_path, device="cpu", total=3)

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusion_core.runs.status.write_json", full)
    status.update(state="running")
    assert status.status.state == "running"


# ---------------------------------------------------------------- parts of a batch


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_batch_in_parts_trains_as_the_whole_one(tmp_path: Path, micro_batch: int) -> None:
    for name, size in (("whole", 4), ("parts", micro_batch)):
        train(tmp_path / name, tiny(micro_batch=size, batch_size=4), device=DEVICE)
    whole, parts = (load_run(tmp_path / name).curve("loss")["value"] for name in ("whole", "parts"))
    assert parts == pytest.approx(whole, rel=1e-5)
    assert load_run(tmp_path / "parts").details.micro_batch == micro_batch


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_parts_and_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    train(tmp_path / "whole", tiny(batch_size=8), device=DEVICE)
    original = training_step.objective

    def objective(context, model, batch):
        if len(batch.t) > 2:
            raise error
        return original(context, model, batch)

    monkeypatch.setattr(training_step, "objective", objective)
    assert train(tmp_path / "parts", tiny(batch_size=8), device=DEVICE) == "finished"
    whole, parts = (load_run(tmp_path / name).curve("loss")["value"] for name in ("whole", "parts"))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_an_image_that_does_not_fit_alone_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def objective(context, model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training_step, "objective", objective)
    with pytest.raises(TrainingError, match="not enough memory for a single image"):
        train(tmp_path / "run", tiny(), device=DEVICE)


# ---------------------------------------------------------------- averages, sizes, channels


def test_averages_of_several_lengths_are_kept_resumed_and_drawn_with(tmp_path: Path) -> None:
    config = tiny(ema_decay=0.9, ema_decays={"short": 0.2})
    train(tmp_path / "whole", config, device=DEVICE)
    train(tmp_path / "cut", config, device=DEVICE, on_step=stop_after(tmp_path / "cut", 4))
    train(tmp_path / "cut", resume=True, device=DEVICE)
    found = load_run(tmp_path / "whole").latest_checkpoint()
    assert found.averages == ("main", "short")
    assert found.average_text("short") == "short (0.2)"
    again = load_run(tmp_path / "cut").latest_checkpoint()
    weights = {name: checkpoint.load_weights(found, name) for name in found.averages}
    for name, tensors in weights.items():
        resumed = checkpoint.load_weights(again, name)
        assert all(same(tensors[key], resumed[key]) for key in tensors)
    raw = checkpoint.load_state(tmp_path / "whole", 8)["model"]
    gaps = [max((raw[k] - w[k]).abs().max().item() for k in raw) for w in weights.values()]
    assert gaps[1] < gaps[0]  # the short one is nearer to the newest weights
    network, _, _ = checkpoint.load_model(found, average="short", exact=True)
    assert torch.equal(network.state_dict()["stem.weight"], weights["short"]["stem.weight"])
    with pytest.raises(checkpoint.CheckpointError, match="it has main, short"):
        checkpoint.load_weights(found, "long")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "network", "args"),
    [
        (16, "unet", {"widths": [8, 8, 8], "blocks": 1, "patch": 2}),
        (24, "unet", {"widths": [8, 8, 8, 8], "blocks": 1, "attention_levels": [3], "patch": 1}),
        (40, "lecture", {"widths": [4, 8, 8, 8, 8]}),
    ],
)
def test_any_size_divisible_by_8_in_colour_and_in_grey(
    tmp_path: Path, size: int, channels: int, network: str, args: dict
) -> None:
    config = tiny(steps=2, image_size=size, channels=channels, network=network, network_args=args)
    assert train(tmp_path / "run", config, device=DEVICE) == "finished"
    drawer, schedule, _ = checkpoint.load_model(load_run(tmp_path / "run").latest_checkpoint())
    images = sample(drawer, schedule, 1, "ddim", 2, shape=(channels, size, size))
    assert images.shape == (1, channels, size, size)
    (_, strip), *_ = load_run(tmp_path / "run").samples()
    with Image.open(strip) as image:
        assert image.size == (2 * size, size)
        assert image.mode == ("L" if channels == 1 else "RGB")


# Each target once and each loss once; the other pairs are among the long tests.
@pytest.mark.parametrize(
    ("prediction_type", "loss"),
    [
        pytest.param(
            kind, loss, marks=pytest.mark.long if loss != "l2" and kind != "v_prediction" else ()
        )
        for kind in PREDICTION_TYPES
        for loss in LOSSES
    ],
)
def test_every_target_and_loss_learns(tmp_path: Path, prediction_type: str, loss: str) -> None:
    config = tiny(
        prediction_type=prediction_type,
        loss=loss,
        steps=40,
        batch_size=8,
        learning_rate=1e-2,
        ema_decay=0.5,
        sample_every=0,
        checkpoint_every=0,
        validate_every=4,
    )
    train(tmp_path / "run", config, device=DEVICE)
    losses = load_run(tmp_path / "run").curve("validation_loss")["value"]
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.parametrize("prediction_type", ["x_0", "flow_x_0"])
def test_a_network_that_predicts_the_image_learns_by_a_loss_on_v(
    tmp_path: Path, prediction_type: str
) -> None:
    config = tiny(
        prediction_type=prediction_type,
        loss_on="v",
        steps=30,
        batch_size=8,
        learning_rate=1e-2,
        ema_decay=0.5,
        sample_every=0,
        checkpoint_every=0,
        validate_every=3,
    )
    assert config.min_snr_gamma == (5 if prediction_type == "x_0" else 0)
    train(tmp_path / "run", config, device=DEVICE)
    losses = load_run(tmp_path / "run").curve("validation_loss")["value"]
    assert losses[-1] < 0.8 * losses[0]


def test_the_curve_of_threads_has_a_step_where_their_number_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([2, 2, 2, 1, 1])
    monkeypatch.setattr(loop, "take_share", lambda fixed: next(given))
    train(tmp_path / "run", tiny(steps=5), device=DEVICE)
    curve = load_run(tmp_path / "run").curve("threads")
    assert (curve["step"].tolist(), curve["value"].tolist()) == ([1, 3, 4], [2, 2, 1])


def test_the_same_seed_gives_the_same_losses_and_another_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, tiny(seed=seed, steps=4), device=DEVICE)
    a, b, c = (load_run(tmp_path / name).curve("loss")["value"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


# ---------------------------------------------------------------- changes while it runs


def change_after(run: Path, step: int, settings: dict):
    def on_step(done: int, steps: int, loss: float | None) -> None:
        if done == step:
            change(load_run(run), settings)

    return on_step


def test_settings_change_at_a_step_while_it_runs_and_again_at_that_step_after_a_resume(
    tmp_path: Path,
) -> None:
    settings = {"learning_rate": 1e-5, "sample_every": 1}
    run = tmp_path / "run"
    config = tiny(warmup_steps=0, checkpoint_every=2, steps=8)
    train(run, config, device=DEVICE, on_step=change_after(run, 3, settings))
    assert read_changes(run)[0].step == 5  # taken up after step 4
    rates = load_run(run).curve("learning_rate")["value"]
    assert rates == pytest.approx([1e-3] * 4 + [1e-5] * 4)
    assert [step for step, _ in load_run(run).samples()] == [4, 5, 6, 7, 8]
    assert load_run(run).config.learning_rate == 1e-5
    assert load_run(run).config_at(0).learning_rate == 1e-3
    losses = load_run(run).curve("loss")["value"]
    # As if it had been killed at step 8 with step 2 as the last whole checkpoint.
    for step in (4, 6, 8):
        checkpoint.weights_path(run, step).unlink(missing_ok=True)
    train(tmp_path / "again", config, device=DEVICE, on_step=stop_after(tmp_path / "again", 2))
    (tmp_path / "again" / "changes.json").write_bytes((run / "changes.json").read_bytes())
    train(tmp_path / "again", resume=True, device=DEVICE)
    assert same(load_run(tmp_path / "again").curve("loss")["value"], losses)


def test_a_finished_run_goes_on_with_more_steps_as_if_it_had_had_them(tmp_path: Path) -> None:
    train(tmp_path / "long", tiny(steps=12), device=DEVICE)
    train(tmp_path / "short", tiny(steps=8), device=DEVICE)
    add_change(tmp_path / "short", 9, {"steps": 12})
    assert train(tmp_path / "short", resume=True, device=DEVICE) == "finished"
    long, short = (load_run(tmp_path / name) for name in ("long", "short"))
    assert same(long.curve("loss")["value"], short.curve("loss")["value"])
    assert short.status.total == 12


def test_a_change_that_cannot_be_is_said_and_training_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def on_step(done: int, steps: int, loss: float | None) -> None:
        if done == 2:
            write_json(run / "request.json", {"action": "change", "settings": {"seed": 3}})

    assert train(run, tiny(), device=DEVICE, on_step=on_step) == "finished"
    assert read_changes(run) == []


# ---------------------------------------------------------------- what is written and when


def test_the_curves_hold_the_update_ratio_and_the_peak_of_memory(tmp_path: Path) -> None:
    train(tmp_path / "run", tiny(steps=20), device=DEVICE)
    last = load_run(tmp_path / "run").last_values()
    assert 0 < last["update_ratio"][1] < 1
    assert last["update_ratio"][0] == 20
    assert last["peak_memory_bytes"][1] >= last["memory_bytes"][1] > 0


def test_a_checkpoint_is_written_only_after_the_numbers_of_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = tmp_path / "run", []
    original = checkpoint.save_weights

    def save_weights(path, step, *rest):
        seen.append((step, load_run(run).curve("loss")["step"].max()))
        return original(path, step, *rest)

    monkeypatch.setattr(checkpoint, "save_weights", save_weights)
    train(run, tiny(checkpoint_every=2), device=DEVICE)
    assert [step for step, _ in seen] == [2, 4, 6, 8]
    assert all(newest >= step for step, newest in seen)


def test_event_files_for_tensorboard_are_an_option(tmp_path: Path) -> None:
    for name, wanted in (("with", True), ("without", False)):
        train(tmp_path / name, tiny(tensorboard=wanted, steps=2), device=DEVICE)
    assert len(list((tmp_path / "with" / "tensorboard").glob("events.out.tfevents.*"))) == 1
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_run_says_how_its_layers_are_computed_and_goes_on_so_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(layer_ways, "LEAST", 0)
    monkeypatch.setattr(layer_ways, "fastest", lambda shape: Ways(GEMM, PLAIN, GEMM))
    changes: dict = {"network": "lecture", "network_args": {"widths": [4, 8, 8, 8, 8]}}
    config = tiny(**changes, steps=6, optimizer="adam", sample_steps=0)
    train(tmp_path / "whole", config, device=DEVICE)
    train(tmp_path / "cut", config, device=DEVICE, on_step=stop_after(tmp_path / "cut", 3))
    # Measured again, it would be something else.
    monkeypatch.setattr(layer_ways, "fastest", lambda shape: Ways())
    (tmp_path / "cache" / layer_ways.FILE).unlink()
    train(tmp_path / "cut", resume=True, device=DEVICE)

    details = load_run(tmp_path / "cut").details
    assert details.layers["downs.3.transform"] == Ways(GEMM, PLAIN, GEMM)
    assert "output" not in details.layers
    whole, resumed = (weights_of(tmp_path / name, config.steps) for name in ("whole", "cut"))
    assert all(same(whole[name], resumed[name]) for name in whole)


def test_layers_are_computed_as_pytorch_does_where_a_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_ways, "LEAST", 0)
    monkeypatch.setattr(layer_ways, "fastest", lambda shape: pytest.fail("measured"))
    train(tmp_path / "run", tiny(steps=1, fast_layers=False), device=DEVICE)
    assert load_run(tmp_path / "run").details.layers == {}
