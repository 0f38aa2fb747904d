"""Runs that distil another: settings, training, resuming, and that everything takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_core.cli.main import main
from diffusion_core.runs import checkpoint, jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.origin import distillation
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.run import load_run
from diffusion_core.training.distributed import joined
from diffusion_core.training.step import batch_of, objective, plain_errors
from diffusion_core.training.trainer import train
from tests.core.training.test_step import prepared
from tests.tiny_runs import DEVICE, same, tiny

QUIET = {"steps": 2, "sample_every": 0, "validate_every": 0}
STUDENT = {"objective": "consistency", "init_from": "teacher", "min_snr_gamma": 0.0}
IN_STAGES = STUDENT | {"consistency_path": "noise"}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    train(tmp_path / "teacher", tiny(**QUIET), device=DEVICE)
    return tmp_path / "teacher"


@pytest.mark.parametrize(
    ("prediction_type", "path"), [("v_prediction", "teacher"), ("flow_prediction", "noise")]
)
def test_a_distillation_that_was_stopped_equals_one_that_was_not_to_the_last_bit(
    tmp_path: Path, prediction_type: str, path: str
) -> None:
    how = {"prediction_type": prediction_type, "consistency_path": path}
    train(
        tmp_path / "teacher", tiny(**how, steps=2, sample_every=0, validate_every=0), device=DEVICE
    )
    config = tiny(**how, **STUDENT, steps=6, consistency_stages=3, sample_steps=1, micro_batch=3)
    assert train(tmp_path / "whole", config, device=DEVICE) == "finished"
    assert train(tmp_path / "cut", config.replace(pause_at=3), device=DEVICE) == "paused"
    assert train(tmp_path / "cut", resume=True, device=DEVICE) == "finished"
    found = [load_run(tmp_path / name).checkpoint(6) for name in ("whole", "cut")]
    whole, resumed = (checkpoint.load_weights(each) for each in found)
    assert all(same(whole[name], resumed[name]) for name in whole)
    curves = [load_run(tmp_path / name).curve("loss") for name in ("whole", "cut")]
    assert np.isfinite(curves[0]["value"]).all()
    assert same(curves[0]["value"], curves[1]["value"])


def test_it_starts_from_the_teacher_and_learns_to_agree_with_itself(
    tmp_path: Path, teacher: Path
) -> None:
    config = tiny(**STUDENT, steps=30, learning_rate=1e-3, sample_every=0)
    train(tmp_path / "new", config, device=DEVICE)
    run = load_run(tmp_path / "new")
    assert run.config.init_from == "teacher@2"
    loss = run.curve("validation_loss")["value"]
    assert loss[-1] < loss[0]


def test_the_objective_weighs_what_two_levels_disagree_by(teacher: Path) -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, steps=8))
        batch = batch_of(training, 1)
        ratio = (training.schedule.spread / training.schedule.signal)[batch.t]
        assert torch.allclose(batch.r, (ratio / 2).where(ratio > 0.04, 0).clamp(max=80), rtol=1e-3)
        weighted, plain = objective(training, training.model, batch)
        assert torch.allclose(weighted, plain / training.schedule.spread[batch.t])


def test_the_levels_of_the_same_noise_come_closer_in_stages(teacher: Path) -> None:
    with joined(DEVICE):
        training = prepared(tiny(**IN_STAGES, steps=8))
        assert training.teacher is None
        first, last = batch_of(training, 1), batch_of(training, 8)
        assert first.r is not None
        assert (last.part(0, 2).r == last.r[:2]).all()
        weighted, plain = objective(training, training.model, last)
        assert torch.equal(plain, plain_errors(training, training.model, last))
        ratio = (training.schedule.spread / training.schedule.signal)[last.t]
        assert torch.allclose(weighted, plain / (ratio - last.r), rtol=1e-3)
        # The levels are 1 - r/t apart, which halves with every stage.
        ratio = (training.schedule.spread / training.schedule.signal)[first.t]
        assert float((1 - first.r / ratio).min()) > 0.5 > float((1 - last.r / ratio).min())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"init_from": ""}, "distils another run; name that run with init_from"),
        ({"min_snr_gamma": 5.0}, "set min_snr_gamma to 0"),
        ({"loss": "l1"}, "set loss to l2"),
        ({"learned_weighting": True}, "set learned_weighting to off"),
        (
            {"consistency_stages": 20, "consistency_path": "noise"},
            "too close to differ; choose a smaller consistency_q",
        ),
        ({"sample_steps": 0}, "set sample_steps to 1 or more"),
    ],
)
def test_settings_that_mean_nothing_to_it_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        tiny(**STUDENT | settings)


def test_a_distilled_run_has_no_path_to_follow(tmp_path: Path, teacher: Path) -> None:
    train(tmp_path / "student", tiny(**STUDENT | QUIET), device=DEVICE)
    again = {**STUDENT, "init_from": "student"}
    with pytest.raises(
        ConfigError, match=r"student is a distilled run.*distil teacher, step 2, or"
    ):
        jobs.create(tmp_path, "new", tiny(**again))
    assert jobs.create(tmp_path, "new", tiny(**again, consistency_path="noise")).config is not None


def test_a_share_of_the_images_is_at_the_level_where_one_step_starts() -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, batch_size=32))
        last = training.schedule.timesteps - 1
        t = torch.cat([batch_of(training, step).t for step in range(1, 31)])
        assert 0.08 < float((t == last).float().mean()) < 0.15  # a sixteenth, and 1 of 20


def test_the_path_stays_that_of_the_teacher(tmp_path: Path, teacher: Path) -> None:
    for other in ({"schedule": {"kind": "linear", "timesteps": 20}}, {"prediction_type": "x_0"}):
        with pytest.raises(ConfigError, match="keeps the schedule and the prediction_type of its"):
            jobs.create(tmp_path, "new", tiny(**STUDENT | other))
    spelled_out = {"schedule": {"kind": "cosine", "timesteps": 20, "shift_size": 0}}
    assert jobs.create(tmp_path, "new", tiny(**STUDENT, **spelled_out)).config is not None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_distilled(name: str) -> None:
    config = distillation(PRESETS[name], "teacher")
    assert config.distilled
    for field in ("network", "network_args", "schedule", "prediction_type", "data", "image_size"):
        assert getattr(config, field) == getattr(PRESETS[name], field)
    again = distillation(config.replace(sweep="s", restart_at=5), "other@3")  # of a distilled one
    assert (again.init_from, again.sweep, again.restart_at) == ("other@3", "", 0)


def test_a_run_is_distilled_from_the_command_line(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("DIFFUSION_LAB_RUNS_DIR", str(tmp_path))

    def say(*words: str) -> str:
        code = main(list(words))
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    start = ("train", "--run", str(tmp_path / "fast"), "--quiet", "--distil")
    assert "Starts from the weights of teacher, step 2." in say(*start, "teacher@2", "--steps", "2")
    config = load_run(tmp_path / "fast").config
    assert config == distillation(load_run(teacher).config, "teacher@2").replace(steps=2)
    assert "leave --preset, --like and --init-from out" in say(*start, "teacher", "--like", "fast")
    assert "nobody" in say(*start, "nobody")
    assert "keeps its settings" in say(*start, "teacher", "--resume")
    out = tmp_path / "images.png"
    say("sample", "--run", "fast", "--n", "2", "--out", str(out))
    with Image.open(out) as image:
        assert image.size == (32, 16)
    refused = say("sample", "--run", "fast", "--sampler", "ddim", "--out", str(out))
    assert "fast is a distilled run, which ddim cannot sample; choose consistency." in refused
    refused = say("sample", "--run", "teacher", "--sampler", "consistency", "--out", str(out))
    assert "consistency needs a distilled run, and teacher is not one" in refused
