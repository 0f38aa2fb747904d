"""Runs that distil another: settings, training, resuming, and that everything takes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from diffusion_core.cli.main import main
from diffusion_core.evaluation.features import general_net
from diffusion_core.process.schedule import Schedule, gather
from diffusion_core.runs import checkpoint, jobs
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.origin import distillation
from diffusion_core.runs.presets import PRESETS
from diffusion_core.runs.run import load_run
from diffusion_core.sampling.sample import sample
from diffusion_core.sampling.solvers import StepView
from diffusion_core.training.batches import Batch
from diffusion_core.training.distributed import joined
from diffusion_core.training.paths import path_timesteps
from diffusion_core.training.perceptual import perceptual_distances
from diffusion_core.training.step import batch_of, objective, plain_errors
from diffusion_core.training.trainer import train
from tests.core.training.test_step import prepared
from tests.tiny_runs import DEVICE, same, tiny

QUIET = {"steps": 2, "sample_every": 0, "validate_every": 0}
STUDENT = {"objective": "consistency", "init_from": "teacher", "min_snr_gamma": 0.0}
BY_TUNING = STUDENT | {"consistency_by": "tuning"}
STUDENT |= {"consistency_by": "paths"}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    train(tmp_path / "teacher", tiny(**QUIET), device=DEVICE)
    return tmp_path / "teacher"


@pytest.mark.parametrize(
    ("prediction_type", "by"), [("v_prediction", "tuning"), ("flow_prediction", "paths")]
)
def test_a_distillation_that_was_stopped_equals_one_that_was_not_to_the_last_bit(
    tmp_path: Path, prediction_type: str, by: str
) -> None:
    how = {"prediction_type": prediction_type, "consistency_steps": 3}
    train(
        tmp_path / "teacher", tiny(**how, steps=2, sample_every=0, validate_every=0), device=DEVICE
    )
    how |= STUDENT | {"consistency_by": by}
    if by == "paths":
        how |= {"loss": "l1", "perceptual_weight": 0.1}
    config = tiny(**how, steps=6, consistency_stages=3, sample_steps=1, micro_batch=3)
    assert train(tmp_path / "whole", config, device=DEVICE) == "finished"
    assert train(tmp_path / "cut", config.replace(pause_at=3), device=DEVICE) == "paused"
    assert train(tmp_path / "cut", resume=True, device=DEVICE) == "finished"
    found = [load_run(tmp_path / name).checkpoint(6) for name in ("whole", "cut")]
    whole, resumed = (checkpoint.load_weights(each) for each in found)
    assert all(same(whole[name], resumed[name]) for name in whole)
    curves = [load_run(tmp_path / name).curve("loss") for name in ("whole", "cut")]
    assert np.isfinite(curves[0]["value"]).all()
    assert same(curves[0]["value"], curves[1]["value"])


def test_it_starts_from_the_teacher_and_learns_what_it_samples(
    tmp_path: Path, teacher: Path
) -> None:
    config = tiny(**STUDENT, steps=48, learning_rate=5e-3, sample_every=0)
    train(tmp_path / "new", config, device=DEVICE)
    run = load_run(tmp_path / "new")
    assert run.config.init_from == "teacher@2"
    loss = run.curve("validation_loss")["value"]
    assert loss[-1] < loss[0]


def remember(seen: list[Tensor], view: StepView) -> None:
    seen.append(view.x_t[0])


def test_the_batches_are_points_of_the_paths_on_which_the_teacher_samples(teacher: Path) -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, batch_size=12, consistency_steps=4))
        for parameter in training.teacher.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        plain = prepared(tiny(batch_size=12))
        batch, drawn = batch_of(training, 5), batch_of(plain, 5)
        x_t, _ = training.schedule.add_noise(batch.x_0, batch.t, batch.noise)
        assert batch.t[:3].tolist() == [19, 19, 19]
        assert torch.allclose(x_t[:3], drawn.noise[:3], atol=1e-5)
        # Sampling from each noise passes the points and ends in the image.
        timesteps = sorted(set(batch.t.tolist()), reverse=True)
        for t, low, high in zip(timesteps[1:], (13, 6, 1), (18, 13, 6), strict=True):
            assert low <= t <= high  # (T - 1)(1 + cos u) / 2 between angles
        for k in range(3):
            mine = [n for n in range(12) if torch.equal(batch.x_0[n], batch.x_0[k])]
            mine.sort(key=lambda n: -batch.t[n])
            assert batch.t[mine].tolist() == timesteps
            assert (batch.labels[mine] == drawn.labels[k]).all()
            seen: list[Tensor] = []
            end = sample(
                *(training.teacher, training.schedule, 1, "dpmpp_2m"),
                prediction_type="v_prediction",
                x_T=drawn.noise[k : k + 1],
                labels=drawn.labels[k : k + 1],
                timesteps=timesteps,
                on_step=partial(remember, seen),
            )
            assert torch.allclose(batch.x_0[k], end[0], atol=1e-4)
            for n, x in zip(mine[1:], seen, strict=False):
                assert torch.allclose(x_t[n], x, atol=1e-4)
        again, other = batch_of(training, 5), batch_of(training, 6)
        assert torch.equal(batch.noise, again.noise)
        assert set(other.t.tolist()) != set(timesteps)


@given(steps=st.integers(2, 300), more=st.integers(0, 700), seed=st.integers(0, 2**31))
def test_the_timesteps_of_a_path_fall_from_the_last_of_the_schedule(
    steps: int, more: int, seed: int
) -> None:
    found = path_timesteps(steps + more, steps, torch.Generator().manual_seed(seed))
    assert found[0] == steps + more - 1
    assert found == sorted({t for t in found if t >= 0}, reverse=True)
    assert len(found) == steps


class Gaussian(nn.Module):
    """The exact v of images whose values are from N(M, S^2)."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        a, b = (gather(each, t, 4) for each in (self.schedule.signal, self.schedule.spread))
        x_0 = M + a * S**2 / (a**2 * S**2 + b**2) * (x_t - a * M)
        return a * (x_t - a * x_0) / b - b * x_0


M, S = 0.1, 0.2


def test_every_point_of_a_path_of_a_gaussian_has_its_end_in_closed_form() -> None:
    schedule = {"kind": "cosine", "timesteps": 1000}
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, schedule=schedule, consistency_steps=200))
        training.teacher = Gaussian(training.schedule)
        batches = [batch_of(training, step) for step in (1, 2, 3)]
    for x_0, _, t, noise, *_ in batches:
        x_t, _ = training.schedule.add_noise(x_0, t, noise)
        a, b = (gather(each, t, 4) for each in (training.schedule.signal, training.schedule.spread))
        # The probability flow keeps the quantile of every value.
        end = M + S * (x_t - a * M) / (a**2 * S**2 + b**2).sqrt()
        assert len(set(t.tolist())) == 4
        assert t[0] == 999
        assert torch.allclose(x_0, end, atol=0.01)


@pytest.mark.parametrize(("loss", "distance"), [("l1", torch.abs), ("l2", torch.square)])
def test_the_loss_at_pure_noise_is_the_distance_from_the_end_of_its_path(
    loss: str, distance: Callable[[Tensor], Tensor]
) -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, loss=loss))
        batch = batch_of(training, 1)
        weighted, errors = objective(training, training.model, batch)
    a, b = (each[-1] for each in (training.schedule.signal, training.schedule.spread))
    assert batch.t[0] == 19
    # An untrained network answers v = 0, so that the image is a x_t; v = (a x_t - x_0) / b.
    x_t = a * batch.x_0[0] + b * batch.noise[0]
    assert errors[0].item() == pytest.approx(float(distance((a * x_t - batch.x_0[0]) / b).mean()))
    assert torch.equal(weighted, errors)


def test_several_processes_see_the_points_that_one_does() -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, batch_size=16, consistency_steps=6))
        whole = batch_of(training, 3)
        shares = [batch_of(training, 3, process, 2) for process in (0, 1)]

    def points(*batches: Batch) -> Tensor:
        found = [torch.stack([batch.t.float(), batch.noise[:, 0, 0, 0]], 1) for batch in batches]
        return torch.tensor(sorted(torch.cat(found).tolist()))

    assert torch.allclose(points(*shares), points(whole), atol=1e-4)
    assert sorted(int((whole.t == t).sum()) for t in set(whole.t.tolist())) == [2, 2, 2, 3, 3, 4]


def test_the_perceptual_weight_adds_the_distance_in_features() -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, perceptual_weight=0.5))
        batch = batch_of(training, 1)
        _, errors = objective(training, training.model, batch)
        x_t, _ = training.schedule.add_noise(batch.x_0, batch.t, batch.noise)
        x_0 = gather(training.schedule.signal, batch.t, 4) * x_t  # of v = 0
        added = perceptual_distances(general_net().model, x_0, batch.x_0)
        training.perceptual = None
        _, plain = objective(training, training.model, batch)
    assert added.min() > 0.01
    assert torch.allclose(errors, plain + 0.5 * added, atol=1e-5)


def test_a_batch_that_is_no_multiple_of_the_points_has_all_first_ones() -> None:
    with joined(DEVICE):
        training = prepared(tiny(**STUDENT, batch_size=5, consistency_steps=3))
        assert [int((batch_of(training, k).t == 19).sum()) for k in (1, 2, 3)] == [2, 2, 2]
        assert len(batch_of(training, 1).t) == 5


def test_the_levels_that_tuning_compares_come_closer_in_stages(teacher: Path) -> None:
    with joined(DEVICE):
        training = prepared(tiny(**BY_TUNING, steps=8))
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
        ({"min_snr_gamma": 5.0}, "consistency_by=paths has .* weights of its own; set min_snr_gam"),
        (BY_TUNING | {"min_snr_gamma": 5.0}, "set min_snr_gamma to 0"),
        (BY_TUNING | {"loss": "l1"}, "set loss to l2"),
        (BY_TUNING | {"learned_weighting": True}, "set learned_weighting to off"),
        (BY_TUNING | {"consistency_stages": 20}, "too close to differ; choose a smaller consist"),
        (BY_TUNING | {"perceptual_weight": 1.0}, "set perceptual_weight to 0"),
        ({"objective": "denoising", "perceptual_weight": 1.0}, "is for a distillation with consis"),
        ({"augment": 0.1}, "consistency_by=paths has images, timesteps and weights of its own; se"),
        ({"timestep_sampling": "laplace"}, "set timestep_sampling to uniform"),
        ({"consistency_steps": 21}, "consistency_steps is 21; it must be at most 20"),
        ({"sample_steps": 0}, "set sample_steps to 1 or more"),
    ],
)
def test_settings_that_mean_nothing_to_it_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        tiny(**STUDENT | settings)


def test_a_distilled_run_has_no_path_to_follow(tmp_path: Path, teacher: Path) -> None:
    train(tmp_path / "student", tiny(**STUDENT | QUIET), device=DEVICE)
    again = {**STUDENT, "init_from": "student"}
    with pytest.raises(ConfigError, match=r"student is a distilled run.*distil teacher, step 2"):
        jobs.create(tmp_path, "new", tiny(**again))
    assert jobs.create(tmp_path, "new", tiny(**again | BY_TUNING)).config is not None


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
    assert config.matching_share == (0 if config.prediction_type == "epsilon" else 0.25)
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
